"""Fit the coefficients of the classical sky matte to pictures with known mattes.

    python -m preprocess.sky.classical_fit --images DIR --masks DIR --out FILE.safetensors

Each picture is taken as it is, once with other exposure, gamma and white balance, and as two
random crops, so that neither a fixed skyline nor a fixed exposure is learned. Pictures count alike
whatever their size; those without sky count more, since they are few.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from atlas.clip import find_picture, list_frames, read_grey, read_rgb, write_bytes
from atlas.errors import run_script
from preprocess.sky.classical import (
    COEFFICIENTS,
    ColourCounts,
    QuadraticLogit,
    describe,
    relate,
    shrink,
    sigmoid,
)

log = logging.getLogger(__name__)
_PIXELS_PER_PICTURE = 500
_NO_SKY_WEIGHT = 4.0


def pictures(
    images: Path, masks: Path, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training pairs at the working size: (h, w, 3) uint8 and (h, w) float32 in [0, 1]."""
    for name in list_frames(images):
        rgb, matte = read_rgb(images / name), read_grey(find_picture(masks, Path(name).stem))
        yield _small(rgb, matte)
        yield _small(relit(rgb, rng), matte)
        height, width = matte.shape
        for _ in range(2):
            h, w = int(height * rng.uniform(0.45, 0.9)), int(width * rng.uniform(0.45, 0.9))
            y, x = rng.integers(0, height - h), rng.integers(0, width - w)
            window = (slice(y, y + h), slice(x, x + w))
            yield _small(relit(rgb[window], rng), matte[window])


def relit(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`rgb` with random gamma, gain, white balance and noise; (h, w, 3) uint8."""
    values = (rgb.astype(np.float32) / 255) ** np.exp(rng.normal(0, 0.25))
    values *= np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.05, 3))
    values += rng.normal(0, 0.01 * rng.random(), values.shape)
    return (values.clip(0, 1) * 255).astype(np.uint8)


def _small(rgb: np.ndarray, matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return shrink(np.ascontiguousarray(rgb)), shrink(matte).astype(np.float32) / 255


def fit_logit(
    features: np.ndarray, target: np.ndarray, weight: np.ndarray, decay: float
) -> QuadraticLogit:
    """Weighted logistic regression on all products of two features (L-BFGS).

    Args:
        features: (N, F) float32. target: (N,) float32 in [0, 1]. weight: (N,) float32.
        decay: factor on the sum of squares of the coefficients of standardised products.
    """
    count = features.shape[1]
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    z = torch.from_numpy(np.c_[(features - mean) / scale, np.ones(len(features), np.float32)])
    i, j = np.triu_indices(count + 1)
    i, j = i[:-1], j[:-1]  # the last is 1 * 1, the intercept
    products = z[:, i] * z[:, j]
    centre, spread = products.mean(dim=0), products.std(dim=0) + 1e-6
    products = (products - centre) / spread
    truth, share = torch.from_numpy(target), torch.from_numpy(weight / weight.mean())
    slope = torch.zeros(products.shape[1], requires_grad=True)
    intercept = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, intercept], max_iter=200, line_search_fn="strong_wolfe")
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_of(products @ slope + intercept, truth, share) + decay * slope.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    log.info("%d features of %d pixels: loss %.4f", count, len(features), float(closure().detach()))
    with torch.no_grad():
        matrix = np.zeros((count + 1, count + 1), np.float32)
        matrix[i, j] = (slope / spread).numpy()
        matrix[-1, -1] = float(intercept - (slope / spread * centre).sum())
    return QuadraticLogit(mean, scale.astype(np.float32), matrix)


def fit(images: Path, masks: Path, seed: int = 0) -> tuple[QuadraticLogit, QuadraticLogit]:
    """Both models; the second is fitted to what the first says of the same kind of pictures."""
    models: list[QuadraticLogit] = []
    for decay in (1e-5, 1e-4):
        rng = np.random.default_rng(seed)
        rows, targets, weights = [], [], []
        for rgb, matte in pictures(images, masks, rng):
            features = describe(rgb)
            if models:
                first = models[0](features)
                colours = ColourCounts.empty().plus(rgb, sigmoid(first))
                features = relate(rgb, features, first, colours)
            some = rng.choice(matte.size, min(_PIXELS_PER_PICTURE, matte.size), replace=False)
            rows.append(features.reshape(matte.size, -1)[some])
            targets.append(matte.ravel()[some])
            weight = 1.0 if matte.max() > 0.5 else _NO_SKY_WEIGHT
            weights.append(np.full(len(some), weight, np.float32))
        data = [np.concatenate(part) for part in (rows, targets, weights)]
        models.append(fit_logit(data[0], data[1], data[2], decay))
    return models[0], models[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="fit the classical sky matte")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--masks", type=Path, required=True, help="mattes of the same names")
    parser.add_argument("--out", type=Path, default=COEFFICIENTS)
    options = parser.parse_args()
    models = fit(options.images, options.masks)
    data = {}
    for name, model in zip(("appearance", "context"), models, strict=True):
        for part in ("mean", "scale", "matrix"):
            data[f"{name}.{part}"] = np.ascontiguousarray(getattr(model, part), np.float32)
    write_bytes(options.out, save(data))


if __name__ == "__main__":
    run_script(main)

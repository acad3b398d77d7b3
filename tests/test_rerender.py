"""Baked previews against the renderer that makes the final frames."""

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.errors import InputError
from atlas.layered import LayeredMapping, LayerMotion, lattice_shape
from atlas.texture import sample
from edits.rerender import BakedLayer, bake_layer

SIZE, CANVAS = Size(72, 100), Size(90, 140)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A layer that bends and moves behind a disc, shaded, in three frames; baked."""
    rng = np.random.default_rng(4)
    residual = rng.normal(size=(3, *lattice_shape(SIZE, 16), 2)).astype(np.float32)
    matrices = np.stack(
        [np.array([[1, 0, 6 + 9 * t], [0.02, 1, 7], [0, 0, 1.0]]) for t in range(3)]
    )
    behind = LayerMotion("behind", CANVAS, matrices, residual, 16, np.ones(3, np.float32))
    y, x = np.mgrid[: SIZE.height, : SIZE.width]
    disc = np.clip(18.5 - np.hypot(x - 50, y - 30), 0, 1).astype(np.float32)
    front = LayerMotion("front", SIZE, np.tile(np.eye(3), (3, 1, 1)), None, 16, behind.confidence)
    alphas = np.stack([disc, np.ones_like(disc)])
    mapping = LayeredMapping(SIZE, [front, behind], lambda t: alphas)

    def gains(t, size):
        ramp = np.linspace(0.6, 1.1 + 0.1 * t, size.width, dtype=np.float32)
        return np.broadcast_to(ramp[None, None, :, None], (2, size.height, size.width, 3))

    paint = np.zeros((*CANVAS.wh[::-1], 4), np.uint8)
    cv2.circle(paint, (60, 40), 30, (240, 90, 30, 255), -1)
    cv2.circle(paint, (90, 60), 25, (20, 140, 250, 130), -1)
    frames = [rng.integers(0, 256, (SIZE.height, SIZE.width, 3), dtype=np.uint8) for _ in range(3)]
    baked = bake_layer(tmp_path_factory.mktemp("baked"), mapping, 1, SIZE, gains)
    return mapping, gains, paint, frames, baked


def slow_frame(mapping, gains, paint, rgb, t):
    """The same in floating point, whole frames."""
    found = mapping.frame(t)
    straight = paint.astype(np.float32) / 255
    premultiplied = np.dstack([straight[..., :3] * straight[..., 3:], straight[..., 3]])
    border = cv2.copyMakeBorder(premultiplied, 40, 40, 40, 40, cv2.BORDER_CONSTANT)
    seen = sample(border, found.uv[1] + 40)
    colour = np.minimum(seen[..., :3] * gains(t, SIZE)[1], seen[..., 3:])
    share = found.visible()[1][..., None]
    return share * colour + (1 - share * seen[..., 3:]) * (rgb.astype(np.float32) / 255)


def test_frames_agree_with_floating_point(scene):
    mapping, gains, paint, frames, baked = scene
    done = list(baked.video(frames, baked.premultiplied(paint)))
    assert len(done) == 3
    for t, (found, rgb) in enumerate(zip(done, frames, strict=True)):
        error = np.abs(found - 255 * slow_frame(mapping, gains, paint, rgb, t))
        # five roundings of half a level, gains in steps of 1/64 and at 8 px
        assert error.mean() < 1
        assert np.quantile(error, 0.99) < 6


def test_pixels_without_paint_keep_their_value(scene):
    _, _, paint, frames, baked = scene
    nothing = baked.premultiplied(np.zeros_like(paint))
    assert np.array_equal(baked.frame(1, frames[1], nothing), frames[1])
    found = baked.frame(1, frames[1], baked.premultiplied(paint))
    changed = (found != frames[1]).any(-1)
    assert 0.1 < changed.mean() < 0.7
    assert not changed[30, 50]  # the middle of the disc in front
    assert frames[1].flags.writeable


def test_a_folder_that_is_no_baked_layer_is_named(tmp_path):
    with pytest.raises(InputError, match="not a baked layer"):
        BakedLayer(tmp_path)


def test_paint_of_another_size_is_refused(scene):
    baked = scene[-1]
    with pytest.raises(ValueError, match="rgba must be uint8"):
        baked.premultiplied(np.zeros((5, 5, 4), np.uint8))

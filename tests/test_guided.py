"""The guided filter against a slow direct reading of its equations."""

import numpy as np
import pytest

from atlas.guided import guided_filter, guided_upsample


def slow_guided_filter(guide, source, radius, eps):
    """Eq. 5, 6, 8 (grey) and 19, 20 (colour) of He et al. 2013 with explicit windows, float64."""
    guide = np.atleast_3d(guide).astype(float)
    height, width, channels = guide.shape
    rows = np.pad(np.arange(height), radius, mode="symmetric")
    columns = np.pad(np.arange(width), radius, mode="symmetric")

    def window(values, y, x):
        inside = values[rows[y : y + 2 * radius + 1]][:, columns[x : x + 2 * radius + 1]]
        return inside.reshape(-1, *values.shape[2:])

    a, b = np.zeros((height, width, channels)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            i, p = window(guide, y, x), window(source, y, x)
            centred = i - i.mean(axis=0)
            covariance = centred.T @ centred / len(i) + eps * np.eye(channels)
            a[y, x] = np.linalg.solve(covariance, centred.T @ (p - p.mean()) / len(i))
            b[y, x] = p.mean() - a[y, x] @ i.mean(axis=0)
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            out[y, x] = window(a, y, x).mean(axis=0) @ guide[y, x] + window(b, y, x).mean()
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-2), (3, 1e-3)])
def test_equals_the_direct_form(channels, radius, eps):
    rng = np.random.default_rng(channels)
    guide = rng.random((11, 17, channels)).astype(np.float32)
    guide = guide[..., 0] if channels == 1 else guide
    source = rng.random((11, 17)).astype(np.float32)
    expected = slow_guided_filter(guide, source, radius, eps)
    # float32 against float64: variances of 0.08 divided by themselves plus eps
    np.testing.assert_allclose(guided_filter(guide, source, radius, eps), expected, atol=2e-4)


def test_bytes_are_taken_as_a_share_of_255():
    rng = np.random.default_rng(0)
    guide = rng.integers(0, 256, (13, 19, 3), dtype=np.uint8)
    source = rng.random((13, 19)).astype(np.float32)
    as_float = guided_filter(guide.astype(np.float32) / 255, source, 2, 1e-2)
    np.testing.assert_allclose(guided_filter(guide, source, 2, 1e-2), as_float, atol=1e-4)


def test_linear_function_of_the_guide_comes_back():
    """A source that is a linear function of the guide is a fixed point as eps goes to nothing."""
    rng = np.random.default_rng(1)
    guide = rng.random((24, 15, 3)).astype(np.float32)
    source = (guide @ [0.2, 0.5, -0.3] + 0.4).astype(np.float32)
    np.testing.assert_allclose(guided_filter(guide, source, 4, 1e-7), source, atol=1e-3)


def test_bright_flat_guide_smooths_without_rounding_trouble():
    """In a flat sky the filter is a box filter twice over; float32 must not see variance there."""
    guide = np.full((40, 30, 3), 250, np.uint8)
    source = np.zeros((40, 30), np.float32)
    source[20, 15] = 1
    out = guided_filter(guide, source, 2, 1e-4)
    assert out[20, 15] == pytest.approx(25 / 625, abs=1e-5)
    assert out[20, 19] == pytest.approx(5 / 625, abs=1e-5)
    assert np.abs(out[:10]).max() < 1e-5


def edge_scene(height=96, width=144):
    """A slanted bright-dark edge: guide (H, W) float32, its exact matte, and that one blurred."""
    y, x = np.mgrid[:height, :width]
    matte = np.clip(0.5 + (60 - y + 0.2 * x) / 2, 0, 1).astype(np.float32)
    return 0.2 + 0.6 * matte, matte


@pytest.mark.parametrize("colour", [False, True])
def test_upsampling_restores_the_edge(colour):
    guide, matte = edge_scene()
    if colour:
        guide = np.stack([guide, 0.9 * guide, 1 - guide], axis=2)
    small_guide = guide.reshape(24, 4, 36, 4, -1).mean(axis=(1, 3)).squeeze().astype(np.float32)
    small = matte.reshape(24, 4, 36, 4).mean(axis=(1, 3))
    fine = guided_upsample(guide, small_guide, small, 2, 1e-5)
    plain = np.repeat(np.repeat(small, 4, axis=0), 4, axis=1)
    assert np.abs(fine - matte).mean() < 0.15 * np.abs(plain - matte).mean()


def test_subsampled_form_is_close_to_the_full_one():
    guide, matte = edge_scene()
    full = guided_filter(guide, matte, 8, 1e-3)
    fast = guided_filter(guide, matte, 8, 1e-3, subsample=4)
    assert fast.shape == matte.shape
    assert np.abs(full - fast).mean() < 0.01  # the paper: "no visible degradation"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": np.zeros((4, 6), np.float32)}, "must be equal"),
        ({"radius_px": 0}, "radius_px must be >= 1, got 0"),
        ({"eps": 0.0}, "eps must be > 0"),
        ({"eps": float("nan")}, "eps must be > 0"),
        ({"subsample": 0}, "subsample must be >= 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    usual = {"source": np.zeros((5, 6), np.float32), "radius_px": 2, "eps": 1e-3}
    with pytest.raises(ValueError, match=message):
        guided_filter(np.zeros((5, 6), np.float32), **(usual | arguments))

"""Composing as the original layered-neural-atlases program does."""

# ruff: noqa: F401, F811

import numpy as np
import pytest

from atlas.clip import read_rgb, write_rgb
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.lna_import import (
    open_lna_model,
)
from atlas.mapping import FrameMapping
from edits.lna_compose import (
    as_fitted,
    compose,
    open_pictures,
    render_lna,
    sample_straight,
    scatter_frame,
)
from edits.recipe import FramePaint, LayerPaint, Recipe, SkyEdit
from tests.lna_models import COUNT, SIZE, SOURCE, data, model
from thirdparty.lna import read_lna_model


def frame_mapping(uv, share):
    alpha = np.stack([share, np.ones_like(share)]).astype(np.float32)
    return FrameMapping(np.asarray(uv, np.float32), alpha, np.ones(2, np.float32))


def test_composition_by_hand():
    """One pixel: opacity 0.25; foreground edit (0.8, 0.5), background edit (0.2, 0.4)."""
    found = frame_mapping(np.full((2, 1, 1, 2), 1.0), np.full((1, 1), 0.25))
    foreground = np.full((3, 3, 4), (0.8, 0.8, 0.8, 0.5))
    background = np.full((3, 3, 4), (0.2, 0.2, 0.2, 0.4))
    video = np.full((1, 1, 3), 0.6, np.float32)
    out = compose(video, found, {0: foreground, 1: background})
    # 0.25 (0.4 + 0.3) + 0.75 (0.08 + 0.36) = 0.505; times 255 = 128.775, cut.
    assert out.dtype == np.uint8
    assert (out == 128).all()
    # 0.25 * 0.6 + 0.75 (0.08 + 0.36) = 0.48; times 255 = 122.4
    assert (compose(video, found, {1: background}) == 122).all()


def test_samples_are_bilinear_and_nothing_beyond_the_picture():
    """A ramp is its own interpolation; a texel beyond the edge makes the whole sample 0."""
    x, y = np.meshgrid(np.arange(7.0), np.arange(5.0))
    ramp = np.dstack([x + 1, 10 * y + 1]).astype(np.float32)
    uv = np.array([[[2.25, 3.5], [6, 4], [0, 0], [6.01, 2], [-0.01, 2], [3, 4.5], [99, -99]]])
    out = sample_straight(ramp, uv.astype(np.float32))[0]
    np.testing.assert_allclose(out[:3], [[3.25, 36], [7, 41], [1, 1]], atol=1e-5)
    assert (out[3:] == 0).all()


def affine_uv(size, step):
    """Texel = step times pixel + (3, 5): every second texel is a pixel when step is 2."""
    return pixel_grid(size) * step + np.array([3, 5], np.float32)


def test_a_scattered_frame_carries_the_share_in_colour_and_opacity():
    size, canvas = Size(6, 9), Size(30, 40)
    uv = np.stack([affine_uv(size, 2), affine_uv(size, 1)])
    share = np.linspace(0.1, 0.9, size.width)[None].repeat(size.height, 0).astype(np.float32)
    rng = np.random.default_rng(2)
    rgba = rng.random((size.height, size.width, 4)).astype(np.float32)
    out = scatter_frame(rgba, frame_mapping(uv, share), [canvas, canvas])
    assert out[0].shape == (30, 40, 4)
    at_pixels = out[0][5:16:2, 3:20:2]
    np.testing.assert_allclose(at_pixels, rgba * share[..., None], atol=1e-6)
    np.testing.assert_allclose(out[1][5:11, 3:12], rgba * (1 - share)[..., None], atol=1e-6)
    between = out[0][5:16:2, 4:19:2]  # on an edge, so the mean of its ends
    carried = rgba * share[..., None]
    expected = (carried[:, :-1] + carried[:, 1:]) / 2
    np.testing.assert_allclose(between, expected, atol=1e-6)
    outside = np.ones((30, 40), bool)
    outside[5:16, 3:20] = False
    assert (out[0][outside] == 0).all()


def test_scattering_asks_only_where_paint_is_and_loses_nothing():
    """A small spot of paint against SciPy over the whole canvas."""
    from scipy.interpolate import griddata

    size, canvas = Size(14, 19), Size(40, 50)
    rng = np.random.default_rng(8)
    uv = affine_uv(size, 2) + rng.uniform(-0.6, 0.6, (14, 19, 2)).astype(np.float32)
    rgba = np.zeros((14, 19, 4), np.float32)
    rgba[4:7, 11:13] = rng.random((3, 2, 4))
    share = np.full((14, 19), 0.7, np.float32)
    out = scatter_frame(rgba, frame_mapping(np.stack([uv, uv]), share), [canvas, canvas])
    texels = np.stack(np.meshgrid(np.arange(50), np.arange(40)), axis=-1)
    values = (rgba * share[..., None]).reshape(-1, 4)
    expected = griddata(uv.reshape(-1, 2), values, texels, fill_value=0)
    assert 10 < (expected[..., 3] > 0).sum() < 200
    np.testing.assert_allclose(out[0], expected, atol=1e-6)


def test_paint_on_a_frame_darkens_where_the_matte_is_soft():
    """Share 1/2 of both: each layer adds (1/2) (c/4 + V/2), so white on black becomes 1/4."""
    size = Size(6, 9)
    uv = np.stack([affine_uv(size, 2)] * 2)
    found = frame_mapping(uv, np.full((6, 9), 0.5))
    pictures = scatter_frame(np.ones((6, 9, 4), np.float32), found, [Size(30, 40)] * 2)
    out = compose(np.zeros((6, 9, 3), np.float32), found, pictures)
    assert (out[1:-1, 1:-1] == 63).all()  # 63.75, cut


def test_frames_are_resized_without_rounding():
    rgb = np.random.default_rng(1).integers(0, 256, (SOURCE.height, SOURCE.width, 3), np.uint8)
    video = as_fitted(rgb, SIZE)
    assert video.shape == (SIZE.height, SIZE.width, 3)
    y, x = 9, 20  # centre at ((x + 1/2) 54/36 - 1/2, (y + 1/2) 33/22 - 1/2) = (30.25, 13.75)
    mixed = 0.25 * rgb[13] + 0.75 * rgb[14].astype(np.float64)
    expected = (0.75 * mixed[30] + 0.25 * mixed[31]) / 255
    np.testing.assert_allclose(video[y, x], expected, atol=1e-6)


def test_rendering_goes_frame_by_frame(model, data):
    mapping = open_lna_model(read_lna_model(model), data, with_textures=False).mapping
    frames = [read_rgb(path) for path in sorted(data.iterdir())]
    picture = np.zeros((1000, 1000, 4), np.float32)
    picture[..., 0] = picture[..., 3] = 1
    pairs = list(render_lna(mapping, frames, {0: picture}))
    assert len(pairs) == COUNT
    for t, (before, after) in enumerate(pairs):
        video, found = as_fitted(frames[t], SIZE), mapping.frame(t)
        assert (after == compose(video, found, {0: picture})).all()
        assert (before == np.rint(video * 255)).all()
        assert (after[..., 0] > before[..., 0]).mean() > 0.5  # red was added


@pytest.fixture
def mapping(model, data):
    return open_lna_model(read_lna_model(model), data, with_textures=False).mapping


def test_pictures_of_another_size_or_kind_are_refused(tmp_path, mapping):
    path = tmp_path / "small.png"
    write_rgb(path, np.zeros((500, 500, 4), np.uint8))
    paint = LayerPaint(layer="background", path=str(path))
    with pytest.raises(InputError, match=r"is 500x500; .* the atlas of 'background', 1000x1000"):
        open_pictures(mapping, Recipe(edits=(paint,)))
    multiply = LayerPaint(layer="background", path=str(path), blend="multiply")
    with pytest.raises(InputError, match="no blend mode 'multiply'"):
        open_pictures(mapping, Recipe(edits=(multiply,)))
    with pytest.raises(InputError, match="found a sky edit"):
        open_pictures(mapping, Recipe(edits=(SkyEdit(source="x.png"),)))
    with pytest.raises(InputError, match="no film grain"):
        open_pictures(mapping, Recipe(edits=(paint,), keep_grain=0.5))
    write_rgb(path, np.zeros((1000, 1000, 4), np.uint8))
    with pytest.raises(InputError, match="one picture a layer"):
        open_pictures(mapping, Recipe(edits=(paint, paint)))
    with pytest.raises(InputError, match="no layer called 'sky'"):
        open_pictures(mapping, Recipe(edits=(LayerPaint(layer="sky", path=str(path)),)))
    with pytest.raises(InputError, match="not both"):
        open_pictures(mapping, Recipe(edits=(paint, FramePaint(frame=0, path=str(path)))))
    with pytest.raises(InputError, match=r"no frame 3; the frames are 0 to 2"):
        open_pictures(mapping, Recipe(edits=(FramePaint(frame=3, path=str(path)),)))
    with pytest.raises(InputError, match=r"is 1000x1000; .* size of the frames of the fit, 36x22"):
        open_pictures(mapping, Recipe(edits=(FramePaint(frame=0, path=str(path)),)))
    only = FramePaint(frame=0, path=str(path), layer="background")
    with pytest.raises(InputError, match=r"paints all layers; wanted --frame 0=RGBA\.png"):
        open_pictures(mapping, Recipe(edits=(only,)))


def test_a_mapping_without_area_cannot_be_scattered():
    found = frame_mapping(np.zeros((2, 6, 9, 2)), np.full((6, 9), 0.5))
    with pytest.raises(InputError, match="lie on one line"):
        scatter_frame(np.ones((6, 9, 4), np.float32), found, [Size(8, 8)] * 2)

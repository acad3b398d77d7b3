"""Edges at a source finer than the fit: a fit at a third of the size, edited at the whole size."""

from functools import lru_cache

import cv2
import numpy as np
import pytest

from atlas.coords import Size
from atlas.mapping import LayerMapping, resample
from atlas.texture import Texture
from edits.apply import Renderer
from edits.composite import LayerEdit, composite_frame
from edits.context import RenderContext
from edits.fine_edges import sharpen_edges
from edits.paint import PicturePaint
from edits.picture import Picture
from edits.recipe import LayerPaint, Recipe
from tests.edited_scene import psnr_db
from tests.scene_presets import SceneOptions, make_scene

SIZE, FITTED = Size(150, 240), Size(50, 80)


class Coarse(LayerMapping):
    """An exact mapping known only at a small size, as a fit's is."""

    def __init__(self, exact, size=FITTED):
        self.exact, self.layers, self.frame_count = exact, exact.layers, exact.frame_count
        self.frame_size = size

    def frame(self, t, size=None):
        small = self.exact.frame(t, self.frame_size)
        return small if size in (None, self.frame_size) else resample(small, size)


@lru_cache(maxsize=1)
def scene():
    return make_scene(SceneOptions(size=SIZE, frame_count=2, pan_deg=6, twigs=True, seed=4))


def textures(known=1.0):
    out = []
    for layer in scene().layers:
        rgb = np.ascontiguousarray(layer.texture[..., :3]).astype(np.float32).clip(0, 1)
        ones = np.ones(rgb.shape[:2], np.float32)
        out.append(Texture(rgb, ones, ones * known))
    return out


def edge_psnr(made, t, new):
    """dB within 2 px of mixed pixels, against the scene under the sky `new`, (H, W, 3)."""
    exact = scene().mapping().frame(t)
    share = exact.visible()[-1]
    old = cv2.remap(textures()[-1].rgb, exact.uv[-1], None, cv2.INTER_LINEAR)
    truth = scene().frames(t) / 255 + share[..., None] * (new - old)
    mixed = ((share > 0.02) & (share < 0.98)).astype(np.uint8)
    band = cv2.dilate(mixed, np.ones((5, 5), np.uint8)) > 0
    return psnr_db(made[band], np.rint(truth.clip(0, 1) * 255)[band])


def night_recipe(tmp_path):
    canvas = scene().mapping().layers[-1].canvas
    picture = np.tile(np.uint8([20, 24, 60]), (canvas.height, canvas.width, 1))
    cv2.imwrite(str(tmp_path / "night.png"), picture[..., ::-1])
    edit = LayerPaint(layer="sky", path=str(tmp_path / "night.png"))
    return Recipe(edits=(edit,)), np.float32([20, 24, 60]) / 255


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_twigs_under_another_sky_are_as_fine_as_the_source(tmp_path, kind):
    recipe, new = night_recipe(tmp_path)
    scores = {}
    for name, known in (("known", textures()), ("unknown", [t for t in textures()])):
        if name == "unknown":
            known = [Texture(t.rgb, t.coverage) for t in known]
        renderer = Renderer(Coarse(scene().mapping()), recipe, RenderContext(textures=known))
        rgb = scene().frames(1)
        made = renderer.frame(1, rgb if kind == np.uint8 else rgb.astype(np.uint16) * 257)
        assert made.dtype == kind
        scores[name] = edge_psnr(made if kind == np.uint8 else made / 257.0, 1, new)
    assert scores["known"] > scores["unknown"] + 4


def test_known_old_sky_beats_alpha_compositing_under_a_blurred_matte():
    """What benchmarks/edges.py measures, small: a matte blurred by 2 px."""
    rgb, exact = scene().frames(0), scene().mapping().frame(0)
    share = cv2.GaussianBlur(exact.visible()[-1], (0, 0), 2)
    found = type(exact)(exact.uv, np.stack([1 - share, np.ones_like(share)]), exact.confidence)
    # as a fit of two thirds of the size would have it: that makes edges the frame's own matter
    fitted = Coarse(scene().mapping(), Size(100, 160))
    mended = sharpen_edges(rgb, found, fitted, textures(), None).visible()[-1]
    old = cv2.remap(textures()[-1].rgb, exact.uv[-1], None, cv2.INTER_LINEAR)
    for color in ((0.05, 0.06, 0.16), (0.95, 0.5, 0.25)):
        new = np.tile(np.float32(color), (*share.shape, 1))
        paint = PicturePaint(
            Picture(new, None), SIZE, border=cv2.BORDER_REPLICATE, takes_shading=False
        )
        y, x = np.mgrid[: SIZE.height, : SIZE.width].astype(np.float32)
        ours = composite_frame(rgb, [LayerEdit(mended, np.dstack([x, y]), [paint], old)])
        plain = np.rint(255 * (rgb / 255 * (1 - share[..., None]) + new * share[..., None]))
        assert edge_psnr(ours, 0, new) > edge_psnr(plain, 0, new) + 3


def test_nothing_changes_at_the_fit_s_own_size_or_without_a_known_sky():
    fit = Coarse(scene().mapping())
    rgb, found = scene().frames(0), fit.frame(0, SIZE)
    assert sharpen_edges(rgb, found, scene().mapping(), textures(), None) is found
    plain = [Texture(t.rgb, t.coverage) for t in textures()]
    assert sharpen_edges(rgb, found, fit, plain, None) is found
    assert sharpen_edges(rgb, found, fit, None, None) is found
    never_bare = sharpen_edges(rgb, found, fit, textures(known=0.0), None)
    assert np.allclose(never_bare.alpha, found.alpha, atol=1e-6)

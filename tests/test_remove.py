"""Removed layers: the true scene without them, gaps filled and reported, no rim left."""

import cv2
import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from edits.apply import Renderer, render
from edits.context import RenderContext
from edits.kinds import LayerPaint, RemoveLayer
from edits.recipe import Recipe, read_recipe, write_recipe
from edits.remove import continued, widened
from tests.edited_scene import blob, colorful, object_scene, psnr_db
from tests.synthetic import Scene


def without_object(scene):
    """True frames of the background alone."""
    s = scene.scene
    bare = Scene(s.camera, s.layers[1:], s.frame_count, supersample=s.supersample)
    return bare, [bare.frames(t) for t in range(s.frame_count)]


def remove(**keys):
    return Recipe(edits=(RemoveLayer(layer="foreground", **keys),))


@pytest.mark.parametrize("grow", [0.0, 0.02])
def test_the_background_appears_under_its_light(grow):
    scene = object_scene()
    _, truth = without_object(scene)
    made = scene.render(remove(grow=grow))
    # One sample of the texture a pixel, where the truth takes the mean of four: 51 dB measured
    # over the frame; with the object still there it is 23 dB.
    assert min(psnr_db(a, b) for a, b in zip(made, truth, strict=True)) > 46
    far = cv2.dilate((scene.scene.mapping().frame(4).alpha[0] > 0).astype(np.uint8),
                     np.ones((25, 25), np.uint8)) == 0  # fmt: skip
    assert (made[4][far] == scene.frames[4][far]).all()


def test_edits_of_what_lies_below_appear_too(tmp_path):
    scene = object_scene()
    canvas = scene.scene.layers[1].canvas
    paint = colorful(canvas, blob(canvas, (0.5, 0.55), 0.3, 0.2))
    write_rgb(tmp_path / "bg.png", np.rint(255 * paint).astype(np.uint8))
    edits = (LayerPaint(layer="background", path=str(tmp_path / "bg.png")), *remove().edits)
    made = scene.render(Recipe(edits=edits))
    bare, _ = without_object(scene)
    truth = [bare.edited(t, {"background": paint}) for t in range(9)]
    assert min(psnr_db(a, b) for a, b in zip(made, truth, strict=True)) > 36


def test_unseen_texels_are_filled_from_around_and_reported():
    scene = object_scene()
    canvas = scene.scene.layers[1].canvas
    # A gap that the disc covers in frame 4: round its centre on the background's canvas.
    share = scene.scene.mapping().frame(4)
    y, x = np.nonzero(share.alpha[0] == 1)
    u, v = share.uv[1][round(y.mean()), round(x.mean())]
    gap = blob(canvas, (u / canvas.width, v / canvas.height), 0.06, 0.001) > 0.5
    context = scene.context(unseen={"background": gap})
    renderer = Renderer(scene.scene.mapping(), remove(), context)
    assert renderer.removal is not None
    visible = scene.scene.mapping()
    hidden = total = 0.0
    for t in range(9):
        found = visible.frame(t)
        inside = cv2.remap(gap.astype(np.float32), found.uv[1], None, cv2.INTER_LINEAR) > 0.5
        hidden += float(found.alpha[0][inside].sum())
        total += float(found.alpha[0].sum())
    # The report widens the matte by a pixel, as the removal does, and looks at pixel centres.
    assert renderer.removal.filled_share == pytest.approx(hidden / total, rel=0.25)
    assert f"{100 * renderer.removal.filled_share:.1f} % of the pixels" in (
        renderer.removal.describe()
    )
    made = renderer.frame(4, scene.frames[4])
    inside = cv2.remap(gap.astype(np.float32), share.uv[1], None, cv2.INTER_LINEAR) > 0.5
    filled = made[inside].astype(int)
    assert inside.sum() > 100
    assert (filled[:, 1] + 20 > filled[:, 0] - 60).all()
    assert filled[:, 1].mean() > 40  # the unseen texels are magenta, without any green
    full = scene.render(remove())[4]
    outside = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert np.abs(made[outside].astype(int) - full[outside]).max() <= 2


def test_widened_mattes_have_no_holes_and_a_soft_edge():
    alpha = np.zeros((40, 60), np.float32)
    alpha[15:25, 20:40] = 1
    wide = widened(alpha, 4.0)
    assert (wide >= alpha).all()
    assert wide[20, 17] > 0.9  # 3 px outside
    assert wide[20, 10] < 0.01  # 10 px outside
    assert (widened(alpha, 0.3) == alpha).all()


def test_what_cannot_be_removed_is_said():
    scene = object_scene()
    with pytest.raises(InputError, match=r"'background' is the bottom one"):
        scene.render(Recipe(edits=(RemoveLayer(layer="background"),)))
    with pytest.raises(InputError, match=r"there is no layer called 'swan'"):
        scene.render(Recipe(edits=(RemoveLayer(layer="swan"),)))
    with pytest.raises(InputError, match=r"needs a run of train.py"):
        list(render(scene.scene.mapping(), scene.frames, remove(), RenderContext()))
    with pytest.raises(InputError, match=r"grow is 0.5"):
        RemoveLayer(layer="foreground", grow=0.5)


def test_recipe_round_trip(tmp_path):
    write_recipe(tmp_path / "r.yaml", remove(grow=0.01))
    assert read_recipe(tmp_path / "r.yaml") == remove(grow=0.01)
    assert "sha256" not in (tmp_path / "r.yaml").read_text()


def test_size_of_the_survey_does_not_grow_the_gap():
    # widened() works on a share of the width, so a survey of small frames sees the same margin
    small = widened(np.pad(np.ones((4, 4), np.float32), 20), 0.1 * 44)
    assert Size(*small.shape) == Size(44, 44)
    assert 12 <= (small[22] > 0.5).sum() <= 14


def test_a_matte_between_is_continued_under_what_is_removed():
    # A horizon: opaque below row 30. A square in the sky, which the matte takes for ground, goes.
    alpha = np.zeros((60, 80), np.float32)
    alpha[30:] = 1
    alpha[5:15, 30:45] = 1
    known = np.ones_like(alpha)
    known[3:17, 28:47] = 0
    made = continued(alpha, known)
    assert made[3:17, 28:47].max() < 0.12
    assert (made[known == 1] == alpha[known == 1]).all()

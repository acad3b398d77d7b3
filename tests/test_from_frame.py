"""Painted frames: carried to every other frame of exact scenes, against the true edited video."""

import cv2
import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.errors import InputError
from edits.from_frame import difference_paint, lay_over
from edits.kinds import FramePaint
from edits.recipe import Recipe, read_recipe, write_recipe
from tests.edited_scene import blob, colorful, object_scene

N = 4


def painted(kind="rigid", **where):
    """The scene and its true edited frames; where: opacity on each layer's canvas."""
    scene = object_scene(kind)
    edits = {}
    for layer in scene.scene.layers:
        if layer.name in where:
            edits[layer.name] = colorful(layer.canvas, where[layer.name](layer.canvas))
    return scene, [scene.scene.edited(t, edits) for t in range(scene.scene.frame_count)]


def recipe_of(tmp_path, truth, *frames, **keys):
    for n in frames:
        write_rgb(tmp_path / f"{n}.png", truth[n])
    paints = (FramePaint(frame=n, path=str(tmp_path / f"{n}.png"), **keys) for n in frames)
    return Recipe(edits=tuple(paints))


def everywhere(canvas):
    return np.full((canvas.height, canvas.width), 0.9, np.float32)


def in_the_middle(canvas):
    return blob(canvas, (0.5, 0.5), 0.3, 0.2)


def upper_left(canvas):
    return blob(canvas, (0.42, 0.3), 0.2, 0.15)


@pytest.mark.parametrize("kind", ["rigid", "deforming"])
@pytest.mark.parametrize("opacity", [everywhere, in_the_middle])
def test_an_edited_copy_of_one_frame_gives_the_true_edited_video(tmp_path, kind, opacity):
    scene, truth = painted(kind, foreground=opacity)
    made = scene.render(recipe_of(tmp_path, truth, N))
    # 57 and 45 dB measured; asked for are 38 and 32, and the margin shows that edges are unmixed:
    # with the mixed pixels' paint given to both layers the edge band falls to 34 dB.
    assert min(scene.psnr(made, truth)) > 50
    assert min(scene.edge_psnr(made, truth)) > 42


def test_what_the_frame_does_not_show_is_left_alone_until_another_frame_shows_it(tmp_path):
    scene, truth = painted(foreground=in_the_middle, background=upper_left)
    one = scene.render(recipe_of(tmp_path, truth, N))
    several = scene.render(recipe_of(tmp_path, truth, N, 0, 8))
    assert min(scene.psnr(several, truth)) > 44
    assert min(scene.edge_psnr(several, truth)) > 38
    hidden = np.abs(truth[8].astype(int) - one[8]).max(-1) > 12
    assert hidden.sum() > 200  # the disc hid this part of the background in frame 4
    inner = cv2.erode(hidden.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert inner.any()
    assert (one[8][inner] == scene.frames[8][inner]).all()


def test_jpeg_noise_is_no_paint(tmp_path):
    scene, truth = painted(foreground=in_the_middle)
    coded = truth[N]
    ok, data = cv2.imencode(".jpg", coded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
    assert ok
    (tmp_path / "4.jpg").write_bytes(data.tobytes())
    recipe = Recipe(edits=(FramePaint(frame=N, path=str(tmp_path / "4.jpg")),))
    made = scene.render(recipe)
    changed = np.mean([(a != b).any(-1).mean() for a, b in zip(made, scene.frames, strict=True)])
    true = np.mean([(a != b).any(-1).mean() for a, b in zip(truth, scene.frames, strict=True)])
    assert changed < 1.6 * true  # the paint and a rim round it; without a threshold all pixels
    assert min(scene.psnr(made, truth)) > 34  # the copy itself has 36 dB within the paint


def test_an_overlay_covers_every_layer_or_the_one_named(tmp_path):
    scene = object_scene()
    size = scene.scene.size
    alpha = blob(size, (0.35, 0.5), 0.3, 0.3)
    overlay = np.rint(255 * colorful(size, alpha)).astype(np.uint8)
    write_rgb(tmp_path / "over.png", overlay)
    everything = FramePaint(frame=N, path=str(tmp_path / "over.png"))
    made = scene.render(Recipe(edits=(everything,)))
    a = overlay[..., 3:] / 255
    wanted = scene.frames[N] * (1 - a) + overlay[..., :3] * a
    # In the painted frame itself the overlay lies as it was painted, soft edges of the disc too.
    assert np.abs(made[N] - wanted).max() <= 3.5
    only = FramePaint(frame=N, path=str(tmp_path / "over.png"), layer="foreground")
    one = scene.render(Recipe(edits=(only,)))
    share = scene.scene.mapping().frame(N).visible()[0]
    assert (one[N][share == 0] == scene.frames[N][share == 0]).all()
    assert np.abs(one[N][share == 1] - wanted[share == 1]).max() <= 3.5


def test_a_copy_at_another_size_is_compared_at_that_size(tmp_path):
    scene, truth = painted(foreground=in_the_middle)
    small = cv2.resize(truth[N], (75, 47), interpolation=cv2.INTER_AREA)
    write_rgb(tmp_path / "small.png", small)
    made = scene.render(Recipe(edits=(FramePaint(frame=N, path=str(tmp_path / "small.png")),)))
    assert min(scene.psnr(made, truth)) > 38  # half the resolution; 27 dB without the edit


def test_difference_paint_is_exact_and_least_opaque():
    before = np.full((1, 4, 3), 0.5, np.float32)
    after = before.copy()
    after[0, 1] = [1.0, 0.5, 0.5]  # needs full opacity: only red 1 over 0.5 gives 1
    after[0, 2] += 4 / 255
    after[0, 3] += 0.2 / 255  # less than half a level: nothing
    paint = difference_paint(before, after, threshold=1.0)
    alpha = paint[..., 3]
    assert alpha[0, 0] == 0
    assert alpha[0, 3] == 0
    assert alpha[0, 1] == 1
    # 4 levels: (4 - 0.5) / (24 - 0.5) of the way to opaque
    assert alpha[0, 2] == pytest.approx(3.5 / 23.5, abs=1e-5)
    made = before * (1 - alpha[..., None]) + paint[..., :3]
    assert np.abs(made - after)[0, :3].max() < 1e-6


def test_the_same_wash_in_two_frames_stays_one_wash():
    wash = np.tile(np.float32([0.1, 0.2, 0.05, 0.5]), (2, 3, 1))
    other = np.tile(np.float32([0.5, 0.0, 0.0, 0.5]), (2, 3, 1))
    nothing = np.zeros_like(wash)
    assert lay_over(wash, wash) == pytest.approx(wash)
    assert lay_over(wash, other) == pytest.approx(other)  # the later frame lies on top
    assert lay_over(wash, nothing) == pytest.approx(wash)
    assert lay_over(nothing, wash) == pytest.approx(wash)


def test_mistakes_are_said(tmp_path):
    scene = object_scene()
    write_rgb(tmp_path / "same.png", scene.frames[N])
    write_rgb(tmp_path / "tall.png", np.zeros((90, 20, 3), np.uint8))
    write_rgb(tmp_path / "clear.png", np.zeros((94, 150, 4), np.uint8))
    cases = [
        ({"frame": N, "path": "same.png"}, "same.png: painted frame 4: does not differ from it"),
        ({"frame": N, "path": "clear.png"}, "covers nothing that it shows"),
        ({"frame": N, "path": "tall.png"}, "is 20x90, but frame 4 is 150x94"),
        ({"frame": 9, "path": "same.png"}, "there is no frame 9 to edit; wanted 0..8"),
        ({"frame": N, "path": "same.png", "layer": "swan"}, "has foreground, background"),
        ({"frame": N, "path": "gone.png"}, "gone.png: not found"),
    ]
    for keys, message in cases:
        paint = FramePaint(**{**keys, "path": str(tmp_path / keys["path"])})
        with pytest.raises(InputError, match=r".") as caught:
            scene.render(Recipe(edits=(paint,)))
        assert message in str(caught.value)


def test_recipe_round_trip(tmp_path):
    _, truth = painted(foreground=in_the_middle)
    recipe = recipe_of(tmp_path, truth, N, layer="foreground", threshold=3.0)
    write_recipe(tmp_path / "r.yaml", recipe)
    (edit,) = read_recipe(tmp_path / "r.yaml").edits
    assert isinstance(edit, FramePaint)
    assert (edit.frame, edit.layer, edit.threshold) == (N, "foreground", 3.0)
    assert edit.sha256 is not None
    text = (tmp_path / "r.yaml").read_text().replace("threshold", "treshold")
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=r"edit 1: unknown key 'treshold'"):
        read_recipe(tmp_path / "r.yaml")

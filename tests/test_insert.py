"""Text, pictures and videos at four points: against the true edited video, and in one frame."""

import cv2
import numpy as np
import pytest
import yaml

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.video_writer import VideoWriter
from edits.kinds import Insert
from edits.lettering import render_text
from edits.recipe import Recipe, read_recipe, write_recipe
from tests.edited_scene import blob, colorful, object_scene

N = 3
CORNERS = ((52.0, 20.0), (118.0, 30.0), (108.0, 74.0), (40.0, 60.0))
"""On the background, in part behind the disc; a quadrilateral that is no parallelogram."""


def picture():
    size = Size(80, 120)
    rgba = colorful(size, np.maximum(blob(size, (0.5, 0.5), 0.45, 0.2), 0.4))
    return np.rint(255 * rgba).astype(np.uint8)


def true_frames(scene, rgba, layer, corners=CORNERS):
    """Frames of the scene with the picture on its canvas, in perspective."""
    there = scene.scene.layers[scene.scene.layer_index(layer)]
    size = Size(*rgba.shape[:2])
    edges = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size.wh - 0.5
    uv = there.motion.to_canvas(N, np.array(corners)[None])[0]
    matrix = cv2.getPerspectiveTransform(edges.astype(np.float32), uv.astype(np.float32))
    straight = rgba.astype(np.float32) / 255
    premultiplied = np.dstack([straight[..., :3] * straight[..., 3:], straight[..., 3]])
    canvas = cv2.warpPerspective(premultiplied, matrix, there.canvas.wh, flags=cv2.INTER_LINEAR)
    color = canvas[..., :3] / np.maximum(canvas[..., 3:], 1e-6)
    edit = np.dstack([color, canvas[..., 3]]).astype(np.float32)
    return [scene.scene.edited(t, {layer: edit}) for t in range(scene.scene.frame_count)]


def insert(**keys):
    return Insert(**{"layer": "background", "frame": N, "corners": CORNERS, **keys})


def test_a_pinned_picture_gives_the_true_edited_video(tmp_path):
    scene = object_scene()
    rgba = picture()
    write_rgb(tmp_path / "p.png", rgba)
    made = scene.render(Recipe(edits=(insert(path=str(tmp_path / "p.png")),)))
    truth = true_frames(scene, rgba, "background")
    # 52 and 46 dB measured; the truth is sampled twice (picture to canvas to frame), ours once.
    assert min(scene.psnr(made, truth)) > 46
    assert min(scene.edge_psnr(made, truth)) > 40
    assert max(scene.psnr(scene.frames, truth)) < 26  # what it is without the edit


def test_a_deforming_layer_takes_the_picture_along(tmp_path):
    scene = object_scene("deforming")
    share = scene.scene.mapping().frame(N).visible()[0]
    y, x = np.nonzero(share == 1)
    cx, cy = float(x.mean()), float(y.mean())
    corners = tuple((cx + dx, cy + dy) for dx, dy in ((-9, -7), (8, -8), (10, 7), (-8, 8)))
    rgba = np.full((60, 80, 4), 255, np.uint8)
    rgba[..., :3] = (250, 40, 200)
    write_rgb(tmp_path / "p.png", rgba)
    edit = insert(layer="foreground", corners=corners, path=str(tmp_path / "p.png"))
    made = scene.render(Recipe(edits=(edit,)))
    inside = np.zeros(share.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.rint(corners).astype(np.int32), 1)
    inner = cv2.erode(inside, np.ones((5, 5), np.uint8)) > 0
    gain = scene.scene.layers[0].gain[N]
    assert np.abs(made[N][inner] - gain * np.array([250, 40, 200])).max() <= 2
    outer = (cv2.dilate(inside, np.ones((5, 5), np.uint8)) == 0) | (share == 0)
    assert (made[N][outer] == scene.frames[N][outer]).all()
    # The centre of the picture stays on the texel where it was pinned, to a third of a pixel.
    uv = scene.scene.layers[0].motion.to_canvas(N, np.array([[[cx, cy]]]))
    for t in (0, 8):
        at = scene.scene.layers[0].motion.to_frame(t, uv)[0, 0]
        pink = np.abs(made[t].astype(int) - scene.frames[t]).max(-1) > 20
        rows, columns = np.nonzero(pink)
        assert np.hypot(columns.mean() - at[0], rows.mean() - at[1]) < 1.5


def test_text_fits_its_points_and_is_legible_by_shape():
    wide, tall = render_text("HOTEL", 4.0, "#ff8000"), render_text("HOTEL", 1.0, "#ff8000")
    for found, aspect in ((wide, 4.0), (tall, 1.0)):
        alpha = found.alpha
        assert alpha is not None
        assert found.size.width / found.size.height == pytest.approx(aspect, rel=0.01)
        assert (found.rgb[0, 0] == np.float32([1, 128 / 255, 0])).all()
        columns, rows = np.flatnonzero(alpha.max(0)), np.flatnonzero(alpha.max(1))
        filled = max(np.ptp(columns) / found.size.width, np.ptp(rows) / found.size.height)
        assert 0.6 < filled <= 1  # as large as it fits, and not cut off
        assert columns[0] > 0
        assert rows[0] > 0
        margin = columns[0] - (found.size.width - 1 - columns[-1])
        assert abs(margin) < 0.03 * found.size.width  # centred
    lines = render_text("I\nI", 1.0, "#ffffff").alpha
    assert lines is not None
    gap = lines.max(1) == 0
    assert gap[gap.size // 2 - 100 : gap.size // 2 + 100].any()  # two lines, one above the other


def test_text_lies_on_its_layer_and_takes_its_light():
    scene = object_scene()
    made = scene.render(Recipe(edits=(insert(text="WWW", color="#ffffff"),)))
    share = scene.scene.mapping().frame(N).visible()
    changed = (made[N] != scene.frames[N]).any(-1)
    assert 300 < changed.sum() < 2500
    assert not changed[share[1] == 0].any()
    brightest = [frame.max() for frame in made]
    gains = scene.scene.layers[1].gain
    assert brightest[8] / brightest[0] == pytest.approx(gains[8] / gains[0], abs=0.03)


def test_a_pinned_video_plays(tmp_path):
    scene = object_scene()
    with VideoWriter(tmp_path / "v.mkv", Size(32, 48), fps=25, codec="ffv1") as writer:
        for t in range(12):
            writer.write(np.full((32, 48, 3), 20 * t, np.uint8))
    made = scene.render(Recipe(edits=(insert(path=str(tmp_path / "v.mkv")),)))
    at = {t: scene.scene.layers[1].motion.to_frame(
        t, scene.scene.layers[1].motion.to_canvas(N, np.array([[[60.0, 32.0]]])))[0, 0]
        for t in range(4)}  # fmt: skip
    for t, (x, y) in at.items():
        gain = scene.scene.layers[1].gain[t]
        if scene.scene.mapping().frame(t).visible()[1][round(y), round(x)] == 1:
            assert made[t][round(y), round(x), 0] == pytest.approx(20 * t * gain, abs=1.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "wanted either 'path' or 'text'"),
        ({"text": "a", "path": "b.png"}, "wanted either 'path' or 'text'"),
        ({"text": " "}, "something to read"),
        ({"text": "a", "color": "red"}, "color is 'red', wanted #rrggbb"),
        ({"text": "a", "opacity": 1.5}, "opacity is 1.5"),
        ({"text": "a", "blend": "burn"}, "blend is 'burn'"),
        ({"text": "a", "frame": -1}, "frame is -1"),
        ({"text": "a", "corners": ((0, 0), (9, 0), (0, 9), (9, 9))}, "do not go round"),
        ({"text": "a", "corners": ((0, 0), (9, 0), (2, 2), (0, 9))}, "without a dent"),
    ],
)
def test_wrong_inserts_are_refused(changes, message):
    with pytest.raises(InputError) as caught:
        insert(**changes)
    assert message in str(caught.value)


def test_pins_must_lie_in_the_frame():
    scene = object_scene()
    far = tuple((x + 500, y) for x, y in CORNERS)
    with pytest.raises(InputError, match=r"background@3 enclose 0 pixels"):
        scene.render(Recipe(edits=(insert(text="a", corners=far),)))
    with pytest.raises(InputError, match=r"no frame 9 to edit; wanted 0..8"):
        scene.render(Recipe(edits=(insert(text="a", frame=9),)))


def test_recipe_round_trip_and_wrong_corners(tmp_path):
    write_recipe(tmp_path / "r.yaml", Recipe(edits=(insert(text="HOTEL\n1900"),)))
    (edit,) = read_recipe(tmp_path / "r.yaml").edits
    assert isinstance(edit, Insert)
    assert edit.text == "HOTEL\n1900"
    assert edit.corners == CORNERS
    data = yaml.safe_load((tmp_path / "r.yaml").read_text())
    for wrong in ([["wide", 20.0], *CORNERS[1:]], CORNERS[:3], 5, [[1, 2, 3]] * 4, [[True, 1]] * 4):
        data["edits"][0]["corners"] = wrong
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
        with pytest.raises(InputError, match=r"edit 1: corners is .* wanted four \[x, y\]"):
            read_recipe(tmp_path / "r.yaml")

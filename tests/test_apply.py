"""Recipe and mapping to frames: against exact truth, at other resolutions, outside the range."""

import logging

import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.mapping import FrameMapping
from atlas.texture import Texture
from edits.apply import RenderContext, render, render_pairs
from edits.recipe import LayerPaint, Recipe, SkyEdit
from tests.exact_mapping import AffineMapping

CANVAS = Size(height=40, width=60)


def frames_of(mapping, sky, fg=(30, 40, 20), size=None):
    """Frames that show a canvas-sized sky picture through the mapping; whole texel steps only."""
    out = []
    for t in range(mapping.frame_count):
        m = mapping.frame(t, size)
        uv = np.rint(m.uv[1]).astype(int)
        behind = sky[uv[..., 1].clip(0, 39), uv[..., 0].clip(0, 59)].astype(np.float64)
        alpha = m.alpha[0][..., None]
        out.append(np.rint(alpha * np.float64(fg) + (1 - alpha) * behind).astype(np.uint8))
    return out


def soft_alpha(height=24, width=30):
    """Foreground below, with a soft skyline that rises to the right."""
    y, x = np.mgrid[:height, :width]
    return np.clip((y - 14 + 0.2 * x) / 5, 0, 1).astype(np.float32)


@pytest.fixture
def mapping():
    return AffineMapping(soft_alpha(), CANVAS)


def smooth_picture(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :60]
    return np.stack([80 + 2 * x, 90 + 3 * y, 200 - x + rng.integers(0, 2)], -1).astype(np.uint8)


def recipe_of(tmp_path, rgba, **keys):
    write_rgb(tmp_path / "sky.png", rgba)
    return Recipe(edits=(SkyEdit(source=str(tmp_path / "sky.png"), **keys),))


def test_a_painted_sky_atlas_gives_the_true_edited_video(tmp_path, mapping):
    old, new = smooth_picture(0), smooth_picture(1)[::-1, ::-1]
    truth = frames_of(mapping, new)
    textures = [Texture(np.zeros((24, 30, 3), np.float32), np.ones((24, 30), np.float32))]
    textures.append(Texture(old.astype(np.float32) / 255, np.ones((40, 60), np.float32)))
    context = RenderContext(textures=textures)
    made = list(render(mapping, frames_of(mapping, old), recipe_of(tmp_path, new), context))
    assert len(made) == 3
    # One level: the source frames are rounded, and so is the result.
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(made, truth, strict=True)) <= 1


def test_without_textures_the_skyline_is_still_right(tmp_path, mapping):
    old, new = smooth_picture(0), smooth_picture(1)[::-1, ::-1]
    truth = frames_of(mapping, new)
    made = list(render(mapping, frames_of(mapping, old), recipe_of(tmp_path, new)))
    errors = np.concatenate([np.abs(a.astype(int) - b) for a, b in zip(made, truth, strict=True)])
    # The old sky is guessed from the open sky near by; its gradient over the 5 px edge is lost.
    assert errors.max() <= 12
    assert errors.mean() < 0.6


def test_an_empty_recipe_and_invisible_paint_are_bit_exact(tmp_path, mapping):
    frames = frames_of(mapping, smooth_picture(0))
    assert all(
        (a == b).all() for a, b in zip(render(mapping, frames, Recipe()), frames, strict=True)
    )
    invisible = np.zeros((40, 60, 4), np.uint8)
    invisible[..., 0] = 255
    made = list(render(mapping, frames, recipe_of(tmp_path, invisible)))
    assert all((a == b).all() for a, b in zip(made, frames, strict=True))


def test_frames_that_the_mapping_does_not_cover_pass_unchanged(tmp_path, mapping):
    covered = frames_of(mapping, smooth_picture(0))
    black = np.zeros_like(covered[0])
    frames = [black, black, *covered, covered[0], covered[1]]
    recipe = recipe_of(tmp_path, np.full((40, 60, 3), 255, np.uint8))
    made = list(render(mapping, frames, recipe, RenderContext(first_frame=2)))
    changed = [not (a == b).all() for a, b in zip(made, frames, strict=True)]
    assert changed == [False, False, True, True, True, False, False]
    assert mapping.observed == [0, 1, 2]  # in order, each before its frame


def test_edits_land_at_the_source_s_resolution(tmp_path, mapping):
    # The source is three times the size of the fit; a checker of single texels in the atlas must
    # come out as sharp 3x3 squares where the sky is open.
    size = Size(72, 90)
    checker = np.indices((40, 60)).sum(0) % 2 * 255
    recipe = recipe_of(tmp_path, np.repeat(checker[..., None], 3, 2).astype(np.uint8))
    frames = frames_of(mapping, smooth_picture(0), size=size)
    made = list(render(mapping, frames, recipe))
    assert made[1].shape == (72, 90, 3)
    for t, frame in enumerate(made):
        centres = frame[1:24:3, 1:30:3, 0]  # the pixel in the middle of each texel
        expected = checker[t : t + 8, 2 * t : 2 * t + 10]
        assert (centres == expected).all()


def test_a_flat_sky_leaves_room_for_a_pan_when_only_the_first_frame_is_known(tmp_path, mapping):
    # 30x24 frame with 0.3 widths of room to either side: 48 texels for 60 pixels of picture, 1.25
    # pixels a texel about the middles 14.5 and 29.5; column 0 shows 29.5 - 1.25 * 14.5 = 11.375.
    # Then the mapping moves on by (2, 1) texels a frame, and the sky with it.
    ramp = np.zeros((24, 60, 3), np.uint8)
    ramp[..., 0] = 4 * np.arange(60)
    recipe = recipe_of(tmp_path, ramp)
    made = list(render(mapping, frames_of(mapping, smooth_picture(0)), recipe))
    for t in range(3):
        expected = 4 * (11.375 + 1.25 * (2 * t + np.arange(10)))
        assert made[t][3, :10, 0] == pytest.approx(expected, abs=0.6)  # 0.5: rounding


def test_a_flat_sky_covers_what_the_atlas_has_seen(tmp_path, mapping):
    # Coverage columns 10 .. 49, rows 5 .. 24: 40x20 texels; a 20x10 picture doubles.
    coverage = np.zeros((40, 60), np.float32)
    coverage[5:25, 10:50] = 1
    textures = [Texture(np.zeros((24, 30, 3), np.float32), np.ones((24, 30), np.float32))]
    textures.append(Texture(smooth_picture(0).astype(np.float32) / 255, coverage))
    ramp = np.zeros((10, 20, 3), np.uint8)
    ramp[..., 0] = 10 * np.arange(20)
    recipe = recipe_of(tmp_path, ramp)
    frames = frames_of(mapping, smooth_picture(0))
    made = list(render(mapping, frames, recipe, RenderContext(textures=textures)))
    u = np.arange(12, 26)
    assert made[0][6, 12:26, 0] == pytest.approx(10 * ((u - 29.5) / 2 + 9.5), abs=0.6)


def test_layers_are_painted_by_name_and_stack(tmp_path, mapping):
    write_rgb(tmp_path / "fg.png", np.full((24, 30, 4), (255, 0, 0, 255), np.uint8))
    write_rgb(tmp_path / "half.png", np.full((24, 30, 4), (0, 0, 255, 128), np.uint8))
    edits = tuple(
        LayerPaint(layer="foreground", path=str(tmp_path / name)) for name in ("fg.png", "half.png")
    )
    frames = frames_of(mapping, smooth_picture(0))
    made = list(render(mapping, frames, Recipe(edits=edits)))
    assert made[0][-1, -1] == pytest.approx([127, 0, 128], abs=1)  # all foreground
    assert (made[0][0, :10] == frames[0][0, :10]).all()  # all sky


def test_unknown_layer_and_missing_file_are_said_before_any_frame(tmp_path, mapping):
    write_rgb(tmp_path / "p.png", np.zeros((24, 30, 4), np.uint8))

    def never():
        raise AssertionError("a frame was asked for")
        yield

    edit = LayerPaint(layer="swan", path=str(tmp_path / "p.png"))
    with pytest.raises(InputError, match="no layer called 'swan'; this clip has foreground, sky"):
        render(mapping, never(), Recipe(edits=(edit,)))
    with pytest.raises(InputError, match=r"gone\.png: not found"):
        render(mapping, never(), Recipe(edits=(SkyEdit(source=str(tmp_path / "gone.png")),)))


def test_pairs_carry_the_original(tmp_path, mapping):
    frames = frames_of(mapping, smooth_picture(0))
    recipe = recipe_of(tmp_path, np.full((40, 60, 3), 255, np.uint8))
    for (before, after), frame in zip(render_pairs(mapping, frames, recipe), frames, strict=True):
        assert before is frame
        assert (after[0, 0] == 255).all()


def test_time_runs_from_the_first_covered_frame():
    context = RenderContext(first_frame=2, times_s=(1.0, 1.04, 1.08, 1.2, 1.5), fps=10.0)
    assert [context.time_s(i) for i in (2, 3, 4)] == pytest.approx([0, 0.12, 0.42])
    assert context.time_s(7) == pytest.approx(0.5)


def test_uncertain_motion_is_reported_once(tmp_path, mapping, caplog):
    class Lost(AffineMapping):
        def frame(self, t, size=None):
            m = super().frame(t, size)
            return FrameMapping(m.uv, m.alpha, np.float32([1, 1 if t == 0 else 0]))

    lost = Lost(soft_alpha(), CANVAS)
    recipe = recipe_of(tmp_path, np.full((40, 60, 3), 255, np.uint8))
    with caplog.at_level(logging.WARNING):
        list(render(lost, frames_of(mapping, smooth_picture(0)), recipe))
    assert [r.getMessage() for r in caplog.records] == [
        "the motion of the edited layers is uncertain in 2 of 3 frames; look at those"
    ]


def test_shading_reaches_paint_but_not_a_new_sky(tmp_path, mapping):
    gain = np.full((2, 24, 30, 3), 0.5, np.float32)
    context = RenderContext(shading=lambda t: gain)
    write_rgb(tmp_path / "p.png", np.full((24, 30, 3), 200, np.uint8))
    frames = frames_of(mapping, smooth_picture(0))
    paint = LayerPaint(layer="foreground", path=str(tmp_path / "p.png"))
    made = next(iter(render(mapping, frames, Recipe(edits=(paint,)), context)))
    assert made[-1, -1] == pytest.approx([100] * 3, abs=1)
    sky = recipe_of(tmp_path, np.full((40, 60, 3), 200, np.uint8))
    made = next(iter(render(mapping, frames, sky, context)))
    assert made[0, 0] == pytest.approx([200] * 3, abs=1)

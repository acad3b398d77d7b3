"""Frames of an edit worked on several at a time come out as one after the other, bit for bit."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from atlas.clip import write_rgb
from atlas.coords import Size, folded
from atlas.layered import LayeredMapping, LayerMotion
from atlas.texture import Texture, sample
from atlas.video_writer import VideoWriter
from edits import deliver
from edits.composite import LayerEdit, composite_frame
from edits.context import RenderContext, atlas_color
from edits.deliver import Job, workers_for
from edits.kinds import SkyEdit
from edits.look import Look
from edits.paint import PicturePaint
from edits.picture import Picture
from edits.recipe import Recipe

FITTED, SIZE, COUNT = Size(30, 48), Size(90, 144), 9


def soft_alpha(t):
    """(L, H, W): a hill before a sky, with soft edges that lie elsewhere in every frame."""
    y, x = np.mgrid[: FITTED.height, : FITTED.width]
    hill = np.clip((y - 12 - 4 * np.sin((x + 3 * t) / 5)) / 3 + 0.5, 0, 1)
    return np.stack([hill, np.ones_like(hill)]).astype(np.float32)


def mapping():
    motions = []
    for name in ("foreground", "sky"):
        matrices = np.tile(np.eye(3), (COUNT, 1, 1))
        matrices[:, 0, 2] = np.arange(COUNT)
        canvas = Size(FITTED.height, FITTED.width + COUNT)
        motions.append(LayerMotion(name, canvas, matrices, None, 8, np.ones(COUNT, np.float32)))
    return LayeredMapping(FITTED, motions, soft_alpha)


def frames(start=0, count=COUNT):
    noise = np.random.default_rng(3).integers(0, 90, (COUNT, SIZE.height, SIZE.width, 3))
    ramp = np.linspace(60, 160, COUNT)  # light that a look follows with a delay
    return [(noise[t] + ramp[t]).astype(np.uint8) for t in range(start, start + count)]


def make_job(read=frames):
    shape = (FITTED.height, FITTED.width + COUNT)
    grey = Texture(np.full((*shape, 3), 0.5, np.float32), *(np.ones(shape, np.float32),) * 2)
    context = RenderContext(
        textures=[grey, grey],
        shading=lambda t: np.full((2, 30, 48, 3), 1 + 0.01 * t, np.float32),
    )
    info = SimpleNamespace(size=SIZE, frame_count=COUNT)
    footage = SimpleNamespace(source=SimpleNamespace(info=info, frames=read), first_frame=0)
    return Job(cast(Any, footage), mapping(), context)


def edited(job, recipe, workers, monkeypatch):
    monkeypatch.setattr(deliver, "workers_for", lambda size: workers)
    return list(deliver.rendered_pairs(job, job.open(recipe), (0, COUNT - 1)))


@pytest.fixture
def recipe(tmp_path):
    rows = np.linspace(0, 255, 64).astype(np.uint8)
    write_rgb(tmp_path / "sky.png", np.dstack([rows[:, None].repeat(80, 1)] * 3))
    look = Look(recolor=0.6, relight=0.6, haze=0.4, smooth_s=2.0)
    return Recipe(edits=(SkyEdit(source=str(tmp_path / "sky.png")),), look=look)


def test_several_at_a_time_give_the_frames_of_one_at_a_time(recipe, monkeypatch):
    one, many = (edited(make_job(), recipe, n, monkeypatch) for n in (1, 3))
    assert len(one) == len(many) == COUNT
    for (before, after), (also_before, also_after) in zip(one, many, strict=True):
        assert (before == also_before).all()
        assert (after == also_after).all()
    assert (one[0][0] != one[0][1]).any()


def test_threads_share_the_work_and_keep_few_frames(recipe, monkeypatch):
    job, seen, read = make_job(), set(), 0
    renderer = job.open(recipe)
    both = threading.Barrier(2, timeout=20)  # breaks unless two frames are begun at once
    begin = renderer.begin

    def begun(index, rgb):
        if index < 2:
            both.wait()
        seen.add(threading.get_ident())
        return begin(index, rgb)

    def reading():
        nonlocal read
        for rgb in frames():
            read += 1
            yield rgb

    monkeypatch.setattr(renderer, "begin", begun)
    for done, _ in enumerate(deliver._at_once(renderer, enumerate(reading()), 2)):
        assert read <= done + 3  # two under way, and one that waits for its turn
    assert len(seen) == 2
    assert read == COUNT


def test_a_frame_shown_by_another_thread_does_not_replace_ones_own():
    both, first = frames(count=2), mapping()
    first.observe(0, both[0])
    expected = first.frame(0, SIZE).alpha
    shared = mapping()
    shared.observe(0, both[0])
    other = threading.Thread(target=shared.observe, args=(1, both[1]))
    other.start()
    other.join()
    assert (shared.frame(0, SIZE).alpha == expected).all()
    bare = mapping().frame(0, SIZE).alpha
    assert (expected != bare).any()  # what is shown does count


def test_videos_are_read_in_order(tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "sky.mp4", Size(32, 48), fps=24) as writer:
        for rgb in frames(count=4):
            writer.write(cv2.resize(rgb, (48, 32)))
    sky = SkyEdit(source=str(tmp_path / "sky.mp4"))
    assert not make_job().open(Recipe(edits=(sky,))).in_any_order


def test_mappings_that_learn_are_shown_frames_in_order(recipe):
    job = make_job()
    learning = RenderContext(fresh_mapping=mapping)
    assert job.open(recipe).in_any_order
    assert not Job(job.footage, job.mapping, learning).open(recipe).in_any_order


@pytest.mark.parametrize(
    ("size", "most"), [(Size(480, 854), 4), (Size(2160, 3840), 3), (Size(9000, 9000), 1)]
)
def test_large_frames_are_worked_on_few_at_a_time(size, most, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert workers_for(size) == most


def test_the_atlas_s_colour_at_some_pixels_is_that_of_the_whole():
    rng = np.random.default_rng(0)
    rgb = rng.random((30, 57, 3)).astype(np.float32)
    textures = [Texture(rgb, np.ones((30, 57), np.float32))] * 2
    found, context = mapping().frame(3, SIZE), RenderContext(textures=textures)
    gain = rng.random((SIZE.height, SIZE.width, 3)).astype(np.float32)
    whole = atlas_color(context, found, 1, gain)
    assert whole is not None
    assert (whole == sample(rgb, found.uv[1]) * gain).all()
    some = rng.integers(0, 90, 700), rng.integers(0, 144, 700)  # not a multiple of the fold
    assert (atlas_color(context, found, 1, gain, some) == whole[some]).all()
    few = slice(None, None, 3), slice(None, None, 2)
    assert (atlas_color(context, found, 1, gain, few) == whole[few]).all()
    assert folded(found.uv[1][some]).shape == (3, 256, 2)


def test_a_prior_made_where_it_is_needed_gives_the_same_frame():
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (SIZE.height, SIZE.width, 3)).astype(np.uint8)
    prior = rng.random((SIZE.height, SIZE.width, 3)).astype(np.float32)
    found = mapping().frame(2, SIZE)
    colour = np.full((30, 57, 3), 0.3, np.float32)
    for opacity in (1.0, 0.6):  # replaced outright, and painted over
        alpha = np.full((30, 57), opacity, np.float32)
        paint = PicturePaint(Picture(colour, alpha), Size(30, 57), border=cv2.BORDER_REPLICATE)
        made = [
            composite_frame(rgb, [LayerEdit(found.visible()[1], found.uv[1], (paint,), known)])
            for known in (prior, prior.__getitem__)
        ]
        assert (made[0] == made[1]).all()
        assert (made[0] != rgb).any()

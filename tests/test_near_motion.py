"""Motion of near things beside the scene's: exact flow of two poles at two depths."""

from dataclasses import replace

import numpy as np
import pytest

from atlas.clip import Clip, LayerInfo, write_info, write_rgb
from atlas.config import load_config
from atlas.coords import Size
from atlas.fit import fit_layered
from atlas.fit_job import FitJob
from atlas.layered import LayerMotion
from atlas.near_motion import motion_beside
from atlas.run import open_run
from atlas.store import ClipStore
from tests.clip_frames import write_clip
from tests.test_flow import textured

SIZE = Size(height=136, width=240)
COUNT = 7
PAN = -2.0
POLES = ((60, 16, -5.0), (150, 20, -4.0))
"""Left edge in frame 0, width, and px per frame, of poles that pass a ground moving by `PAN`."""


@pytest.fixture
def store(tmp_path):
    clip = write_clip(tmp_path / "poles", [textured(SIZE, 1)] * COUNT)
    info = replace(
        clip.info,
        layers=[LayerInfo(name="near", mask_dir="poles_near"), LayerInfo(name="background")],
    )
    write_info(clip.folder, info)
    clip.sibling("near").mkdir()
    clip.sibling("flow").mkdir()
    for t in range(COUNT):
        mask, speed = poles(t)
        write_rgb(clip.sibling("near") / f"{t:05d}.png", np.where(mask > 0, 255, 0).astype("uint8"))
        for other in (t - 1, t + 1):
            if 0 <= other < COUNT:
                flow = np.zeros((SIZE.height, SIZE.width, 2), np.float32)
                flow[..., 0] = speed * (other - t)
                np.save(clip.flow_path(t, other), flow)
    return ClipStore(Clip(clip.folder))


def poles(t):
    """(H, W) number of the pole that a pixel shows, 0 = none, and its speed in px a frame."""
    number, speed = (
        np.zeros((SIZE.height, SIZE.width), int),
        np.full((SIZE.height, SIZE.width), PAN),
    )
    for i, (left, width, along) in enumerate(POLES, 1):
        first = int(left + along * t)
        number[:, max(first, 0) : first + width], speed[:, max(first, 0) : first + width] = i, along
    return number, speed


def test_each_pole_keeps_its_place_on_the_canvas(store):
    pan = np.tile(np.eye(3), (COUNT, 1, 1))
    pan[:, 0, 2] = 30 - PAN * np.arange(COUNT)
    scene = LayerMotion("background", Size(200, 400), pan, None, 4, np.ones(COUNT, np.float32))
    base, lattices = motion_beside(store, 0, scene)
    motion = replace(base, residual=np.stack(list(lattices)))
    assert motion.name == "near"
    for i, (left, width, along) in enumerate(POLES, 1):
        seen = []
        for t in range(COUNT):
            uv = motion.uv(t, SIZE)[poles(t)[0] == i].reshape(SIZE.height, -1, 2)
            if uv.shape[1] == width:
                seen.append(uv)
            assert uv.min() >= 0
            assert (uv.reshape(-1, 2) <= np.array(motion.canvas.wh) - 1).all()
        # the scene's motion alone would lose 3 and 2 px a frame
        assert np.abs(np.array(seen) - seen[0]).max() < 0.1, (i, left, along)


def test_without_anything_near_the_layer_moves_with_the_scene(store, tmp_path):
    for path in store.clip.sibling("near").iterdir():
        write_rgb(path, np.zeros((SIZE.height, SIZE.width), np.uint8))
    still = np.tile(np.eye(3), (COUNT, 1, 1))
    scene = LayerMotion("background", SIZE, still, None, 4, np.ones(COUNT, np.float32))
    base, lattices = motion_beside(ClipStore(store.clip), 0, scene)
    assert not np.stack(list(lattices)).any()
    assert base.canvas == SIZE


@pytest.mark.parametrize("wanted", [True, False])
def test_a_fit_takes_the_layer_or_leaves_it(store, tmp_path, wanted):
    (tmp_path / "run").mkdir()
    sets = ["quality=draft", f"layered.near_layer={wanted}".lower()]
    fit_layered(FitJob(store.clip, load_config(None, sets), tmp_path / "run"))
    run = open_run(tmp_path / "run")
    names = [layer.name for layer in run.mapping.layers]
    assert names == (["near", "background"] if wanted else ["background"])
    if wanted:
        alpha = run.mapping.frame(3).alpha[0]
        assert ((alpha > 0.5) == (poles(3)[0] > 0)).mean() > 0.98  # edges may move by a pixel

"""SkyAR's formulas against its own numbers, and its configuration files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from edits.look import Look
from edits.look_pass import LookFrame, LookPass
from edits.picture import Picture
from edits.recipe import SkyEdit
from edits.relight import MeanTransfer
from edits.sky import PictureSky
from edits.skyar import read_skyar
from edits.view import CanvasView, Region

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "skyar_reference"
CASES = ("case1_first", "case2_next", "case3_autolight_nohalo")
CONFIG = {
    "net_G": "coord_resnet50",
    "ckptdir": "./checkpoints_G_coord_resnet50",
    "input_mode": "video",
    "datadir": "clips/annarbor.mp4",
    "skybox": "floatingcastle.jpg",
    "in_size_w": 384,
    "in_size_h": 384,
    "out_size_w": 845,
    "out_size_h": 480,
    "skybox_center_crop": 0.4,
    "auto_light_matching": False,
    "relighting_factor": 0.8,
    "recoloring_factor": 0.7,
    "halo_effect": True,
    "output_dir": "out",
    "save_jpgs": False,
}


def rgb_of(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


class Case:
    """One reference case; values as (H, W, ...) float32."""

    def __init__(self, name: str):
        self.facts = json.loads((REFERENCE / f"{name}.json").read_text())
        self.config = self.facts["config"]
        self.size = Size(self.config["out_size_h"], self.config["out_size_w"])
        with np.load(REFERENCE / f"{name}.npz") as data:
            self.matte, self.relit, self.blend = (
                data[key].astype(np.float32) / 16384 - 1
                for key in ("refined_mask_q16", "relit_q16", "blend_q16")
            )
        full = rgb_of(REFERENCE / self.facts["cur_frame"])
        self.frame = cv2.resize(full.astype(np.float32) / 255, self.size.wh)
        self.sky = rgb_of(REFERENCE / f"{name}_skybg.png")
        self.final = rgb_of(REFERENCE / f"{name}_final.png")

    def look(self) -> Look:
        return Look(
            mode="skyar",
            recolor=self.config["recoloring_factor"],
            light_factor=self.config["relighting_factor"],
            auto_light=self.config["auto_light_matching"],
            halo=float(self.config["halo_effect"]),
        )


@pytest.fixture(params=CASES)
def case(request) -> Case:
    if not REFERENCE.is_dir():
        pytest.skip("SkyAR's reference cases are not in ../shared/reference")
    return Case(request.param)


@pytest.mark.shared
def test_relighting_and_blend_agree_with_skyar(case):
    light = None if case.config["auto_light_matching"] else case.config["relighting_factor"]
    sky = case.sky.astype(np.float32) / 255
    transfer = MeanTransfer(case.config["recoloring_factor"], light)
    relit = transfer.apply(case.frame, case.matte, sky)
    # The reference is stored in steps of 6e-5; 1e-4 leaves room for float32 sums.
    assert np.abs(relit - case.relit).max() < 1e-4
    blend = relit + case.matte[..., None] * (sky - relit)
    assert np.abs(blend - case.blend).max() < 1e-4


@pytest.mark.shared
def test_the_finished_frame_agrees_with_skyar(case):
    frame16 = np.rint(case.frame * 65535).astype(np.uint16)  # they keep the resized frame as float
    given = LookFrame(
        before=frame16,
        after=frame16,
        share=case.matte,
        uv=pixel_grid(case.size),
        sky=lambda uv: case.sky,
        time_s=0.0,
    )
    out = LookPass(case.look()).apply(given)
    levels = (out / 65535 * 255).astype(np.uint8)  # truncated, as theirs
    difference = np.abs(levels.astype(int) - case.final)
    assert difference.max() <= 1
    # Values that lie on a level's edge fall to either side; a missing halo would move them all.
    assert (difference > 0).mean() < 0.01


@pytest.mark.shared
def test_the_sky_lies_where_skyar_puts_it(case):
    sky = rgb_of(REFERENCE / "skybox_synth.jpg").astype(np.float32) / 255
    edit = SkyEdit(
        source="x", fit="frame", edges="wrap", scale=1 / case.config["skybox_center_crop"]
    )
    height, width = case.size.height, case.size.width
    first = Region(-0.5, -0.5, width - 0.5, height - 0.5)
    paint = PictureSky(edit, Picture(sky, None)).place(CanvasView(first, first))
    motion = np.array(case.facts["M_after"])
    uv = cv2.transform(pixel_grid(case.size), cv2.invertAffineTransform(motion))
    found = paint.sample(uv, 0.0)[..., :3]
    # They resize the sky to a whole picture first, in 8 bit, we sample once: half a level on
    # average; a sky one pixel off differs by 1.4 levels, one half a pixel off by 0.7.
    difference = np.abs(found * 255 - case.sky)
    assert difference.mean() < 0.35
    shifted = np.abs(np.roll(found, 1, axis=1)[:, 4:-4] * 255 - case.sky[:, 4:-4]).mean()
    assert shifted > 2 * difference.mean()


def test_mean_transfer_by_hand():
    frame = np.full((40, 60, 3), 0.4, np.float32)
    frame[:20] = 0.9  # hidden from the statistics by the matte, but not from the mean brightness
    share = np.zeros((40, 60), np.float32)
    share[:20] = 1
    sky = np.broadcast_to(np.float32([0.6, 0.4, 0.1]), frame.shape)
    # d = (0.2, 0, -0.3); half of it is added; its mean, -0.1 / 3 / 2, is taken out again.
    toned = MeanTransfer(0.5, 0.8).apply(frame, share, sky)
    mean = (0.2 - 0.3) / 3 * 0.5
    expected = 0.8 * (0.4 + 0.5 * np.array([0.2, 0, -0.3]) - mean)
    assert toned[30, 30] == pytest.approx(expected, abs=1e-5)
    free = MeanTransfer(0.5, None).apply(frame, share, sky)
    assert free[30, 30] == pytest.approx(0.4 + 0.5 * np.array([0.2, 0, -0.3]), abs=1e-5)


# --- configuration files


def write_config(folder: Path, **changes) -> Path:
    """A SkyAR folder: config/, skybox/ and a clip."""
    for name in ("config", "skybox", "clips"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "clips" / "annarbor.mp4").write_bytes(b"x")
    (folder / "skybox" / "floatingcastle.jpg").write_bytes(b"x")
    path = folder / "config" / "castle.json"
    config = {key: v for key, v in {**CONFIG, **changes}.items() if v is not None}
    path.write_text(json.dumps(config))
    return path


def test_every_key_is_mapped_or_named(tmp_path):
    job = read_skyar(write_config(tmp_path))
    assert job.source.resolve() == (tmp_path / "clips" / "annarbor.mp4").resolve()
    assert job.size == Size(height=480, width=845)
    (edit,) = job.recipe.edits
    assert isinstance(edit, SkyEdit)
    assert Path(edit.source).resolve() == (tmp_path / "skybox" / "floatingcastle.jpg").resolve()
    assert (edit.fit, edit.edges, edit.scale) == ("frame", "wrap", 2.5)
    expected = Look(mode="skyar", recolor=0.7, light_factor=0.8, auto_light=False, halo=1.0)
    assert job.recipe.look == expected
    assert job.out == Path("out/annarbor_skyar.mp4")
    for key in ("net_G", "ckptdir", "in_size_w", "in_size_h"):
        assert key in job.note
    assert "\n" not in job.note


def test_switches_reach_the_look_and_the_output(tmp_path):
    job = read_skyar(
        write_config(tmp_path, auto_light_matching=True, halo_effect=False, save_jpgs=True)
    )
    assert job.recipe.look is not None
    assert (job.recipe.look.auto_light, job.recipe.look.halo) == (True, 0.0)
    assert job.out == Path("out/annarbor_skyar")
    assert "save_jpgs" in job.note


def test_a_sequence_is_a_folder(tmp_path):
    assert read_skyar(write_config(tmp_path, input_mode="seq", datadir="clips")).source.is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"halo": True}, "unknown key 'halo'"),
        ({"skybox": None}, "'skybox' is missing"),
        ({"skybox": "gone.jpg"}, "skybox was not found; looked for"),
        ({"datadir": "gone.mp4"}, "datadir was not found"),
        ({"input_mode": "seq"}, "is not a folder"),
        ({"input_mode": "video", "datadir": "clips"}, "is a folder"),
        ({"input_mode": "stream"}, "input_mode is 'stream', wanted seq or video"),
        ({"halo_effect": 1}, "halo_effect is 1, wanted true or false"),
        ({"relighting_factor": True}, "relighting_factor is True, wanted a number"),
        ({"relighting_factor": 9}, "light_factor is 9.0, wanted 0 to 4"),
        ({"out_size_w": 4}, "out_size_w is 4, wanted 16 to 16384"),
        ({"skybox_center_crop": 0}, "skybox_center_crop is 0"),
    ],
)
def test_bad_configurations_are_one_line(tmp_path, changes, message):
    path = write_config(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_skyar(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json(tmp_path):
    path = tmp_path / "c.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        read_skyar(path)

"""edit.py and evaluate.py on models of the original layered-neural-atlases program."""

# ruff: noqa: F401, F811

import json

import cv2
import numpy as np
import pytest

import edit
import evaluate
from atlas.clip import read_rgb, write_rgb
from atlas.coords import Size
from atlas.errors import InputError
from atlas.lna_import import (
    open_lna_model,
)
from edits.lna_compose import (
    as_fitted,
    compose,
    scatter_frame,
)
from tests.lna_models import COUNT, SIZE, SOURCE, data, model, small_atlases
from thirdparty.lna import read_lna_model


def call(*arguments):
    edit.main([str(a) for a in arguments])


@pytest.fixture
def red(tmp_path):
    picture = np.zeros((1000, 1000, 4), np.uint8)
    picture[..., 0] = picture[..., 3] = 255
    write_rgb(tmp_path / "red.png", picture)
    return tmp_path / "red.png"


def test_edit_writes_what_the_original_program_would(tmp_path, model, data, red):
    out = tmp_path / "out"
    chosen = ("--data", data.parent, "--layer", f"background={red}", "--compose", "lna")
    call(model, *chosen, "--format", "png", "--out", out)
    mapping = open_lna_model(read_lna_model(model), data, with_textures=False, tolerance=0).mapping
    pictures = {1: np.full((1000, 1000, 4), (1, 0, 0, 1), np.float32)}
    for t in range(COUNT):
        video = as_fitted(read_rgb(data / f"{t:05d}.png"), SIZE)
        expected = compose(video, mapping.frame(t), pictures)
        assert (read_rgb(out / f"{t:05d}.png") == expected).all()


def test_exact_composition_is_the_default_and_keeps_the_source_s_size(
    tmp_path, model, data, small_atlases
):
    picture = np.zeros((120, 120, 4), np.uint8)
    picture[:, 60:] = (255, 0, 0, 255)
    write_rgb(tmp_path / "half.png", picture)
    out = tmp_path / "out"
    call(model, "--data", data, "--layer", f"background={tmp_path / 'half.png'}", "--out", out)
    found = open_lna_model(read_lna_model(model), data, with_textures=False).mapping.frame(
        0, SOURCE
    )
    after, before = read_rgb(out / "00000.png"), read_rgb(data / "00000.png")
    assert after.shape == (SOURCE.height, SOURCE.width, 3)
    left = found.uv[1, ..., 0] < 50  # far enough for the filter that keeps edges smooth
    assert 0 < left.sum() < left.size
    assert (after[left] == before[left]).all()
    assert (after != before).any()


def test_a_painted_frame_reaches_the_others(tmp_path, model, data):
    paint = np.zeros((SIZE.height, SIZE.width, 4), np.uint8)
    paint[8:14, 12:24] = (0, 255, 0, 255)
    write_rgb(tmp_path / "paint.png", paint)
    out = tmp_path / "out"
    given = f"1={tmp_path / 'paint.png'}"
    call(model, "--data", data, "--frame", given, "--compose", "lna", "--out", out)
    mapping = open_lna_model(read_lna_model(model), data, with_textures=False, tolerance=0).mapping
    pictures = scatter_frame(paint / np.float32(255), mapping.frame(1), [Size(1000, 1000)] * 2)
    for t in range(COUNT):
        video = as_fitted(read_rgb(data / f"{t:05d}.png"), SIZE)
        expected = compose(video, mapping.frame(t), pictures)
        assert (read_rgb(out / f"{t:05d}.png") == expected).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compose", "lna", "--frame", "one=paint.png"], "wanted N=PICTURE"),
        (["--compose", "lna", "--frame", "1=nowhere.png"], "nowhere.png: not found"),
        (["--compose", "lna", "--fast", "--layer", "background=RED"], "leave out --fast"),
        (["--compose", "lna", "--save-recipe", "a.yaml", "--layer", "background=RED"], "recipe"),
        (["--compose", "lna"], "nothing to change"),
        (["--compose", "mine", "--layer", "background=RED"], "invalid choice: 'mine'"),
        (["--source", "x.mp4", "--layer", "background=RED"], "--source is for run folders"),
    ],
)
def test_options_that_do_not_fit(tmp_path, model, data, red, options, message):
    options = [o.replace("RED", str(red)) for o in options]
    with pytest.raises(InputError, match=message):
        call(model, "--data", data, "--out", tmp_path / "out", *options)


def test_data_needs_a_model_and_compose_lna_a_fit(tmp_path, data, red):
    paint = ("--layer", f"background={red}", "--out", tmp_path / "out")
    with pytest.raises(InputError, match="holds no file called checkpoint"):
        call(data, "--data", data, *paint)
    with pytest.raises(InputError, match="--compose lna needs a run or model folder"):
        call(data, "--compose", "lna", *paint)


def test_frames_whose_order_is_unclear_are_refused(tmp_path, model, data, red):
    (data / "00002.png").rename(data / "10.png")
    (data / "00001.png").rename(data / "9.png")  # as text 10 comes before 9
    with pytest.raises(InputError, match="order of the frames is not clear"):
        call(model, "--data", data, "--layer", f"background={red}", "--out", tmp_path / "out")


def test_evaluate_measures_a_model_like_a_run(tmp_path, model, data, small_atlases):
    masks = data.parent / "pan_maskrcnn"
    masks.mkdir()
    for t in range(COUNT):
        mask = np.zeros((SOURCE.height, SOURCE.width), np.uint8)
        mask[:20] = 255
        write_rgb(masks / f"{t:05d}.png", mask)
    out = tmp_path / "report"
    evaluate.main([str(model), "--data", str(data), "--out", str(out)])
    report = json.loads((out / "report.json").read_text())
    mapping = open_lna_model(read_lna_model(model), data, with_textures=False).mapping
    psnrs = []
    for t in range(COUNT):
        frame = cv2.resize(read_rgb(data / f"{t:05d}.png"), SIZE.wh) / 255
        psnrs.append(-10 * np.log10(np.mean((mapping.reconstruct(t) - frame) ** 2)))
    # 0.02 dB: the report samples atlas pictures bilinearly, here the networks answer.
    assert report["atlas"]["psnr_db"] == pytest.approx(np.mean(psnrs), abs=0.02)
    assert report["run"]["kind"] == "lna import"

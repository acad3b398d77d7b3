"""train.py from its arguments to a run folder, and every way to be refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train
from atlas.config import load_config, save_config
from atlas.errors import InputError
from atlas.run import open_run
from tests.test_lna_fit import BASE, make_clip

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    *BASE,
    "networks.mapping.width=8",
    "networks.bottom_mapping.width=8",
    "networks.opacity.width=8",
    "networks.atlas.width=8",
    "optimiser.samples=50",
    "optimiser.iterations=3",
    "schedule.pretrain_iterations=1",
)


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip", count=3).folder


def start(monkeypatch, *arguments, settings=TINY):
    sets = [word for setting in settings for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments), *sets])
    train.main()


def test_a_run_has_all_its_parts_and_opens(tmp_path, clip, monkeypatch, capsys):
    out = tmp_path / "runs" / "one"
    start(monkeypatch, clip, "--out", out, "--seed", 7, "--device", "cpu")
    names = {p.name for p in out.iterdir()}
    assert {"run.json", "config.yaml", "checkpoint.safetensors", "contact.png"} <= names
    assert {"atlas_layer0.png", "atlas_layer1.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".tmp") for name in names)
    info = json.loads((out / "run.json").read_text())
    assert (info["kind"], info["seed"], info["complete"]) == ("lna", 7, True)
    assert info["clip_folder"] == str(clip.resolve())
    assert len(info["clip_sha256"]) == 64
    assert info["seconds"]["train"] > 0
    assert info["machine"]
    config = load_config(out / "config.yaml")
    assert (config.seed, config.device, config.optimiser.iterations) == (7, "cpu", 3)
    assert np.isfinite(open_run(out).mapping.frame(2).uv).all()
    assert "PSNR" in capsys.readouterr().out


def test_an_existing_run_is_not_overwritten_unless_asked(tmp_path, clip, monkeypatch):
    out = tmp_path / "run"
    start(monkeypatch, clip, "--out", out)
    before = (out / "checkpoint.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"already holds a run; add --resume .* or --overwrite"):
        start(monkeypatch, clip, "--out", out)
    assert (out / "checkpoint.safetensors").read_bytes() == before
    (out / "edits").mkdir()
    (out / "edits" / "mine.png").write_bytes(b"paint")
    start(monkeypatch, clip, "--out", out, "--overwrite", "--seed", 9)
    assert (out / "checkpoint.safetensors").read_bytes() != before
    assert (out / "edits" / "mine.png").read_bytes() == b"paint"
    assert len(list(out.glob("events.out.tfevents.*"))) == 1


def test_resume_takes_the_run_s_own_config(tmp_path, clip, monkeypatch):
    """Only the number of iterations is said again; the rest comes from config.yaml."""
    out, whole = tmp_path / "parts", tmp_path / "whole"
    start(monkeypatch, clip, "--out", out, "--seed", 3)
    seconds = json.loads((out / "run.json").read_text())["seconds"]
    start(monkeypatch, clip, "--out", out, "--resume", settings=["optimiser.iterations=5"])
    info = json.loads((out / "run.json").read_text())
    assert info["metrics"]["iterations"] == 5
    assert info["seconds"]["train"] > seconds["train"]
    start(
        monkeypatch, clip, "--out", whole, "--seed", 3, settings=[*TINY, "optimiser.iterations=5"]
    )
    a, b = (load_file(folder / "checkpoint.safetensors") for folder in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_resume_of_nothing_starts(tmp_path, clip, monkeypatch):
    start(monkeypatch, clip, "--out", tmp_path / "run", "--resume")
    assert open_run(tmp_path / "run").info.complete


def test_resume_on_a_clip_that_changed_is_refused(tmp_path, clip, monkeypatch):
    start(monkeypatch, clip, "--out", tmp_path / "run")
    path = clip / "clip.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(InputError, match="was fitted to another state of"):
        start(monkeypatch, clip, "--out", tmp_path / "run", "--resume")


def test_a_folder_of_something_else_is_left_alone(tmp_path, clip, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    for option in ("--overwrite", "--resume"):
        with pytest.raises(InputError, match="photos: holds files but no run"):
            start(monkeypatch, clip, "--out", tmp_path / "photos", option)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["a.png"]
    with pytest.raises(InputError, match="is a file; --out wants a folder"):
        start(monkeypatch, clip, "--out", tmp_path / "photos" / "a.png")


def test_nothing_is_written_when_the_input_is_bad(tmp_path, clip, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(InputError, match="nowhere: not found"):
        start(monkeypatch, tmp_path / "nowhere", "--out", out)
    with pytest.raises(InputError, match=r"no key 'loss\.flow\.wieght'"):
        start(monkeypatch, clip, "--out", out, settings=["loss.flow.wieght=2"])
    next((tmp_path / "clip_flow").iterdir()).unlink()
    with pytest.raises(InputError, match="flow not found"):
        start(monkeypatch, clip, "--out", out)
    assert not out.exists()


def test_device_names():
    assert train.choose_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert train.choose_device("auto").type == "cuda"
        with pytest.raises(InputError, match="PyTorch sees"):
            train.choose_device("cuda:99")
    else:
        assert train.choose_device("auto") == torch.device("cpu")
        with pytest.raises(InputError, match="device cuda: PyTorch sees no CUDA device here"):
            train.choose_device("cuda")


def test_an_interrupt_says_how_to_go_on(tmp_path, clip, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", interrupted)
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, clip, "--out", tmp_path / "run")
    assert ended.value.code == 130
    assert "add --resume to go on" in capsys.readouterr().err


def test_the_command_ends_bad_input_with_one_line_and_status_2(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), str(tmp_path / "no"), "--out", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'no'}: not found; wanted a folder of frames\n"
    assert done.stdout == ""
    assert not (tmp_path / "x").exists()


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        train.parse_arguments(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--out", "--config", "--set", "--device", "--seed", "--budget", "--resume"):
        assert word in text
    assert "python train.py data/swan --out runs/swan" in text


def test_quality_is_for_the_default_recipe(tmp_path, clip, monkeypatch):
    config = ROOT / "configs" / "lna.yaml"
    with pytest.raises(InputError, match="--quality is for the default recipe, found recipe lna"):
        start(monkeypatch, clip, "--out", tmp_path / "r", "--config", config, "--quality", "best")
    assert not (tmp_path / "r").exists()


def test_resuming_takes_the_run_s_config_but_not_its_spent_budget(tmp_path):
    options = train.parse_arguments(["c", "--out", str(tmp_path), "--quality", "draft",
                                     "--budget", "30", "--seed", "4"])  # fmt: skip
    save_config(train.resolve_config(options), tmp_path / "config.yaml")
    again = train.parse_arguments(["c", "--out", str(tmp_path), "--resume", "--quality", "best"])
    config = train.resolve_config(again)
    assert (config.quality, config.seed, config.budget_s) == ("best", 4, None)
    plain = train.resolve_config(train.parse_arguments(["c", "--out", str(tmp_path), "--resume"]))
    assert (plain.quality, plain.budget_s) == ("draft", None)

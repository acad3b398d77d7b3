"""The run folder: opened, or refused in one line."""

import dataclasses
import json

import pytest

from atlas.errors import InputError
from atlas.run import Run, RunInfo, current_commit, is_run, open_run, read_run_info, write_run_info

INFO = RunInfo(
    kind="layered",
    clip_folder="clip",
    clip_sha256="0",
    frame_count=2,
    width=5,
    height=3,
    layers=[{"name": "sky", "height": 4, "width": 6}],
)


def test_info_round_trip(tmp_path):
    write_run_info(tmp_path, INFO)
    found = read_run_info(tmp_path)
    assert dataclasses.replace(found, clip_folder_from_run="") == INFO
    assert is_run(tmp_path)
    assert INFO.layer_tuple()[0].canvas.width == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "version is 7, wanted 1"),
        ({"wings": 2}, "not what train.py writes"),
        ({"kind": "magic"}, "kind is 'magic'"),
    ],
)
def test_what_is_not_a_run_is_named(tmp_path, change, message):
    write_run_info(tmp_path, INFO)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        open_run(tmp_path)


def test_a_folder_without_run_or_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        open_run(tmp_path)
    write_run_info(tmp_path, INFO)
    with pytest.raises(InputError, match="no checkpoint yet"):
        open_run(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a checkpoint of this project"):
        open_run(tmp_path)


def test_commit_is_short_or_none():
    commit = current_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 12


def test_a_project_that_moved_as_a_whole_finds_its_clips(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for name in ("data/pond", "runs/pond"):
        (old / name).mkdir(parents=True)
    info = dataclasses.replace(INFO, clip_folder=str(old / "data" / "pond"))
    write_run_info(old / "runs" / "pond", info)
    old.rename(new)
    folder = new / "runs" / "pond"
    run = Run(folder, read_run_info(folder), mapping=None, textures=[])
    assert run.clip_folder == new / "data" / "pond"

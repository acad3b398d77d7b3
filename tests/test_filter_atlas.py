"""External programs on an atlas: their result over all frames, and a clear line when they fail."""

import shlex
import sys

import numpy as np
import pytest

from atlas.errors import InputError
from edits.kinds import FilterAtlas
from edits.recipe import Recipe, read_recipe, write_recipe
from tests.edited_scene import object_scene, psnr_db

PYTHON = shlex.quote(sys.executable)
READ = "import cv2,sys; p=cv2.imread(sys.argv[1]);"


def program(code):
    return f"{PYTHON} -c {shlex.quote(READ + code)} {{in}} {{out}}"


def recipe(command, layer="background"):
    return Recipe(edits=(FilterAtlas(layer=layer, command=command),))


def test_the_filtered_atlas_appears_in_every_frame():
    scene = object_scene()
    made = scene.render(recipe(program("cv2.imwrite(sys.argv[2], 255 - p)")))
    layer = scene.scene.layers[1]
    inverted = np.dstack([1 - layer.texture[..., :3], np.ones(layer.texture.shape[:2])])
    truth = [scene.scene.edited(t, {"background": inverted}) for t in range(9)]
    # The texture is sampled once a pixel instead of four times: 35 dB at this sharp ground.
    assert min(psnr_db(a, b) for a, b in zip(made, truth, strict=True)) > 32
    covered = scene.scene.mapping().frame(4).visible()[1] == 0
    assert (made[4][covered] == scene.frames[4][covered]).all()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program {in} {out}", "there is no program 'no-such-program'"),
        (program("sys.exit('out of memory')"), "failed with status 1: out of memory"),
        (program("print('fine')"), "ended well but left no {out}"),
        (program("cv2.imwrite(sys.argv[2], p[:9, :9])"), "made a picture of 9x9 from one of"),
        (program("open(sys.argv[2], 'w').write('text')"), "left an unusable {out}"),
        ("'unfinished {in} {out}", "cannot be taken apart"),
    ],
)
def test_failures_are_one_line(command, message):
    with pytest.raises(InputError) as caught:
        object_scene().render(recipe(command))
    assert message in str(caught.value)


def test_there_is_no_shell(tmp_path):
    trap = tmp_path / "trap"
    with pytest.raises(InputError, match="left no"):
        object_scene().render(recipe(f"{program('pass')} ; touch {trap}"))
    assert not trap.exists()


def test_commands_must_name_both_files(tmp_path):
    for command, missing in (("sharpen {in}", r"\{out\} in it"), ("sharpen {out}", r"\{in\} in")):
        with pytest.raises(InputError, match=missing):
            FilterAtlas(layer="background", command=command)
    write_recipe(tmp_path / "r.yaml", recipe("sharpen {in} {out}"))
    assert read_recipe(tmp_path / "r.yaml") == recipe("sharpen {in} {out}")

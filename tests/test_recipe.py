"""Recipes: round trip, refusals in one line, paths relative to the recipe, hashes."""

import logging
from pathlib import Path

import pytest

from atlas.errors import InputError
from edits.recipe import (
    LayerPaint,
    Recipe,
    SkyEdit,
    check_files,
    file_sha256,
    read_recipe,
    write_recipe,
)


def write(tmp_path, text):
    path = tmp_path / "edit.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_round_trip_keeps_every_value_and_finds_the_files(tmp_path):
    (tmp_path / "skies").mkdir()
    (tmp_path / "skies" / "a sky.png").write_bytes(b"sky")
    (tmp_path / "paint.png").write_bytes(b"paint")
    recipe = Recipe(
        edits=(
            SkyEdit(source=str(tmp_path / "skies" / "a sky.png"), scale=1.5, flip=True),
            LayerPaint(layer="fg", path=str(tmp_path / "paint.png"), blend="soft light"),
        ),
        keep_grain=0.25,
    )
    path = tmp_path / "recipes" / "edit.yaml"
    path.parent.mkdir()
    write_recipe(path, recipe)
    assert "../skies/a sky.png" in path.read_text(encoding="utf-8")  # moves with its folder
    found = read_recipe(path)
    assert [p.resolve() for p in found.files()] == [p.resolve() for p in recipe.files()]
    sky, paint = found.edits
    assert (sky.scale, sky.flip, paint.layer, paint.blend) == (1.5, True, "fg", "soft light")
    assert found.keep_grain == 0.25
    assert sky.sha256 == file_sha256(tmp_path / "skies" / "a sky.png")
    check_files(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\nedits: [{kind: sky, source: a}]", "version is 2, wanted 1"),
        ("edits: [{kind: sky, source: a}]", "'version' is missing"),
        ("version: 1\nedits: []", "at least one edit"),
        ("version: 1\nedit: []", "at least one edit"),
        ("version: 1\nmood: warm\nedits: [{kind: sky, source: a}]", "unknown key 'mood'"),
        ("version: 1\nedits: [{kind: sky, source: a, skale: 2}]", "edit 1: unknown key 'skale'"),
        ("version: 1\nedits: [{kind: rain}]", "kind is 'rain', wanted one of sky, layer_paint"),
        ("version: 1\nedits: [sky]", "edit 1: wanted keys and values"),
        ("version: 1\nedits: [{kind: sky}]", "edit 1: 'source' is missing"),
        (
            "version: 1\nedits: [{kind: sky, source: a, scale: 0}]",
            "scale is 0.0, wanted between 0.01 and 100",
        ),
        (
            "version: 1\nedits: [{kind: sky, source: a, scale: .nan}]",
            "scale is nan, wanted between 0.01 and 100",
        ),
        ("version: 1\nedits: [{kind: sky, source: a, scale: big}]", "'big', wanted a number"),
        ("version: 1\nedits: [{kind: sky, source: a, flip: 1}]", "flip is 1, wanted true or false"),
        ("version: 1\nedits: [{kind: sky, source: a, fit: tile}]", "wanted one of auto, cover"),
        (
            "version: 1\nedits: [{kind: layer_paint, layer: a, path: b, blend: burn}]",
            "blend is 'burn', wanted normal, multiply",
        ),
        ("version: 1\nkeep_grain: 2\nedits: [{kind: sky, source: a}]", "keep_grain is 2.0"),
        ("- a\n- b", "wanted a recipe"),
        ("version: [", "not valid YAML"),
    ],
)
def test_bad_recipes_are_refused_with_the_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_recipe_and_missing_source(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: not found"):
        read_recipe(tmp_path / "nowhere.yaml")
    recipe = read_recipe(write(tmp_path, "version: 1\nedits: [{kind: sky, source: gone.png}]"))
    with pytest.raises(InputError, match=r"gone\.png: not found; the sky edit"):
        check_files(recipe)


def test_a_changed_source_is_warned_of(tmp_path, caplog):
    (tmp_path / "sky.png").write_bytes(b"one")
    path = tmp_path / "edit.yaml"
    write_recipe(path, Recipe(edits=(SkyEdit(source=str(tmp_path / "sky.png")),)))
    with caplog.at_level(logging.WARNING):
        check_files(read_recipe(path))
        assert not caplog.records
        (tmp_path / "sky.png").write_bytes(b"two")
        check_files(read_recipe(path))
    assert "has changed since the recipe was made" in caplog.text


def test_binary_file_given_as_recipe_is_one_line(tmp_path):
    path = tmp_path / "edit.yaml"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="wanted a recipe"):
        read_recipe(path)


def test_the_recipe_in_the_guide_is_one(tmp_path):
    guide = (Path(__file__).resolve().parent.parent / "docs/EDITING.md").read_text()
    (tmp_path / "edit.yaml").write_text(guide.split("```yaml\n")[1].split("```")[0])
    recipe = read_recipe(tmp_path / "edit.yaml")
    kinds = [edit.kind for edit in recipe.edits]
    assert kinds == ["layer_paint", "frame_paint", "insert", "remove", "filter"]

"""Models of the original layered-neural-atlases program: reading them, and their mappings."""

# ruff: noqa: F401, F811

import cv2
import numpy as np
import pytest

from atlas.clip import read_rgb
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.fields import Domain
from atlas.lna_import import (
    background_crop,
    find_data,
    import_mapping,
    open_lna_model,
)
from atlas.run import Run
from tests.lna_models import (
    CONFIG,
    COUNT,
    SIZE,
    by_hand,
    data,
    model,
    random_states,
    small_atlases,
    write_frames,
    write_model,
)
from thirdparty.lna import is_lna_model, read_lna_model


def test_one_pixel_from_weights_to_texels_by_hand(model, data):
    """Pixel (29, 6) of frame 2: x/(L/2) - 1, t/(T/2) - 1, texel 1000 (uv/2 + 1/2)."""
    states = random_states()
    run = open_lna_model(read_lna_model(model), data, with_textures=False)
    at = [29 / 18 - 1, 6 / 18 - 1, 2 / 1.5 - 1]
    found = run.mapping.frame(2)
    fg = by_hand(states, "model_F_mapping1_state_dict", at)
    bg = by_hand(states, "model_F_mapping2_state_dict", at)
    tanh = by_hand(states, "model_F_alpha_state_dict", at)[0]
    # 2e-3 texels: float32 uv times 500, and the crop's edge divides it once more.
    np.testing.assert_allclose(found.uv[0, 6, 29], (fg / 2 + 0.5) * 1000, atol=2e-3)
    assert found.alpha[0, 6, 29] == pytest.approx(0.5 * (tanh + 1) * 0.99 + 0.001, abs=1e-6)
    low_u, low_v, edge = brute_crop(run.mapping)
    expected = (bg - [low_u, low_v]) / edge * 1000
    np.testing.assert_allclose(found.uv[1, 6, 29], expected, atol=2e-3)
    rgb = [by_hand(states, "F_atlas_state_dict", uv) for uv in (fg / 2 + 0.5, bg / 2 - 0.5)]
    a = found.alpha[0, 6, 29]
    expected = a * (rgb[0] + 1) / 2 + (1 - a) * (rgb[1] + 1) / 2
    np.testing.assert_allclose(run.mapping.reconstruct(2)[6, 29], expected, atol=1e-5)


def brute_crop(mapping):
    """The background's square from every pixel of every frame, as the original program does it."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for t in range(mapping.frame_count):
        uv, alpha = mapping.unit_uv(t, pixel_grid(mapping.frame_size))
        used = uv[1][(alpha[0] - 0.001) / 0.99 * 2 - 1 < 0.5]
        low, high = np.minimum(low, used.min(0)), np.maximum(high, used.max(0))
    return *low, (high - low).max()


@pytest.mark.parametrize("seed", range(6))
def test_background_crop_equals_asking_every_pixel(tmp_path, seed):
    size = Size(height=75, width=134)  # neither side a multiple of the cells' 8 px
    config = CONFIG | {"resx": size.width, "resy": size.height}
    folder = write_model(tmp_path / "model", random_states(seed), config)
    mapping = import_mapping(read_lna_model(folder), COUNT)
    domain = Domain.of_original_program(size, COUNT)
    found = background_crop(mapping.fields, domain, size, COUNT)
    np.testing.assert_allclose(found, brute_crop(mapping), atol=1e-6)  # float32


def test_crop_of_a_clip_that_is_all_foreground_keeps_the_whole_square(tmp_path):
    states = random_states()
    states["model_F_alpha_state_dict"]["hidden.2.bias"] += 50
    mapping = import_mapping(read_lna_model(write_model(tmp_path / "m", states)), COUNT)
    found = background_crop(mapping.fields, mapping.domain, SIZE, COUNT)
    assert found == (-1.0, -1.0, 2.0)


def test_a_run_has_what_edits_and_evaluation_ask_for(model, data, small_atlases):
    run = open_lna_model(read_lna_model(model), data)
    assert isinstance(run, Run)
    assert [layer.name for layer in run.mapping.layers] == ["foreground", "background"]
    assert [texture.size for texture in run.textures] == [Size(120, 120)] * 2
    clip = run.clip()
    assert (clip.frame_count, clip.size, run.info.frame_count) == (COUNT, SIZE, COUNT)
    expected = cv2.resize(read_rgb(data / "00001.png"), SIZE.wh)
    assert (clip.frame(1) == expected).all()


def test_only_as_many_frames_as_the_model_used(tmp_path):
    folder = write_frames(tmp_path / "data/pan", COUNT + 2)
    model = read_lna_model(write_model(tmp_path / "model"))
    run = open_lna_model(model, folder, with_textures=False)
    assert (run.mapping.frame_count, run.clip().frame_count) == (COUNT, COUNT)
    fewer = open_lna_model(model, write_frames(tmp_path / "two", 2), with_textures=False)
    assert fewer.mapping.frame_count == 2


def test_the_frames_folder_is_found(tmp_path, model, data, monkeypatch):
    """As given; by the config's name in the folder given; where results and data lie together."""
    opened = read_lna_model(model)
    assert find_data(opened, data) == data
    assert find_data(opened, tmp_path / "data") == data
    assert find_data(opened, None).resolve() == data.resolve()
    elsewhere = read_lna_model(write_model(tmp_path / "far/away/model"))
    monkeypatch.chdir(model)
    with pytest.raises(InputError, match=r"frames are not in data/pan; give .* --data DIR"):
        find_data(elsewhere, None)
    with pytest.raises(InputError, match="nowhere: not found"):
        find_data(opened, tmp_path / "nowhere")


def test_what_is_such_a_model(tmp_path, model):
    assert is_lna_model(model)
    assert not is_lna_model(tmp_path)
    (model / "run.json").write_text("{}")
    assert not is_lna_model(model)

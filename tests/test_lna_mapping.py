"""A neural atlas behind the LayerMapping interface; the published networks as a special case."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atlas.config import MlpConfig, NetworksConfig, TrainConfig, load_config
from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.fields import Domain, LayerFields, UvWindow
from atlas.lna_checkpoint import (
    CheckpointInfo,
    load_checkpoint,
    load_textures,
    save_checkpoint,
    save_textures,
)
from atlas.lna_mapping import LnaMapping, mapping_of, used_windows
from atlas.mapping import Layer
from atlas.texture import Texture, sample

REFERENCE = Path(__file__).resolve().parent.parent.parent / "shared/reference/lna_reference"
NETWORKS = NetworksConfig(
    mapping=MlpConfig(depth=3, width=16),
    bottom_mapping=MlpConfig(depth=2, width=8),
    opacity=MlpConfig(depth=3, width=16, frequencies=2),
    atlas=MlpConfig(depth=3, width=16, frequencies=2),
)
SIZE, COUNT = Size(23, 38), 5
LAYERS = (Layer("fg", Size(40, 40)), Layer("bg", Size(64, 64)))
WINDOWS = (UvWindow(0.1, -0.2, 0.3), UvWindow(0.0, 0.05, 0.5))


def make_mapping(**options):
    torch.manual_seed(4)
    return LnaMapping(LayerFields(2, NETWORKS), LAYERS, SIZE, COUNT, windows=WINDOWS, **options)


def test_one_pixel_by_hand():
    """Pixel (7, 11) of frame 3, from the networks to texels, all conversions written out."""
    mapping = make_mapping()
    at = torch.tensor([[7 * 2 / 37 - 1, 11 * 2 / 37 - 1, 3 * 2 / 4 - 1]])
    got = mapping.frame(3)
    for i, window in enumerate(WINDOWS):
        uv = mapping.fields.uv(i, at)[0].detach().numpy()
        side = LAYERS[i].canvas.width
        expected = ((uv - [window.center_u, window.center_v]) / window.half_edge + 1) / 2
        # 2e-4 texels: float32 divided by the window's half edge.
        np.testing.assert_allclose(got.uv[i, 11, 7], expected * (side - 1), atol=2e-4)
    assert got.alpha[0, 11, 7] == pytest.approx(mapping.fields.alpha(at)[0].item(), abs=1e-6)
    assert (got.alpha[1] == 1).all()
    assert got.uv.shape == (2, 23, 38, 2)
    assert (got.uv.dtype, got.alpha.dtype) == (np.float32, np.float32)


def test_another_size_asks_at_that_size_s_pixel_centres():
    """At three times the size every third pixel, from the second, is a pixel of the clip."""
    mapping = make_mapping()
    fine = mapping.frame(2, Size(3 * 23, 3 * 38))
    coarse = mapping.frame(2)
    np.testing.assert_allclose(fine.uv[:, 1::3, 1::3], coarse.uv, atol=5e-4)  # float32
    np.testing.assert_allclose(fine.alpha[:, 1::3, 1::3], coarse.alpha, atol=1e-5)


def test_chunks_do_not_show(monkeypatch):
    mapping = make_mapping()
    whole = mapping.frame(1)
    rebuilt = mapping.reconstruct(1)
    monkeypatch.setattr("atlas.lna_mapping.CHUNK", 100)
    parts = mapping.frame(1)
    np.testing.assert_allclose(parts.uv, whole.uv, atol=5e-4)  # float32, other matrix sizes
    np.testing.assert_allclose(mapping.reconstruct(1), rebuilt, atol=1e-5)


def test_a_lattice_is_close_where_the_mapping_is_smooth():
    exact, coarse = make_mapping().frame(1), make_mapping(lattice_px=4).frame(1)
    assert coarse.uv.shape == exact.uv.shape
    span = np.ptp(exact.uv, axis=(1, 2)).max()
    error = np.abs(coarse.uv - exact.uv)
    # Networks are piecewise linear nearly everywhere: the median is small, kinks and the border
    # are off by parts of a lattice step (4 px of 38). A shift by half a step, the likely
    # mistake, would put the median at 4 % of the span.
    assert np.median(error) < 3e-3 * span
    assert error.max() < 0.06 * span


def test_texture_seen_through_the_mapping_is_the_layer_s_colour():
    mapping = make_mapping()
    m = mapping.frame(4)
    view = torch.from_numpy(m.uv[1].reshape(-1, 2))
    texture = mapping.render_texture(1, None)
    colors = mapping.fields.color(1, mapping._from_texels(1, view)).detach()
    inside = ((m.uv[1] >= 0) & (m.uv[1] <= 63)).all(-1)
    assert inside.mean() > 0.2
    got = sample(texture.rgb, m.uv[1])[inside]
    # 0.02: bilinear between texels 1/64 of a window apart, octaves up to 2 pi.
    np.testing.assert_allclose(got, colors.view(23, 38, 3).numpy()[inside], atol=0.02)


def test_coverage_marks_what_frames_show():
    """A bottom layer seen through a clear top: covered under the frames' hull, not far outside."""
    mapping = make_mapping()
    torch.nn.init.constant_(mapping.fields.opacity[0].hidden[-1].bias, -50.0)
    textures = mapping.render_textures()
    assert textures[0].coverage.max() < 0.1  # opacity floor 0.001, many frames
    m = mapping.frame(2)
    inner = m.uv[1, 4:-4, 4:-4].reshape(-1, 2).round().astype(int)
    inner = inner[((inner >= 2) & (inner <= 61)).all(-1)]
    assert textures[1].coverage[inner[:, 1], inner[:, 0]].min() > 0.5


def test_windows_hold_every_position_that_is_seen():
    torch.manual_seed(5)
    whole = LnaMapping(LayerFields(2, NETWORKS), LAYERS, SIZE, COUNT)
    windows = used_windows(whole, steps=12)
    for t in range(COUNT):
        uv, alpha = whole.unit_uv(t, pixel_grid(SIZE))
        assert alpha[0].min() > 0.1  # both layers are seen everywhere, so all of uv counts
        for i, window in enumerate(windows):
            center = np.array([window.center_u, window.center_v])
            assert (np.abs(uv[i] - center) <= window.half_edge).all()
    assert all(w.half_edge < 0.6 for w in windows)


def test_a_layer_that_is_never_seen_keeps_the_whole_square():
    mapping = LnaMapping(LayerFields(2, NETWORKS), LAYERS, SIZE, COUNT)
    torch.nn.init.constant_(mapping.fields.opacity[0].hidden[-1].bias, -50.0)
    assert used_windows(mapping)[0] == UvWindow(0, 0, 1)
    assert used_windows(mapping)[1] != UvWindow(0, 0, 1)


def test_a_frame_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"t must be in 0\.\.4, got 5"):
        make_mapping().frame(5)


def test_checkpoint_brings_the_same_mapping_back(tmp_path):
    mapping = make_mapping()
    info = CheckpointInfo(
        config=TrainConfig(recipe="lna", networks=NETWORKS, canvas_texels=40),
        layer_names=("fg", "bg"),
        size=SIZE,
        frame_count=COUNT,
        iteration=17,
        windows=WINDOWS,
        commit="abc",
    )
    save_checkpoint(tmp_path / "c.safetensors", info, mapping.fields)
    back = load_checkpoint(tmp_path / "c.safetensors", torch.device("cpu"))
    assert back.info == info
    got, expected = mapping_of(back).frame(2), mapping.frame(2)
    np.testing.assert_array_equal(got.uv[0], expected.uv[0])  # the other canvas is larger here
    np.testing.assert_array_equal(got.alpha, expected.alpha)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match=r"c\.safetensors: not found"):
        load_checkpoint(path, torch.device("cpu"))
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(InputError, match=r"c\.safetensors: not a readable safetensors file"):
        load_checkpoint(path, torch.device("cpu"))
    save_textures(path, [], 3)
    with pytest.raises(InputError, match=r"c\.safetensors: version is None"):
        load_checkpoint(path, torch.device("cpu"))


def test_a_checkpoint_with_a_nan_is_not_written(tmp_path):
    mapping = make_mapping()
    torch.nn.init.constant_(mapping.fields.atlas.hidden[0].bias, float("nan"))
    info = CheckpointInfo(
        config=TrainConfig(networks=NETWORKS),
        layer_names=("fg", "bg"),
        size=SIZE,
        frame_count=COUNT,
        iteration=1,
        windows=WINDOWS,
    )
    with pytest.raises(InputError, match="not finite"):
        save_checkpoint(tmp_path / "c.safetensors", info, mapping.fields)
    assert list(tmp_path.iterdir()) == []


def test_textures_belong_to_one_iteration(tmp_path):
    rng = np.random.default_rng(0)
    texture = Texture(rng.random((4, 7, 3), np.float32), rng.random((4, 7), np.float32))
    path = tmp_path / "textures.safetensors"
    assert load_textures(path, 5) is None
    save_textures(path, [texture], 5)
    assert load_textures(path, 6) is None
    back = load_textures(path, 5)
    assert back is not None
    np.testing.assert_allclose(back[0].rgb, texture.rgb, atol=0.5 / 255 + 1e-6)  # 8 bit
    np.testing.assert_allclose(back[0].coverage, texture.coverage, atol=0.5 / 255 + 1e-6)


@pytest.mark.shared
def test_published_weights_give_the_published_answers():
    """Weights trained by the authors' program give what that program computed from them."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference output at {REFERENCE}")
    weights = torch.load(REFERENCE / "model/checkpoint", map_location="cpu", weights_only=True)
    fields = LayerFields(2, load_config(None).networks)
    fields.mapping[0].load_state_dict(weights["model_F_mapping1_state_dict"])
    fields.mapping[1].load_state_dict(weights["model_F_mapping2_state_dict"])
    fields.opacity[0].load_state_dict(weights["model_F_alpha_state_dict"])
    fields.atlas.load_state_dict(weights["F_atlas_state_dict"])
    size, vectors = Size(432, 768), np.load(REFERENCE / "grid8_vectors.npz")
    domain = Domain.of_original_program(size, 12)
    y, x = np.mgrid[0:432:8, 0:768:8]
    for t in (0, 5, 11):
        at = torch.tensor(np.stack([x, y, np.full_like(x, t)], -1).reshape(-1, 3)).float()
        with torch.no_grad():
            samples = fields(domain.to_unit(at))
        shape = (432 // 8, 768 // 8)
        found = {
            "uv1": samples.uv[0],
            "uv2": samples.uv[1],
            "alpha": samples.alpha[0],
            "rgb_fg": samples.rgb[0],
            "rgb_bg": samples.rgb[1],
            "rgb": samples.composite(),
        }
        for name, value in found.items():
            expected = vectors[f"{name}_f{t}"].reshape(*shape, -1)
            # 2e-3: float32 rounding of positions, times the atlas's highest octave, 2^9 pi.
            tolerance = 2e-3 if name.startswith("rgb") else 1e-4
            np.testing.assert_allclose(
                value.view(*shape, -1).numpy(), expected, atol=tolerance, err_msg=name
            )


def test_interpolated_frames_stay_within_the_tolerance():
    exact, quick = make_mapping().frame(1), make_mapping(tolerance=0.2).frame(1)
    assert np.abs(quick.uv - exact.uv).max() < 0.2
    assert np.abs(quick.alpha - exact.alpha).max() < 0.02
    assert (quick.uv != exact.uv).any()  # something was interpolated
    larger, fine = make_mapping(tolerance=0.2), Size(3 * SIZE.height, 3 * SIZE.width)
    assert np.abs(larger.frame(1, fine).uv - make_mapping().frame(1, fine).uv).max() < 0.2

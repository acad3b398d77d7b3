"""LayerMapping: occlusion, resampling, baked maps on disk."""

import json

import numpy as np
import pytest

from atlas.coords import Size, pixel_grid
from atlas.errors import InputError
from atlas.mapping import BakedMapping, FrameMapping, resample, visible_shares, write_baked
from tests.exact_mapping import AffineMapping


def test_shares_of_three_layers_by_hand():
    alpha = np.array([0.25, 0.5, 1.0], np.float32).reshape(3, 1, 1)
    # 1/4 on top, half of the remaining 3/4, and the rest
    assert visible_shares(alpha).ravel().tolist() == [0.25, 0.375, 0.375]


@pytest.mark.parametrize("seed", range(10))
def test_shares_sum_to_one(seed):
    alpha = np.random.default_rng(seed).random((4, 5, 7)).astype(np.float32)
    alpha[-1] = 1
    shares = visible_shares(alpha)
    assert np.allclose(shares.sum(0), 1, atol=1e-6)  # float32 rounding
    assert shares.min() >= 0


def test_resampling_an_affine_map_is_exact_also_beyond_the_last_pixel_centre():
    size, view = Size(6, 9), Size(15, 31)
    grid = pixel_grid(size)
    uv = np.stack([grid @ np.array([[2.0, 0.5], [0.25, 3.0]], np.float32) + 4])
    mapping = FrameMapping(uv.astype(np.float32), np.ones((1, 6, 9), np.float32), np.ones(1))
    fine = resample(mapping, view)
    expected = pixel_grid(size, view) @ np.array([[2.0, 0.5], [0.25, 3.0]], np.float32) + 4
    assert np.allclose(fine.uv[0], expected, atol=1e-4)  # float32 at values of about 40
    assert fine.alpha.shape == (1, 15, 31)


def test_baked_maps_come_back(tmp_path):
    alpha = np.random.default_rng(0).random((7, 11)).astype(np.float32)
    mapping = AffineMapping(alpha, Size(20, 30), frame_count=3)
    baked = write_baked(tmp_path / "maps", mapping)
    assert [layer.name for layer in baked.layers] == [layer.name for layer in mapping.layers]
    for t in range(3):
        assert np.array_equal(baked.frame(t).uv, mapping.frame(t).uv)
        # opacity is stored as float16: 11 significant bits
        assert np.allclose(baked.frame(t).alpha, mapping.frame(t).alpha, atol=2**-11)
    assert not (tmp_path / "maps.tmp").exists()


def test_baked_maps_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(InputError, match=r"mapping\.json: not found"):
        BakedMapping(tmp_path)
    (tmp_path / "mapping.json").write_text(json.dumps({"layers": []}))
    with pytest.raises(InputError, match=r"mapping\.json: not a description"):
        BakedMapping(tmp_path)


def test_an_unknown_layer_lists_the_known_ones():
    mapping = AffineMapping(np.ones((4, 5), np.float32), Size(4, 5))
    with pytest.raises(InputError, match=f"no layer called 'sea'.*{mapping.layers[0].name}"):
        mapping.layer_index("sea")

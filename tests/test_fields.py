"""Coordinate networks: encoding, sizes, layers, and where gradients may go."""

import math

import pytest
import torch
from torch.testing import assert_close

from atlas.config import MlpConfig, NetworksConfig, load_config
from atlas.fields import (
    ALPHA_FLOOR,
    ALPHA_SPAN,
    CoordinateMLP,
    LayerFields,
    LayerSamples,
    atlas_tiles,
    layer_shares,
    parameter_count,
    positional_encoding,
)
from atlas.mapping import visible_shares

SMALL = MlpConfig(depth=3, width=16)
NETWORKS = NetworksConfig(
    mapping=SMALL,
    bottom_mapping=MlpConfig(depth=2, width=8),
    opacity=MlpConfig(depth=3, width=16, frequencies=2),
    atlas=MlpConfig(depth=4, width=16, frequencies=3, skips=(2,)),
)


def test_encoding_order_and_values_are_pinned():
    """Octave by octave, sines of all coordinates before cosines; all eight values differ."""
    x, y = 0.3, 0.1
    encoded = positional_encoding(torch.tensor([[x, y]], dtype=torch.float64), 2)
    angles = [math.pi * x, math.pi * y], [2 * math.pi * x, 2 * math.pi * y]
    expected = [f(angle) for octave in angles for f in (math.sin, math.cos) for angle in octave]
    assert_close(encoded, torch.tensor([expected], dtype=torch.float64))


def test_no_octaves_means_the_coordinates():
    xyt = torch.randn(5, 3)
    assert positional_encoding(xyt, 0) is xyt


def test_the_paper_has_as_many_parameters_as_published():
    fields = LayerFields(2, load_config(None).networks)
    assert parameter_count(fields) == 1_217_152
    shapes = [tuple(layer.weight.shape) for layer in fields.atlas.hidden]
    assert shapes[0] == (256, 40)
    assert shapes[4] == (256, 296)  # a skip: 256 + 2 coordinates x 2 x 10 octaves
    assert shapes[7] == (3, 296)
    assert fields.opacity[0].hidden[0].weight.shape == (256, 30)


def test_network_matches_a_plain_loop():
    torch.manual_seed(0)
    net = CoordinateMLP(2, 3, NETWORKS.atlas).double()
    at = torch.rand(7, 2, dtype=torch.float64)
    weights = [(layer.weight, layer.bias) for layer in net.hidden]
    for row, got in zip(at, net(at), strict=True):
        encoded = positional_encoding(row[None], 3)[0]
        x = encoded
        for i, (weight, bias) in enumerate(weights):
            x = x.clamp_min(0) if i > 0 else x
            x = torch.cat([x, encoded]) if i == 2 else x
            x = weight @ x + bias
        assert_close(got, x.tanh())


def test_skip_gradient_can_be_blocked():
    """Only the gradient differs, the value does not; a one-layer net would not tell."""
    at = torch.rand(6, 2, dtype=torch.float64, requires_grad=True)
    gradients, values = [], []
    for through in (True, False):
        torch.manual_seed(1)
        net = CoordinateMLP(2, 3, NETWORKS.atlas, skip_gradient=through).double()
        values.append(net(at))
        gradients.append(torch.autograd.grad(values[-1].sum(), at)[0])
    assert_close(values[0], values[1])
    assert not torch.allclose(gradients[0], gradients[1])
    assert gradients[1].abs().max() > 0


def test_network_gradient_is_right():
    torch.manual_seed(2)
    net = CoordinateMLP(3, 2, NETWORKS.opacity).double()
    assert torch.autograd.gradcheck(net, torch.rand(4, 3, dtype=torch.float64, requires_grad=True))


def test_two_layers_lie_where_the_paper_puts_them():
    centres, scale = atlas_tiles(2)
    assert scale == 0.5
    assert centres == [(0.5, 0.5), (-0.5, -0.5)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 10])
def test_tiles_do_not_overlap_and_stay_inside(count):
    centres, scale = atlas_tiles(count)
    assert len(centres) == count
    for i, (u, v) in enumerate(centres):
        assert max(abs(u), abs(v)) + scale <= 1 + 1e-12  # 1e-12: float64 rounding
        for other_u, other_v in centres[:i]:
            assert max(abs(u - other_u), abs(v - other_v)) >= 2 * scale - 1e-12


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_forward_agrees_with_the_single_fields(count):
    torch.manual_seed(count)
    fields = LayerFields(count, NETWORKS)
    xyt = torch.rand(11, 3) * 2 - 1
    samples = fields(xyt)
    assert samples.uv.shape == (count, 11, 2)
    assert samples.alpha.shape == (count, 11, 1)
    for layer in range(count):
        assert_close(samples.uv[layer], fields.uv(layer, xyt))
        assert_close(samples.rgb[layer], fields.color(layer, samples.uv[layer]))
    assert (samples.alpha[-1] == 1).all()
    assert_close(samples.shares().sum(0), torch.ones(11, 1))
    assert samples.rgb.min() > 0
    assert samples.rgb.max() < 1


def test_two_layers_composite_as_published():
    torch.manual_seed(3)
    fields = LayerFields(2, NETWORKS)
    xyt = torch.rand(9, 3) * 2 - 1
    samples = fields(xyt)
    alpha = ALPHA_FLOOR + ALPHA_SPAN * 0.5 * (fields.opacity[0](xyt) + 1)
    fg = 0.5 * (fields.atlas(fields.mapping[0](xyt) * 0.5 + 0.5) + 1)
    bg = 0.5 * (fields.atlas(fields.mapping[1](xyt) * 0.5 - 0.5) + 1)
    assert_close(samples.composite(), alpha * fg + (1 - alpha) * bg)


def test_shares_are_the_numpy_ones():
    alpha = torch.tensor([[0.3, 0.0, 1.0], [0.6, 1.0, 0.5], [1.0, 1.0, 1.0]])
    expected = torch.tensor([[0.3, 0.0, 1.0], [0.42, 1.0, 0.0], [0.28, 0.0, 0.0]])
    got = layer_shares(alpha[..., None])[..., 0]
    assert_close(got, expected)
    assert_close(got, torch.from_numpy(visible_shares(alpha[:, None].numpy()))[:, 0])


def test_share_gradient_is_finite_at_clear_and_opaque():
    upper = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.0]], dtype=torch.float64)
    upper = upper[..., None].requires_grad_()
    bottom = torch.ones(1, 3, 1, dtype=torch.float64)
    rgb = torch.rand(3, 3, 3, dtype=torch.float64)
    uv = torch.zeros(3, 3, 2, dtype=torch.float64)
    out = LayerSamples(uv, torch.cat([upper, bottom]), rgb).composite()
    (gradient,) = torch.autograd.grad(out.square().sum(), upper)
    assert gradient.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda a: LayerSamples(uv, torch.cat([a, bottom]), rgb).composite(), upper
    )


def test_opacity_can_neither_be_0_nor_1():
    """Its logarithms appear in the bootstrap loss."""
    fields = LayerFields(2, NETWORKS)
    last = fields.opacity[0].hidden[-1]
    for sign, limit in ((-1, ALPHA_FLOOR), (1, ALPHA_FLOOR + ALPHA_SPAN)):
        torch.nn.init.constant_(last.bias, sign * 50.0)
        alpha = fields.alpha(torch.zeros(1, 3))[0]
        assert alpha.item() == pytest.approx(limit)
        assert 0 < alpha.item() < 1
        assert math.isfinite(math.log(1 - alpha.item()))

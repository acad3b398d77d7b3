"""RAFT (Teed and Deng, ECCV 2020) through torchvision, with torchvision's or princeton-vl weights.

Flow convention: (H, W, 2) float32 px, channel 0 is x, 1 is y; from the first picture to the second.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from atlas.errors import InputError
from thirdparty.weights import RECORDS, Report, find_weights, load_state

log = logging.getLogger(__name__)

UPDATES = 20
"""Refinement steps, as in the authors' demo; their Sintel figures use 32, training 12."""
MULTIPLE = 8
MIN_SIDE = 128
"""The correlation pyramid has four levels on 1/8 of the size and needs 16 cells at its base."""

# princeton-vl name -> torchvision name, for the parts that both networks (large, small) share.
_TOP = {"fnet": "feature_encoder", "cnet": "context_encoder"}
_UPDATE = {
    "encoder.convc1": "motion_encoder.convcorr1.0",
    "encoder.convc2": "motion_encoder.convcorr2.0",
    "encoder.convf1": "motion_encoder.convflow1.0",
    "encoder.convf2": "motion_encoder.convflow2.0",
    "encoder.conv": "motion_encoder.conv.0",
    "flow_head.conv1": "flow_head.conv1",
    "flow_head.conv2": "flow_head.conv2",
}
_MASK = {"mask.0": "mask_predictor.convrelu.0", "mask.2": "mask_predictor.conv"}


def import_torchvision() -> None:
    """Import torchvision, or say in one line why that fails and how to go on."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError as err:
        raise InputError(
            f"torchvision is needed and not importable ({err}): pip install torchvision, or take "
            "what needs no network: --flow dis, --masks motion or sky"
        ) from err
    except (RuntimeError, OSError, ImportError) as err:
        reason = str(err).splitlines()[0]
        raise InputError(
            f"torchvision does not fit the installed torch {torch.__version__} ({reason}): "
            "install both from one place (pip install --force-reinstall torch torchvision), or "
            "take what needs no network: --flow dis, --masks motion or sky"
        ) from err


def build(name: str) -> nn.Module:
    """torchvision's `raft_large` or `raft_small`, with random weights."""
    if name not in ("raft_large", "raft_small"):
        raise ValueError(f"name must be raft_large or raft_small, got {name!r}")
    import_torchvision()
    from torchvision.models import optical_flow

    return getattr(optical_flow, name)(weights=None, progress=False)


class Raft:
    """A loaded RAFT network."""

    def __init__(
        self,
        name: str = "raft_large",
        weights: Path | str | None = None,
        device: str = "cpu",
        report: Report | None = None,
    ):
        """Load the network.

        Args:
            name: raft_large or raft_small; with local `weights` of the other size, that size.
            weights: a `.pth` file, torchvision's or princeton-vl's; None takes the recorded file.
            device: torch device.
            report: see `thirdparty.weights.find_weights`.
        """
        import_torchvision()
        path = find_weights(RECORDS[name], weights, report)
        state = load_state(path)
        if is_princeton(state):
            state = from_princeton(state, str(path))
        if weights is not None:
            name = (
                "raft_large"
                if any(k.startswith("mask_predictor") for k in state)
                else ("raft_small")
            )
        network = build(name)
        _load(network, state, name, path)
        self.description = f"{name} (torchvision, {path.name}, {UPDATES} updates)"
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()

    def flow(self, a_rgb: np.ndarray, b_rgb: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 px: motion from (H, W, 3) uint8 RGB picture a to picture b."""
        return self.flow_batch(a_rgb[None], b_rgb[None])[0]

    def flow_batch(self, a_rgb: np.ndarray, b_rgb: np.ndarray) -> np.ndarray:
        """(N, H, W, 2) float32 px for N pairs of (H, W, 3) uint8 RGB pictures at once."""
        a, b = self._tensor(a_rgb), self._tensor(b_rgb)
        height, width = a.shape[-2:]
        pads = padding(height, width)
        a, b = (nn.functional.pad(x, pads, mode="replicate") for x in (a, b))
        with torch.inference_mode():
            flow = self._network(a, b, num_flow_updates=UPDATES)[-1]
        left, _, top, _ = pads
        flow = flow[..., top : top + height, left : left + width]
        return np.ascontiguousarray(flow.permute(0, 2, 3, 1).float().cpu().numpy())

    def _tensor(self, rgb: np.ndarray) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
        tensor = torch.from_numpy(np.ascontiguousarray(rgb)).to(self._device)
        return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom pixels that bring a picture to a size RAFT takes, centred."""
    full = [max(-(-side // MULTIPLE) * MULTIPLE, MIN_SIDE) for side in (width, height)]
    x, y = full[0] - width, full[1] - height
    return (x // 2, x - x // 2, y // 2, y - y // 2)


def is_princeton(state: dict[str, Tensor]) -> bool:
    """Whether the keys are those of github.com/princeton-vl/RAFT."""
    return any(key.startswith(("fnet.", "cnet.")) for key in state)


def from_princeton(state: dict[str, Tensor], where: str = "state") -> dict[str, Tensor]:
    """Rename a princeton-vl RAFT state dict (large or small) to torchvision's keys.

    The two are the same networks, layer for layer, so the tensors pass unchanged. princeton-vl
    stores the norm of a downsampling shortcut twice (`norm3`/`norm4` and `downsample.1`); one
    copy is dropped.
    """
    renamed = {}
    for key, value in state.items():
        new = _rename(key)
        if new is None:
            raise InputError(f"{where}: key {key!r} is in no RAFT network of princeton-vl")
        if new:
            renamed[new] = value
    return renamed


def _rename(key: str) -> str | None:
    """torchvision's name of a princeton-vl key; "" for a duplicate, None for an unknown one."""
    module, _, parameter = key.rpartition(".")
    if module.startswith(("fnet.", "cnet.")):
        top, _, rest = module.partition(".")
        inner = _rename_encoder(rest)
        return f"{_TOP[top]}.{inner}.{parameter}" if inner else inner
    if not module.startswith("update_block."):
        return None
    rest = module.removeprefix("update_block.")
    if rest in _MASK:
        return f"{_MASK[rest]}.{parameter}"
    if rest in _UPDATE:
        return f"update_block.{_UPDATE[rest]}.{parameter}"
    if gate := re.fullmatch(r"gru\.conv([zrq])([12]?)", rest):
        return f"update_block.recurrent_block.convgru{gate[2] or 1}.conv{gate[1]}.{parameter}"
    return None


def _rename_encoder(module: str) -> str | None:
    """The same for a module inside an encoder."""
    fixed = {"conv1": "convnormrelu.0", "norm1": "convnormrelu.1", "conv2": "conv"}
    if module in fixed:
        return fixed[module]
    found = re.fullmatch(r"(layer[123]\.[01])\.(conv|norm|downsample\.)([0-4])", module)
    if not found:
        return None
    block, kind, number = found[1], found[2], int(found[3])
    if kind == "norm" and number > 2:
        return ""  # the shortcut's norm, stored again as downsample.1
    if kind == "downsample.":
        return f"{block}.downsample.{number}" if number < 2 else None
    return f"{block}.convnormrelu{number}.{0 if kind == 'conv' else 1}"


def _load(network: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    wanted = network.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        example = f"missing {missing[0]}" if missing else f"unknown {unknown[0]}"
        raise InputError(
            f"{path}: not the weights of {name}: {len(missing)} keys missing, {len(unknown)} "
            f"unknown ({example}); wanted torchvision's or princeton-vl's file"
        )
    for key, value in wanted.items():
        if value.shape != state[key].shape:
            raise InputError(
                f"{path}: {key} has shape {tuple(state[key].shape)}, {name} wants "
                f"{tuple(value.shape)}"
            )
    network.load_state_dict(state)

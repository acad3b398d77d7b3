"""CUDA's rules about devices, kept on a machine without CUDA.

Within `PretendDevice()`, "cuda" is a device like any other: tensors are made on it or moved to it,
compute there (in truth on the CPU, so that values are real), and an operation that mixes them with
tensors of the CPU fails, as does asking one for a numpy array. As with CUDA, numbers (tensors
without dimensions) mix freely, and indices may come from the CPU. What this cannot tell: speed,
memory, rounding, and kernels that CUDA lacks.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
_DEVICE, _SET_DATA = Tensor.device.__get__, Tensor.data.__set__  # pyright: ignore
_TO_NUMPY = ("numpy", "__array__")


class PretendDevice(TorchFunctionMode):
    """moves: how many tensors went from one device to the other, by direction."""

    def __init__(self):
        super().__init__()
        self.moves = {"to cuda": 0, "to cpu": 0}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == _DEVICE:
            return place_of(args[0])
        if func == _SET_DATA:  # how a module's parameters move
            func(*args)
            _placed(args[0], place_of(args[1]))
            return None
        if func is torch._has_compatible_shallow_copy_type:
            return True  # asked by a module that moves: it then sets `data`
        if name in _TO_NUMPY and place_of(args[0]) == CUDA:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, args, kwargs)
        wanted = kwargs.pop("device", None)
        here = self._common_place(func, name, args, kwargs)
        place = here if wanted is None else _full(wanted)
        return _tagged(func(*args, **kwargs), place)

    def _moved(self, name: str, args: Any, kwargs: Any) -> Tensor:
        tensor, *rest = args
        targets = [x for x in (*rest, kwargs.get("device")) if isinstance(x, torch.device | str)]
        targets += [place_of(x) for x in rest if isinstance(x, Tensor)]
        targets += [torch.device(name)] if name != "to" else []
        place = _full(targets[0]) if targets else place_of(tensor)
        if place != place_of(tensor):
            self.moves[f"to {place.type}"] += 1
            tensor = tensor.clone()
        types = [x for x in (*rest, kwargs.get("dtype")) if isinstance(x, torch.dtype)]
        return _placed(tensor.to(types[0]) if types else tensor.view_as(tensor), place)

    def _common_place(self, func: Any, name: str, args: Any, kwargs: Any) -> torch.device:
        tensors = list(_tensors((args, kwargs)))
        if func in _INDEXING:
            indices = [x for x in _tensors(args[1]) if place_of(x) == CUDA and x.dim()]
            if indices and place_of(args[0]) == CPU:
                raise RuntimeError("indices should be either on cpu or on the same device (cpu)")
            tensors = [args[0], *_tensors(args[2:])]
        places = {place_of(x) for x in tensors if x.dim()}
        if len(places) > 1:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        return places.pop() if places else next((place_of(x) for x in tensors if x.dim() == 0), CPU)


def place_of(tensor: Tensor) -> torch.device:
    """Where a tensor pretends to be."""
    return getattr(tensor, "pretended_place", CPU)


def _full(device: torch.device | str) -> torch.device:
    return CUDA if torch.device(device).type == "cuda" else CPU


def _placed(tensor: Tensor, place: torch.device) -> Tensor:
    tensor.pretended_place = place  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


def _tagged(value: Any, place: torch.device) -> Any:
    for tensor in _tensors(value):
        _placed(tensor, place)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))

"""Write small networks as ONNX files, by hand: enough for OpenCV to read, without any package.

An ONNX model is one protobuf message (onnx.proto of the ONNX specification, IR version 8, operator
set 13); the numbers below are its field numbers.
"""

from __future__ import annotations

import numpy as np

Attribute = int | str | list[int]

_ELEMENT_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}


class OnnxGraph:
    """Operators one after another; every value is known by the name that `add` returns."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def constant(self, values: np.ndarray) -> str:
        """A float32 or int64 array that the graph carries."""
        name = f"constant{len(self._constants)}"
        array = np.ascontiguousarray(values)
        parts = [_field(1, size) for size in array.shape]
        parts += [_field(2, _ELEMENT_TYPES[array.dtype]), _field(8, name)]
        self._constants.append(b"".join([*parts, _field(9, array.tobytes())]))
        return name

    def add(self, operator: str, inputs: list[str], **attributes: Attribute) -> str:
        """The output of one operator; an input "" is one left out."""
        name = f"value{len(self._nodes)}"
        parts = [_field(1, value) for value in inputs]
        parts += [_field(2, name), _field(3, name), _field(4, operator)]
        parts += [_field(5, _attribute(*item)) for item in attributes.items()]
        self._nodes.append(b"".join(parts))
        return name

    def convolution(
        self,
        value: str,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int = 1,
        *,
        groups: int = 1,
        pads: tuple[int, int, int, int] | None = None,
    ) -> str:
        """2D convolution, (out, in / groups, k, k) float32 weights.

        pads: zeros above, to the left, below, to the right; None keeps the size at stride 1.
        """
        kernel = weight.shape[-1]
        constants = [self.constant(weight.astype(np.float32)), self.constant(bias)]
        return self.add(
            "Conv",
            [value, *constants],
            kernel_shape=[kernel, kernel],
            pads=list(pads or [kernel // 2] * 4),
            strides=[stride, stride],
            group=groups,
        )

    def model(self, given: tuple[str, list[int]], answer: tuple[str, list[int]]) -> bytes:
        """The whole file; `given` and `answer` are name and shape of the input and the output."""
        graph = [_field(1, node) for node in self._nodes]
        graph += [_field(2, "network"), *(_field(5, constant) for constant in self._constants)]
        graph += [_field(11, _tensor_info(*given)), _field(12, _tensor_info(*answer))]
        operators = _field(1, "") + _field(2, 13)
        return _field(1, 8) + _field(7, b"".join(graph)) + _field(8, operators)


def _tensor_info(name: str, shape: list[int]) -> bytes:
    dimensions = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dimensions)))


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    if isinstance(value, str):
        return _field(1, name) + _field(4, value) + _field(20, 3)
    return b"".join([_field(1, name), *(_field(8, number) for number in value), _field(20, 7)])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    if value < 0:
        raise ValueError(f"value must be >= 0, got {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])

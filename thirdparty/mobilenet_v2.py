"""MobileNetV2 out of a TensorFlow Lite file: the features that the sky network starts from.

The file of the record `mobilenet_v2_ssd` (`weights`) is a detector of things in 300 px pictures,
trained on Open Images V4; its encoder is MobileNetV2 (Sandler et al., arXiv 1801.04381) at width 1.
Only that part is read. Needs the package `tflite`, of the extra `train`; it runs nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlas.errors import InputError


@dataclass(frozen=True)
class FoldedConv:
    """One convolution, the normalisation after it folded in."""

    weight: np.ndarray
    """(out, in / groups, k, k) float32."""
    bias: np.ndarray
    """(out,) float32."""


def read_encoder(path: Path, count: int) -> list[FoldedConv]:
    """The first `count` convolutions of the chain that begins at the picture, in order.

    Input of the first: (B, 3, H, W) RGB in [-1, 1]; after each but a block's last comes ReLU6;
    strides of 2 are padded below and to the right only ("same" on even sides).

    Args:
        path: a .tflite file whose convolutions form one chain with sums of residual blocks.
        count: how many are wanted.
    Raises:
        InputError: no such chain in the file, or no package to read it.
    """
    try:
        import tflite
    except ModuleNotFoundError as err:
        raise InputError(
            "a backbone file needs the package tflite: pip install -e '.[train]'"
        ) from err
    try:
        data = path.read_bytes()
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}); wanted a .tflite file") from err
    if not tflite.Model.ModelBufferHasIdentifier(data, 0):
        raise InputError(f"{path}: not a TensorFlow Lite file")
    try:
        found = _chain(tflite, tflite.Model.GetRootAs(data, 0), count)
    except (struct.error, AttributeError, IndexError, ValueError, TypeError) as err:
        raise InputError(f"{path}: not a whole TensorFlow Lite file ({err})") from err
    if len(found) < count:
        raise InputError(
            f"{path}: a chain of {len(found)} convolutions from the picture on; wanted {count}"
        )
    return found


def _chain(tflite, model, count: int) -> list[FoldedConv]:
    """Follow the picture from operator to operator; what branches off (a predictor) is left out.

    A convolution goes on with the chain where its output has a reader that does too; since
    predictors only end in reshapes, it is enough to leave out those whose output is reshaped.
    """
    graph = model.Subgraphs(0)
    kinds = {value: key for key, value in vars(tflite.BuiltinOperator).items() if key[0] != "_"}
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]

    def kind(operator) -> str:
        code = model.OperatorCodes(operator.OpcodeIndex())
        return kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    source = {op.Outputs(0): op.Inputs(0) for op in operators if kind(op) == "DEQUANTIZE"}
    reshaped = {op.Inputs(0) for op in operators if kind(op) == "RESHAPE"}

    def values(tensor_index: int) -> np.ndarray:
        tensor = graph.Tensors(source.get(tensor_index, tensor_index))
        types = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}
        raw = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        array = np.frombuffer(raw, types[tensor.Type()])
        return array.reshape(tensor.ShapeAsNumpy()).astype(np.float32)

    found: list[FoldedConv] = []
    current = {graph.Inputs(0)}
    for operator in operators:
        name = kind(operator)
        if len(found) == count or operator.Inputs(0) not in current:
            continue
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D") and operator.Outputs(0) not in reshaped:
            weight, bias = (values(operator.Inputs(index)) for index in (1, 2))
            axes = (3, 0, 1, 2) if name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
            found.append(FoldedConv(np.ascontiguousarray(weight.transpose(axes)), bias))
            current = {operator.Outputs(0)}
        elif name == "ADD":
            current = {operator.Outputs(0)}
    return found

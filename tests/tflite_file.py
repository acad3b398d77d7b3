"""Write small TensorFlow Lite files for tests: a chain of convolutions, and what branches off."""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np
import tflite

Operator = tuple[int, Sequence[int], int]
"""Code of `tflite.BuiltinOperator`, tensors that go in, the tensor that comes out."""


def tflite_bytes(
    tensors: list[np.ndarray | tuple[int, ...]], operators: list[Operator], given: int
) -> bytes:
    """A file of these.

    Args:
        tensors: values (float16 or float32), or a shape alone for what is computed.
        operators: see `Operator`.
        given: index of the input tensor.
    """
    builder = flatbuffers.Builder(1024)
    data = [None, *(t.tobytes() for t in tensors if isinstance(t, np.ndarray))]
    buffers = []
    for values in data:
        vector = None if values is None else builder.CreateByteVector(values)
        tflite.BufferStart(builder)
        if vector is not None:
            tflite.BufferAddData(builder, vector)
        buffers.append(tflite.BufferEnd(builder))
    tables, used = [], 0
    for tensor in tensors:
        is_value = isinstance(tensor, np.ndarray)
        used += is_value
        shape = tensor.shape if isinstance(tensor, np.ndarray) else tensor
        half = isinstance(tensor, np.ndarray) and tensor.dtype == np.float16
        shape_vector = _int_vector(builder, shape)
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, shape_vector)
        tflite.TensorAddType(
            builder, tflite.TensorType.FLOAT16 if half else tflite.TensorType.FLOAT32
        )
        tflite.TensorAddBuffer(builder, used if is_value else 0)
        tables.append(tflite.TensorEnd(builder))
    codes = sorted({code for code, _, _ in operators})
    code_tables = []
    for code in codes:
        tflite.OperatorCodeStart(builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
        tflite.OperatorCodeAddBuiltinCode(builder, code)
        code_tables.append(tflite.OperatorCodeEnd(builder))
    operator_tables = []
    for code, inputs, output in operators:
        vectors = _int_vector(builder, inputs), _int_vector(builder, [output])
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, codes.index(code))
        tflite.OperatorAddInputs(builder, vectors[0])
        tflite.OperatorAddOutputs(builder, vectors[1])
        operator_tables.append(tflite.OperatorEnd(builder))
    parts = [_table_vector(builder, part) for part in (tables, operator_tables)]
    inputs = _int_vector(builder, [given])
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, parts[0])
    tflite.SubGraphAddOperators(builder, parts[1])
    tflite.SubGraphAddInputs(builder, inputs)
    graph = tflite.SubGraphEnd(builder)
    parts = [_table_vector(builder, part) for part in (code_tables, [graph], buffers)]
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, parts[0])
    tflite.ModelAddSubgraphs(builder, parts[1])
    tflite.ModelAddBuffers(builder, parts[2])
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def _int_vector(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return builder.CreateNumpyVector(np.array(values, np.int32))


def _table_vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()

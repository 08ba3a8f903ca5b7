"""Compiled models as files, laid out as the official compiler's are.

The official compiler writes what an interpreter holds of a model, so metadata and signatures get
lost. They are kept here, behind the rest; without them the file is byte for byte the official one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import flatbuffers
import numpy as np

from compiler.graph import Graph, Model, Operator, Quantization, Tensor, serialize_model
from compiler.graph.model import Signature
from compiler.package.tables import (
    I8,
    I32,
    OFFSET,
    U8,
    U32,
    Field,
    add_bytes,
    add_integers,
    add_offsets,
    add_table,
    fill_vector,
)

_IDENTIFIER = b"TFL3"
_OPTIONS_ALIGNMENT = 32
"""Packages are aligned in official files since runtime version 14."""
_BUFFER_ALIGNMENT = 16
_NEWEST_OLD_CODE = 127
"""Stands in the old 8-bit field of operator codes above it."""
_LARGEST = 2**31 - 2**26
"""Bytes of constants above which they have to lie behind the flatbuffer."""
_WITHOUT_FIELDS = {"QUANTIZE": "QuantizeOptionsT", "DEQUANTIZE": "DequantizeOptionsT"}
"""Operators whose options have no fields, so that converters leave them out."""


class _ModelSlot(IntEnum):
    VERSION = 0
    OPERATOR_CODES = 1
    SUBGRAPHS = 2
    DESCRIPTION = 3
    BUFFERS = 4
    METADATA_BUFFER = 5
    METADATA = 6
    SIGNATURE_DEFS = 7


class _CodeSlot(IntEnum):
    DEPRECATED_BUILTIN_CODE = 0
    CUSTOM_CODE = 1
    VERSION = 2
    BUILTIN_CODE = 3


class _GraphSlot(IntEnum):
    TENSORS = 0
    INPUTS = 1
    OUTPUTS = 2
    OPERATORS = 3
    NAME = 4


class _TensorSlot(IntEnum):
    SHAPE = 0
    TYPE = 1
    BUFFER = 2
    NAME = 3
    QUANTIZATION = 4


class _QuantizationSlot(IntEnum):
    MIN = 0
    MAX = 1
    SCALE = 2
    ZERO_POINT = 3
    DETAILS_TYPE = 4
    DETAILS = 5
    QUANTIZED_DIMENSION = 6


class _OperatorSlot(IntEnum):
    OPCODE_INDEX = 0
    INPUTS = 1
    OUTPUTS = 2
    BUILTIN_OPTIONS_TYPE = 3
    BUILTIN_OPTIONS = 4
    CUSTOM_OPTIONS = 5


class _BufferSlot(IntEnum):
    DATA = 0


class _MetadataSlot(IntEnum):
    NAME = 0
    BUFFER = 1


class _SignatureSlot(IntEnum):
    INPUTS = 0
    OUTPUTS = 1
    SIGNATURE_KEY = 2
    DEPRECATED_TAG = 3
    SUBGRAPH_INDEX = 4


class _TensorMapSlot(IntEnum):
    NAME = 0
    TENSOR_INDEX = 1


def serialize_compiled(model: Model) -> bytes:
    """Return the bytes of a compiled model.

    Models with content that the official layout has no place for (several graphs, variables, sparse
    tensors, open dimensions, options of newer operators, 2 GB of constants) are written by
    :func:`compiler.graph.serialize_model`; every interpreter reads both alike.
    """
    return _Writer(model).file() if _is_plain(model) else serialize_model(model)


def _is_plain(model: Model) -> bool:
    graph = model.main
    size = sum(t.data.size for t in graph.tensors if t.data is not None) + sum(
        op.custom_options.size for op in graph.operators if op.custom_options is not None)
    return (len(model.graphs) == 1 and size < _LARGEST and all(map(_is_plain_tensor, graph.tensors))
            and all(map(_is_plain_operator, graph.operators)))


def _is_plain_tensor(tensor: Tensor) -> bool:
    raw = tensor.raw
    newer = raw is not None and (raw.sparsity is not None or getattr(raw, "variantTensors", None) is not None)
    return not (tensor.is_variable or newer or tensor.signature)


def _is_plain_operator(op: Operator) -> bool:
    newer = op.raw is not None and getattr(op.raw, "builtinOptions2", None) is not None
    return not (newer or op.mutating or op.intermediates)


class _Writer:
    """Writes one model; parts are added in the official order, so that they lie in it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.b: Any = flatbuffers.Builder(1 << 16)
        self.buffers: list[Any] = [np.zeros(0, np.uint8)]
        self.codes: list[tuple[int, str, int]] = []

    def file(self) -> bytes:
        b, slot, model = self.b, _ModelSlot, self.model
        graph = self.graph(model.main)
        metadata = [(name, self.buffer(data)) for name, data in model.metadata]
        buffers = add_offsets(b, [self.buffer_table(data) for data in self.buffers])
        description = b.CreateString(model.description)
        codes = add_offsets(b, [self.code_table(*code) for code in self.codes])
        graphs = add_offsets(b, [graph])
        entries = add_offsets(b, [self.metadata(*entry) for entry in metadata]) if metadata else None
        signatures = add_offsets(b, [self.signature(s) for s in model.signatures]) if model.signatures else None
        b.Finish(add_table(b, slot, [
            (slot.VERSION, U32, model.version, 0),
            (slot.OPERATOR_CODES, OFFSET, codes, None),
            (slot.SUBGRAPHS, OFFSET, graphs, None),
            (slot.DESCRIPTION, OFFSET, description, None),
            (slot.BUFFERS, OFFSET, buffers, None),
            (slot.METADATA, OFFSET, entries, None),
            (slot.SIGNATURE_DEFS, OFFSET, signatures, None),
        ]), _IDENTIFIER)
        return bytes(b.Output())

    def graph(self, graph: Graph) -> int:
        b, slot = self.b, _GraphSlot
        tensors = add_offsets(b, [self.tensor(t) for t in graph.tensors])
        inputs = add_integers(b, graph.inputs)
        outputs = add_integers(b, graph.outputs)
        operators = add_offsets(b, [self.operator(op) for op in graph.operators])
        name = b.CreateString(graph.name) if graph.name else None
        return add_table(b, slot, [
            (slot.TENSORS, OFFSET, tensors, None),
            (slot.INPUTS, OFFSET, inputs, None),
            (slot.OUTPUTS, OFFSET, outputs, None),
            (slot.OPERATORS, OFFSET, operators, None),
            (slot.NAME, OFFSET, name, None),
        ])

    def tensor(self, tensor: Tensor) -> int:
        b, slot = self.b, _TensorSlot
        buffer = 0 if tensor.data is None else self.buffer(tensor.data)
        quantization = None if tensor.quantization is None else self.quantization(tensor.quantization)
        name = b.CreateString(tensor.name)
        shape = add_integers(b, tensor.shape)
        return add_table(b, slot, [
            (slot.SHAPE, OFFSET, shape, None),
            (slot.TYPE, I8, int(tensor.type), 0),
            (slot.BUFFER, U32, buffer, 0),
            (slot.NAME, OFFSET, name, None),
            (slot.QUANTIZATION, OFFSET, quantization, None),
        ])

    def quantization(self, quantization: Quantization) -> int:
        slot = _QuantizationSlot
        scale = self.numbers(quantization.scales.astype("<f4"))
        zero_point = self.numbers(quantization.zero_points.astype("<i8"))
        return add_table(self.b, slot, [
            (slot.SCALE, OFFSET, scale, None),
            (slot.ZERO_POINT, OFFSET, zero_point, None),
            (slot.QUANTIZED_DIMENSION, I32, quantization.axis, 0),
        ])

    def numbers(self, values: Any) -> int:
        self.b.StartVector(values.itemsize, values.size, values.itemsize)
        return fill_vector(self.b, values.tobytes(), values.size)

    def operator(self, op: Operator) -> int:
        b, slot = self.b, _OperatorSlot
        options = _options_of(op)
        packed = None if options is None else options.Pack(b)
        custom = None if op.custom_options is None else add_bytes(b, op.custom_options, _OPTIONS_ALIGNMENT)
        inputs = add_integers(b, op.inputs)
        outputs = add_integers(b, op.outputs)
        return add_table(b, slot, [
            (slot.OPCODE_INDEX, U32, self.code(op), 0),
            (slot.INPUTS, OFFSET, inputs, None),
            (slot.OUTPUTS, OFFSET, outputs, None),
            (slot.BUILTIN_OPTIONS_TYPE, U8, _options_kind(options), 0),
            (slot.BUILTIN_OPTIONS, OFFSET, packed, None),
            (slot.CUSTOM_OPTIONS, OFFSET, custom, None),
        ])

    def code(self, op: Operator) -> int:
        """Return the number of an operator code; codes are numbered as they come."""
        code = (op.code, op.custom_name, op.version)
        if code not in self.codes:
            self.codes.append(code)
        return self.codes.index(code)

    def code_table(self, number: int, custom_name: str, version: int) -> int:
        slot = _CodeSlot
        name = self.b.CreateString(custom_name) if custom_name else None
        return add_table(self.b, slot, [
            (slot.DEPRECATED_BUILTIN_CODE, I8, min(number, _NEWEST_OLD_CODE), 0),
            (slot.CUSTOM_CODE, OFFSET, name, None),
            (slot.VERSION, I32, version, 1),
            (slot.BUILTIN_CODE, I32, number, 0),
        ])

    def buffer(self, data: Any) -> int:
        """Return the number of a new buffer."""
        self.buffers.append(data)
        return len(self.buffers) - 1

    def buffer_table(self, data: Any) -> int:
        vector = add_bytes(self.b, data, _BUFFER_ALIGNMENT if data.size else 1)
        return add_table(self.b, _BufferSlot, [(_BufferSlot.DATA, OFFSET, vector, None)])

    def metadata(self, name: str, buffer: int) -> int:
        slot = _MetadataSlot
        text = self.b.CreateString(name)
        return add_table(self.b, slot, [(slot.NAME, OFFSET, text, None), (slot.BUFFER, U32, buffer, 0)])

    def signature(self, signature: Signature) -> int:
        b, slot = self.b, _SignatureSlot
        inputs, outputs = self.tensor_maps(signature.inputs), self.tensor_maps(signature.outputs)
        key = b.CreateString(signature.key)
        fields: list[Field] = [(slot.INPUTS, OFFSET, inputs, None), (slot.OUTPUTS, OFFSET, outputs, None),
                               (slot.SIGNATURE_KEY, OFFSET, key, None), (slot.SUBGRAPH_INDEX, U32, signature.graph, 0)]
        return add_table(b, slot, fields)

    def tensor_maps(self, pairs: Sequence[tuple[str, int]]) -> int:
        slot, tables = _TensorMapSlot, []
        for name, index in pairs:
            text = self.b.CreateString(name)
            tables.append(add_table(self.b, slot, [(slot.NAME, OFFSET, text, None), (slot.TENSOR_INDEX, U32, index, 0)]))
        return add_offsets(self.b, tables)


def _options_of(op: Operator) -> Any:
    """Return the options of an operator; official files state them even where they have no fields."""
    if op.options is not None or op.name not in _WITHOUT_FIELDS:
        return op.options
    import ai_edge_litert.schema_py_generated as schema

    return getattr(schema, _WITHOUT_FIELDS[op.name])()


def _options_kind(options: Any) -> int:
    """Return the number of options in their union."""
    if options is None:
        return 0
    from ai_edge_litert.schema_py_generated import BuiltinOptions

    return int(getattr(BuiltinOptions, type(options).__name__.removesuffix("T")))

"""Immutable graphs to TensorFlow Lite files."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import EtpuError
from compiler.graph.model import Graph, Model, Operator, Tensor

BUFFER_ALIGNMENT = 16
"""Interpreters read constants in place and want them aligned."""


def serialize_model(model: Model) -> bytes:
    """Return the bytes of a TensorFlow Lite file.

    What the model was read from is kept table by table; tensors, operators and constants are
    those of the graphs.
    """
    raw = _Writer(model).model()
    builder = _aligned_builder()
    builder.Finish(raw.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_model(model: Model, path: str | Path) -> int:
    """Write a TensorFlow Lite file; returns its size.

    The file appears under its name only when it is complete.

    Raises
    ------
    EtpuError
        When it cannot be written.
    """
    data = serialize_model(model)
    write_file(path, data)
    return len(data)


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Raises
    ------
    EtpuError
        When it cannot be written; nothing is left behind.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise EtpuError(f"{path}: cannot be written: {error.strerror}.",
                        advice="Choose a folder that exists and that you may write to.") from error


def _aligned_builder() -> Any:
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
        """Aligns vectors of bytes, which the format demands and the Python bindings forget."""

        head: int

        def CreateNumpyVector(self, x: Any) -> Any:  # noqa: N802 - the library's name
            if x.dtype.itemsize != 1:
                return super().CreateNumpyVector(x)
            self.StartVector(1, x.size, BUFFER_ALIGNMENT)
            self.head -= x.size
            self.Bytes[self.head:self.head + x.size] = x.tobytes()
            self.vectorNumElems = x.size
            return self.EndVector()

    return AlignedBuilder(1 << 16)


class _Writer:
    """Collects operator codes and buffers while the graphs become schema objects."""

    def __init__(self, model: Model) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.schema = schema
        self.source = model
        self.codes: dict[tuple[int, str, int], int] = {}
        self.buffers: list[Any] = [schema.BufferT()]
        self.shared: dict[int, int] = {}

    def model(self) -> Any:
        raw = copy.copy(self.source.raw) if self.source.raw is not None else self.schema.ModelT()
        raw.version = self.source.version
        raw.description = self.source.description or None
        raw.subgraphs = [self.graph(g) for g in self.source.graphs]
        raw.metadata = [self.metadata(i, name, blob) for i, (name, blob) in enumerate(self.source.metadata)] or None
        if raw.metadataBuffer is not None:
            raw.metadataBuffer = np.asarray([m.buffer for m in raw.metadata or ()], np.int32)
        raw.operatorCodes = [self.code(*key) for key in self.codes]
        raw.buffers = self.buffers
        return raw

    def metadata(self, _: int, name: str, blob: Any) -> Any:
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, self.buffer(blob)
        return entry

    def code(self, number: int, custom: str, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        code.customCode = custom or None
        code.version = version
        return code

    def buffer(self, data: Any) -> int:
        if data is None:
            return 0
        key = data.__array_interface__["data"][0] if data.size else 0
        if key and key in self.shared and self.buffers[self.shared[key]].data.size == data.size:
            return self.shared[key]
        entry = self.schema.BufferT()
        entry.data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        self.buffers.append(entry)
        self.shared[key] = len(self.buffers) - 1
        return self.shared[key]

    def graph(self, graph: Graph) -> Any:
        raw = copy.copy(graph.raw) if graph.raw is not None else self.schema.SubGraphT()
        raw.name = graph.name or None
        raw.tensors = [self.tensor(t) for t in graph.tensors]
        raw.operators = [self.operator(op) for op in graph.operators]
        raw.inputs = np.asarray(graph.inputs, np.int32)
        raw.outputs = np.asarray(graph.outputs, np.int32)
        return raw

    def tensor(self, tensor: Tensor) -> Any:
        raw = copy.copy(tensor.raw) if tensor.raw is not None else self.schema.TensorT()
        raw.name = tensor.name
        raw.shape = np.asarray(tensor.shape, np.int32)
        raw.shapeSignature = np.asarray(tensor.signature, np.int32) if tensor.signature else raw.shapeSignature
        raw.type = int(tensor.type)
        raw.isVariable = tensor.is_variable
        raw.buffer = self.buffer(tensor.data)
        if raw.quantization is None and tensor.quantization is not None:
            raw.quantization = self.schema.QuantizationParametersT()
        if tensor.quantization is not None:
            raw.quantization = copy.copy(raw.quantization)
            raw.quantization.scale = tensor.quantization.scales
            raw.quantization.zeroPoint = tensor.quantization.zero_points
            raw.quantization.quantizedDimension = tensor.quantization.axis
        return raw

    def operator(self, op: Operator) -> Any:
        raw = copy.copy(op.raw) if op.raw is not None else self.schema.OperatorT()
        key = (op.code, op.custom_name, op.version)
        raw.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        raw.inputs = np.asarray(op.inputs, np.int32)
        raw.outputs = np.asarray(op.outputs, np.int32)
        raw.customOptions = op.custom_options
        raw.largeCustomOptionsOffset = raw.largeCustomOptionsSize = 0
        if op.raw is None and op.options is not None:
            raw.builtinOptions = op.options
            raw.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(op.options).__name__[:-1])
        return raw

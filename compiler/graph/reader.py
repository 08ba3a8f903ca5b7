"""TensorFlow Lite files to immutable graphs."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import InvalidModelError
from compiler.graph.model import Graph, Model, Operator, Quantization, Tensor, TensorType

IDENTIFIER = b"TFL3"
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError,
           RecursionError)
"""What the flatbuffers bindings raise on damaged files."""
_ADVICE = "Export the model again from TensorFlow (converter output is a .tflite file of schema version 3)."


def read_model(path: str | Path) -> Model:
    """Read a TensorFlow Lite file.

    The file is mapped, not copied: constants are views into it.

    Raises
    ------
    InvalidModelError
        When there is no such file, or it is no intact model. The message names the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read: {error.strerror}.",
                                advice="Check the path of the model.") from error
    except ValueError as error:
        raise InvalidModelError(f"{path}: cannot be mapped: {error}.") from error
    return parse_model(data, str(path))


def parse_model(data: bytes | mmap.mmap | memoryview, source: str = "model") -> Model:
    """Parse the bytes of a TensorFlow Lite file.

    Parameters
    ----------
    data:
        The file.
    source:
        Its name, for messages.

    Raises
    ------
    InvalidModelError
        When the bytes are no intact model.
    """
    _check_header(data, source)
    import ai_edge_litert.schema_py_generated as schema

    try:
        raw = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        return _Reader(raw, data, source).model()
    except InvalidModelError:
        raise
    except _DAMAGE as error:
        raise InvalidModelError(f"{source}: is damaged or truncated: {error}.", advice=_ADVICE) from error


def _check_header(data: bytes | mmap.mmap | memoryview, source: str) -> None:
    if len(data) == 0:
        raise InvalidModelError(f"{source}: is empty.", advice=_ADVICE)
    if len(data) < 16 or data[4:8] != IDENTIFIER:
        raise InvalidModelError(f"{source}: is not a TensorFlow Lite model (the identifier TFL3 is missing).",
                                advice=_ADVICE)


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _ints(value: Any) -> tuple[int, ...]:
    return () if value is None else tuple(int(v) for v in value)


class _Reader:
    """Turns the schema objects of one file into graphs, checking every index."""

    def __init__(self, raw: Any, data: bytes | mmap.mmap | memoryview, source: str) -> None:
        self.raw = raw
        self.data = data
        self.source = source
        self.names = _operator_names()

    def model(self) -> Model:
        raw = self.raw
        if raw.version != 3:
            raise InvalidModelError(f"{self.source}: has schema version {raw.version}, only version 3 is known.",
                                    advice=_ADVICE)
        if not raw.subgraphs:
            raise InvalidModelError(f"{self.source}: holds no subgraph.", advice=_ADVICE)
        metadata = tuple((_text(m.name), self.buffer(m.buffer, "metadata")) for m in raw.metadata or ())
        return Model(
            graphs=tuple(self.graph(g) for g in raw.subgraphs),
            description=_text(raw.description),
            version=raw.version,
            metadata=tuple((name, blob if blob is not None else np.zeros(0, np.uint8)) for name, blob in metadata),
            source=self.source,
            size=len(self.data),
            raw=raw,
        )

    def graph(self, raw: Any) -> Graph:
        tensors = tuple(self.tensor(i, t) for i, t in enumerate(raw.tensors or ()))
        graph = Graph(
            name=_text(raw.name),
            tensors=tensors,
            operators=tuple(self.operator(i, op) for i, op in enumerate(raw.operators or ())),
            inputs=_ints(raw.inputs),
            outputs=_ints(raw.outputs),
            raw=raw,
        )
        self.check_indices(graph)
        return graph

    def check_indices(self, graph: Graph) -> None:
        uses = [("graph input", graph.inputs), ("graph output", graph.outputs)]
        uses += [(op.title, (*op.inputs, *op.outputs)) for op in graph.operators]
        for what, indices in uses:
            for t in indices:
                if not -1 <= t < len(graph.tensors):
                    raise InvalidModelError(f"{self.source}: {what} refers to tensor {t}, the graph has "
                                            f"{len(graph.tensors)}.", advice=_ADVICE)

    def tensor(self, index: int, raw: Any) -> Tensor:
        name, shape, kind = _text(raw.name), _ints(raw.shape), TensorType(raw.type)
        data = self.buffer(raw.buffer, f"tensor {name}")
        size = int(np.prod(shape, dtype=np.int64))
        if data is not None and kind.numpy is not None and data.size != size * kind.numpy.itemsize:
            raise InvalidModelError(f"{self.source}: tensor {name} has {data.size} bytes of data, its shape "
                                    f"{list(shape)} needs {size * kind.numpy.itemsize}.", advice=_ADVICE)
        return Tensor(index, name, shape, kind, self.quantization(raw.quantization, name), data,
                      _ints(raw.shapeSignature), bool(raw.isVariable), raw)

    def quantization(self, raw: Any, name: str) -> Quantization | None:
        if raw is None or raw.scale is None or len(raw.scale) == 0:
            return None
        scales = np.asarray(raw.scale, np.float32)
        points = np.zeros(scales.size, np.int64) if raw.zeroPoint is None else np.asarray(raw.zeroPoint, np.int64)
        if points.size == 1 < scales.size:
            points = np.repeat(points, scales.size)
        if points.size != scales.size:
            raise InvalidModelError(f"{self.source}: tensor {name} has {scales.size} scales but {points.size} "
                                    "zero points.", advice=_ADVICE)
        return Quantization(scales, points, int(raw.quantizedDimension))

    def operator(self, index: int, raw: Any) -> Operator:
        codes = self.raw.operatorCodes or ()
        if not 0 <= raw.opcodeIndex < len(codes):
            raise InvalidModelError(f"{self.source}: operator {index} refers to operator code {raw.opcodeIndex}, the "
                                    f"model has {len(codes)}.", advice=_ADVICE)
        code = codes[raw.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        options = raw.builtinOptions if raw.builtinOptions is not None else raw.builtinOptions2
        return Operator(
            index=index,
            name=self.names.get(number, f"BUILTIN_{number}"),
            inputs=_ints(raw.inputs),
            outputs=_ints(raw.outputs),
            options=options,
            custom_name=_text(code.customCode),
            custom_options=self.custom_options(raw),
            version=code.version,
            code=number,
            raw=raw,
        )

    def custom_options(self, raw: Any) -> npt.NDArray[np.uint8] | None:
        if raw.largeCustomOptionsOffset > 1:
            return self.slice(raw.largeCustomOptionsOffset, raw.largeCustomOptionsSize, "custom options")
        return None if raw.customOptions is None else np.asarray(raw.customOptions, np.uint8)

    def buffer(self, index: int, what: str) -> npt.NDArray[np.uint8] | None:
        buffers = self.raw.buffers or ()
        if not 0 <= index < max(len(buffers), 1):
            raise InvalidModelError(f"{self.source}: {what} refers to buffer {index}, the model has {len(buffers)}.",
                                    advice=_ADVICE)
        if index >= len(buffers):
            return None
        buffer = buffers[index]
        if buffer.offset > 1:
            return self.slice(buffer.offset, buffer.size, what)
        if buffer.data is None or isinstance(buffer.data, int) or len(buffer.data) == 0:
            return None
        return np.asarray(buffer.data, np.uint8)

    def slice(self, offset: int, size: int, what: str) -> npt.NDArray[np.uint8]:
        if offset + size > len(self.data):
            raise InvalidModelError(f"{self.source}: is truncated: {what} lies beyond its end.", advice=_ADVICE)
        return np.frombuffer(self.data, np.uint8, size, offset)


def _operator_names() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {v: k for k, v in vars(BuiltinOperator).items() if isinstance(v, int)}

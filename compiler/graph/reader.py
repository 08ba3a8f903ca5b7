"""TensorFlow Lite files to immutable graphs."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import InvalidModelError
from compiler.graph.model import Graph, Model, Operator, Quantization, Signature, Tensor, TensorType
from compiler.graph.unpacking import names_of, unpack_model

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
OMITTED = -1
"""Tensor index of an optional operand that is left out."""
_BEHIND = 1
"""Offsets above this one address data behind the flatbuffer; 0 and 1 mean there is none."""
_ADVICE = "Export the model again from TensorFlow (converter output is a .tflite file of schema version 3)."


def read_model(path: str | Path) -> Model:
    """Read a TensorFlow Lite file.

    Constants are views into the one copy of the file in memory.

    Raises
    ------
    InvalidModelError
        When there is no such file, or it is no intact model. The message names the file.
    """
    path = Path(path)
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise InvalidModelError(f"{path}: is not a file.", advice="Give the path of a .tflite file.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidModelError(f"{path}: no such file.", advice="Check the path of the model.") from error
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read: {error.strerror or error}.",
                                advice="Check the path of the model and its permissions.") from error
    except ValueError as error:
        raise InvalidModelError(f"{path}: is no path: {error}.", advice="Check the path of the model.") from error
    except MemoryError as error:
        raise InvalidModelError(f"{path}: does not fit into memory.", advice="Free memory.") from error
    return parse_model(data, str(path))


def parse_model(data: bytes | memoryview, source: str = "model") -> Model:
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
    return _Reader(unpack_model(data, source), data, source).model()


def text(value: bytes | str | None) -> str:
    """Return a string of the file as text; bytes that are no UTF-8 become replacement marks."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def quantization_of(raw: Any) -> Quantization | None:
    """Return the affine quantization in a schema object, None when it has no scales.

    Raises
    ------
    ValueError
        When there are as many zero points as neither one nor the scales.
    """
    if raw is None or raw.scale is None or len(raw.scale) == 0:
        return None
    scales = np.asarray(raw.scale, np.float32)
    points = np.zeros(1, np.int64) if raw.zeroPoint is None or len(raw.zeroPoint) == 0 else raw.zeroPoint
    points = np.asarray(points, np.int64)
    if points.size == 1 < scales.size:
        points = np.repeat(points, scales.size)
    if points.size != scales.size:
        raise ValueError(f"has {scales.size} scales but {points.size} zero points")
    return Quantization(scales, points, int(raw.quantizedDimension), _floats(raw.min), _floats(raw.max))


def signature_of(raw: Any) -> Signature:
    """Return a signature definition in a schema object."""
    def pairs(maps: Any) -> tuple[tuple[str, int], ...]:
        return tuple((text(m.name), int(m.tensorIndex)) for m in maps or ())

    return Signature(text(raw.signatureKey), pairs(raw.inputs), pairs(raw.outputs), int(raw.subgraphIndex))


def code_number(code: Any) -> int:
    """Return the builtin operator of an operator code: files before 2020 use the 8-bit field only."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _check_header(data: bytes | memoryview, source: str) -> None:
    if len(data) == 0:
        raise InvalidModelError(f"{source}: is empty.", advice=_ADVICE)
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise InvalidModelError(f"{source}: is not a TensorFlow Lite model (the identifier TFL3 is missing).",
                                advice=_ADVICE)


def _ints(value: Any) -> tuple[int, ...]:
    return () if value is None else tuple(np.asarray(value).tolist())


def _floats(value: Any) -> npt.NDArray[np.float32]:
    return np.zeros(0, np.float32) if value is None else np.asarray(value, np.float32)


class _Reader:
    """Turns the schema objects of one file into graphs, checking every index."""

    def __init__(self, raw: Any, data: bytes | memoryview, source: str) -> None:
        self.raw = raw
        self.data = data
        self.source = source
        self.names, self.options, self.options2 = map(names_of, ("BuiltinOperator", "BuiltinOptions", "BuiltinOptions2"))

    def error(self, what: str) -> InvalidModelError:
        # Names of the file may hold anything; a message is one line.
        line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in what)
        return InvalidModelError(f"{self.source}: {line}.", advice=_ADVICE)

    def model(self) -> Model:
        raw = self.raw
        if raw.version != SCHEMA_VERSION:
            raise self.error(f"has schema version {raw.version}, only version {SCHEMA_VERSION} is known")
        if not raw.subgraphs:
            raise self.error("holds no subgraph")
        for i, buffer in enumerate(raw.buffers or ()):
            if buffer.offset > _BEHIND:
                buffer.data = self.slice(buffer.offset, buffer.size, f"buffer {i}")
        for index in _ints(raw.metadataBuffer):
            self.buffer(index, "the list of metadata")
        model = Model(
            graphs=tuple(self.graph(g) for g in raw.subgraphs),
            description=text(raw.description),
            version=raw.version,
            metadata=tuple((text(m.name), self.metadata(m)) for m in raw.metadata or ()),
            source=self.source,
            size=len(self.data),
            raw=raw,
            signatures=tuple(signature_of(s) for s in raw.signatureDefs or ()),
            constants_behind=any(b.offset > _BEHIND for b in raw.buffers or ()),
        )
        self.check_signatures(model)
        return model

    def metadata(self, raw: Any) -> npt.NDArray[np.uint8]:
        blob = self.buffer(raw.buffer, f"metadata {text(raw.name)}")
        return np.zeros(0, np.uint8) if blob is None else blob

    def check_signatures(self, model: Model) -> None:
        for signature in model.signatures:
            if signature.graph >= len(model.graphs):
                raise self.error(f"signature {signature.key} refers to subgraph {signature.graph}, the model has "
                                 f"{len(model.graphs)}")
            indices = [t for _, t in (*signature.inputs, *signature.outputs)]
            self.check_tensors(f"signature {signature.key}", indices, len(model.graphs[signature.graph].tensors))

    def graph(self, raw: Any) -> Graph:
        graph = Graph(
            name=text(raw.name),
            tensors=tuple(self.tensor(i, t) for i, t in enumerate(raw.tensors or ())),
            operators=tuple(self.operator(i, op) for i, op in enumerate(raw.operators or ())),
            inputs=_ints(raw.inputs),
            outputs=_ints(raw.outputs),
            raw=raw,
        )
        count = len(graph.tensors)
        self.check_tensors("graph input", graph.inputs, count)
        self.check_tensors("graph output", graph.outputs, count)
        for op in graph.operators:
            self.check_tensors(op.title, op.outputs, count)
            self.check_tensors(op.title, (*op.inputs, *op.intermediates), count, lowest=OMITTED)
        return graph

    def check_tensors(self, what: str, indices: tuple[int, ...] | list[int], count: int, *, lowest: int = 0) -> None:
        for t in indices:
            if not lowest <= t < count:
                raise self.error(f"{what} refers to tensor {t}, the graph has {count}")

    def tensor(self, index: int, raw: Any) -> Tensor:
        name = text(raw.name) or f"number {index}"
        try:
            kind = TensorType(raw.type)
            quantization = quantization_of(raw.quantization)
        except ValueError as error:
            raise self.error(f"tensor {name}: {error}") from error
        tensor = Tensor(index, text(raw.name), _ints(raw.shape), kind, quantization,
                        self.buffer(raw.buffer, f"tensor {name}"), _ints(raw.shapeSignature), bool(raw.isVariable), raw)
        self.check_data(tensor, name)
        return tensor

    def check_data(self, tensor: Tensor, name: str) -> None:
        if any(d < -1 for d in (*tensor.shape, *tensor.signature)):
            raise self.error(f"tensor {name} has the shape {list(tensor.shape)}")
        bits = tensor.type.bits
        if tensor.data is None or bits is None or tensor.raw.sparsity is not None:
            return
        needed = -(-tensor.elements * bits // 8)
        if tensor.data.size != needed:
            raise self.error(f"tensor {name} has {tensor.data.size} bytes of data, its shape {list(tensor.shape)} "
                             f"needs {needed}")

    def operator(self, index: int, raw: Any) -> Operator:
        codes = self.raw.operatorCodes or ()
        if raw.opcodeIndex >= len(codes):
            raise self.error(f"operator {index} refers to operator code {raw.opcodeIndex}, the model has {len(codes)}")
        if raw.builtinOptionsType not in self.options or raw.builtinOptions2Type not in self.options2:
            raise self.error(f"operator {index} has options of a kind that is newer than the known schema")
        code = codes[raw.opcodeIndex]
        number = code_number(code)
        return Operator(
            index=index,
            name=self.names.get(number, f"BUILTIN_{number}"),
            inputs=_ints(raw.inputs),
            outputs=_ints(raw.outputs),
            options=raw.builtinOptions if raw.builtinOptions is not None else raw.builtinOptions2,
            custom_name=text(code.customCode),
            custom_options=self.custom_options(index, raw),
            version=code.version,
            code=number,
            raw=raw,
            intermediates=_ints(raw.intermediates),
            mutating=tuple(bool(v) for v in _ints(raw.mutatingVariableInputs)),
        )

    def custom_options(self, index: int, raw: Any) -> npt.NDArray[np.uint8] | None:
        if raw.largeCustomOptionsOffset > _BEHIND:
            raw.customOptions = self.slice(raw.largeCustomOptionsOffset, raw.largeCustomOptionsSize,
                                           f"the options of operator {index}")
        return None if raw.customOptions is None else np.asarray(raw.customOptions, np.uint8)

    def buffer(self, index: int, what: str) -> npt.NDArray[np.uint8] | None:
        buffers = self.raw.buffers or ()
        if index and not 0 <= index < len(buffers):
            raise self.error(f"{what} refers to buffer {index}, the model has {len(buffers)}")
        data = buffers[index].data if buffers else None
        return None if data is None or len(data) == 0 else np.asarray(data, np.uint8)

    def slice(self, offset: int, size: int, what: str) -> npt.NDArray[np.uint8]:
        if offset + size > len(self.data):
            raise self.error(f"is truncated: {what} ends at byte {offset + size}, the file has {len(self.data)}")
        return np.frombuffer(self.data, np.uint8, size, offset)

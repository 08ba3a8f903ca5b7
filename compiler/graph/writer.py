"""Immutable graphs to TensorFlow Lite files."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import EtpuError
from compiler.graph.model import Graph, Model, Operator, Quantization, Signature, Tensor
from compiler.graph.reader import IDENTIFIER, code_number, quantization_of, signature_of, text

BUFFER_ALIGNMENT = 16
"""Interpreters read constants in place and want them aligned."""
_FLATBUFFER_LIMIT = 2**31
"""Offsets inside a flatbuffer are signed 32-bit numbers."""
_ROOM = 1 << 26
"""What a flatbuffer may hold besides constants before they move behind it."""
_BYTES_PER_TABLE = 256
_NEW_DEPRECATED_CODE = 127
"""Operator numbers above this one do not fit the old 8-bit field."""
_PLACEHOLDER = 1
Blob = npt.NDArray[np.uint8]


def serialize_model(model: Model) -> bytes:
    """Return the bytes of a TensorFlow Lite file.

    What the model was read from is kept table by table; tensors, operators and constants are
    those of the graphs. Constants and operator codes that nothing refers to any more are left
    out.
    """
    return b"".join(_pieces(model))


def write_model(model: Model, path: str | Path) -> int:
    """Write a TensorFlow Lite file; returns its size.

    The file appears under its name only when it is complete.

    Raises
    ------
    EtpuError
        When it cannot be written.
    """
    pieces = tuple(_pieces(model))
    _write_pieces(Path(path), pieces)
    return sum(piece.nbytes for piece in pieces)


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Raises
    ------
    EtpuError
        When it cannot be written; nothing is left behind.
    """
    _write_pieces(Path(path), (memoryview(data),))


def _write_pieces(path: Path, pieces: Iterable[memoryview]) -> None:
    part = path.parent / f".{path.name[:200]}.{os.urandom(6).hex()}.part"
    try:
        with part.open("xb") as file:
            file.writelines(pieces)
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise EtpuError(f"{path}: cannot be written: {error.strerror or error}.",
                        advice="Choose a folder that exists and that you may write to.") from error


def _pieces(model: Model) -> Iterator[memoryview]:
    """Yield the file: the flatbuffer, then the constants that lie behind it."""
    writer = _Writer(model)
    raw = writer.model()
    flatbuffer = _pack(raw, writer.inline_bytes, writer.tables)
    if not writer.behind:
        yield flatbuffer
        return
    # Positions have a fixed width, so the flatbuffer keeps its size when they are filled in.
    positions, end = [], flatbuffer.nbytes
    for place, blob in writer.behind:
        positions.append(_aligned(end))
        place(positions[-1], blob.size)
        end = positions[-1] + blob.size
    flatbuffer = _pack(raw, writer.inline_bytes, writer.tables)
    yield flatbuffer
    end = flatbuffer.nbytes
    for position, (_, blob) in zip(positions, writer.behind, strict=True):
        yield memoryview(bytes(position - end))
        yield blob.data
        end = position + blob.size


def _aligned(position: int) -> int:
    return -(-position // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT


def _pack(raw: Any, inline_bytes: int, tables: int) -> memoryview:
    # Large enough from the start: growing doubles and copies.
    size = inline_bytes + _BYTES_PER_TABLE * (tables + 16)
    builder = _aligned_builder(min(size, _FLATBUFFER_LIMIT))
    builder.Finish(raw.Pack(builder), IDENTIFIER)
    return memoryview(builder.Bytes)[builder.head:]


def _aligned_builder(size: int) -> Any:
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
        """Aligns vectors of bytes, which the format demands and the Python bindings forget."""

        def CreateNumpyVector(self, x: Any) -> Any:  # noqa: N802 - the library's name
            if x.dtype.itemsize != 1:
                return super().CreateNumpyVector(x)
            self.StartVector(1, x.size, BUFFER_ALIGNMENT)
            self.head -= x.size
            np.frombuffer(self.Bytes, np.uint8, x.size, self.head)[:] = x.view(np.uint8)
            self.vectorNumElems = x.size
            return self.EndVector()

    return AlignedBuilder(size)


class _Writer:
    """Collects operator codes and buffers while the graphs become schema objects.

    Buffers and operator codes keep their number as far as possible: those of the file first,
    in its order, without the ones that a pass made superfluous; then new ones.
    """

    def __init__(self, model: Model) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.schema = schema
        self.source = model
        self.raw = copy.copy(model.raw) if model.raw is not None else schema.ModelT()
        self.codes = _Numbered(self.raw.operatorCodes or [], _used_codes(self.raw))
        self.buffers = _Numbered(self.raw.buffers or [schema.BufferT()], _used_buffers(self.raw) - {0})
        self.code_index = {_code_key(code): i for i, code in reversed(list(enumerate(self.codes.items)))}
        self.shared: dict[tuple[int, int], int] = {}
        self.behind: list[tuple[Callable[[int, int], None], Blob]] = []
        self.inline_bytes = 0
        self.tables = 0

    def model(self) -> Any:
        raw, model = self.raw, self.source
        raw.version = model.version
        raw.description = _string(model.description, raw.description)
        raw.metadata = self.metadata()
        raw.subgraphs = [self.graph(g) for g in model.graphs]
        raw.signatureDefs = self.signatures()
        raw.operatorCodes = self.operator_codes()
        raw.buffers = self.buffer_tables()
        self.tables = len(raw.operatorCodes) + len(raw.buffers) + sum(
            2 * len(g.tensors) + 2 * len(g.operators) for g in raw.subgraphs)
        return raw

    # -- operator codes -----------------------------------------------------------------------

    def code(self, op: Operator) -> int:
        key = (op.code, op.custom_name, op.version)
        if op.raw is not None and op.raw.opcodeIndex < len(self.codes.items):
            index: int = op.raw.opcodeIndex
            if _code_key(self.codes.items[index]) == key:
                return self.codes.use(index)
        if key not in self.code_index:
            self.code_index[key] = self.codes.add(_filled(
                self.schema.OperatorCodeT(), builtinCode=op.code, version=op.version,
                deprecatedBuiltinCode=min(op.code, _NEW_DEPRECATED_CODE), customCode=op.custom_name or None))
        return self.codes.use(self.code_index[key])

    def operator_codes(self) -> list[Any]:
        numbers, kept = self.codes.result()
        for graph in self.raw.subgraphs:
            for op in graph.operators:
                op.opcodeIndex = numbers[op.opcodeIndex]
        return kept

    # -- buffers ------------------------------------------------------------------------------

    def buffer(self, data: Blob | None, before: int) -> int:
        """Return the number of a buffer with the data; `before` is the number in the file."""
        if before < len(self.buffers.items) and _same_memory(self.buffers.items[before].data, data):
            return self.buffers.use(before)
        if data is None:
            return 0
        key = (_address(data), data.size)
        if key not in self.shared:
            entry = self.schema.BufferT()
            entry.data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
            self.shared[key] = self.buffers.add(entry)
        return self.buffers.use(self.shared[key])

    def buffer_tables(self) -> list[Any]:
        numbers, kept = self.buffers.result()
        raw = self.raw
        for user in (*(t for g in raw.subgraphs for t in g.tensors), *(raw.metadata or ())):
            user.buffer = numbers[user.buffer]
        if raw.metadataBuffer is not None:
            raw.metadataBuffer = np.asarray([numbers[b] for b in _ints(raw.metadataBuffer) if b in numbers], np.int32)
        total = sum(len(b.data) for b in kept if b.data is not None)
        all_behind = self.source.constants_behind or total > _FLATBUFFER_LIMIT - _ROOM
        return [self.buffer_table(b, all_behind) for b in kept]

    def buffer_table(self, buffer: Any, behind: bool) -> Any:
        size = 0 if buffer.data is None else len(buffer.data)
        if size and behind:
            table = _filled(self.schema.BufferT(), offset=_PLACEHOLDER, size=_PLACEHOLDER)
            self.behind.append((_place(table, "offset", "size"), buffer.data))
            return table
        self.inline_bytes += _aligned(size + BUFFER_ALIGNMENT)
        return buffer if buffer.offset <= _PLACEHOLDER else _filled(self.schema.BufferT(), data=buffer.data)

    # -- tables -------------------------------------------------------------------------------

    def metadata(self) -> list[Any] | None:
        tables = []
        known = self.raw.metadata or []
        for i, (name, blob) in enumerate(self.source.metadata):
            table = copy.copy(known[i]) if i < len(known) else self.schema.MetadataT()
            table.name = _string(name, table.name)
            table.buffer = self.buffer(blob, table.buffer)
            tables.append(table)
        return tables if tables or self.raw.metadata == [] else None

    def signatures(self) -> list[Any] | None:
        known = self.raw.signatureDefs or []
        tables = [known[i] if i < len(known) and signature_of(known[i]) == s else self.signature(s)
                  for i, s in enumerate(self.source.signatures)]
        return tables if tables or self.raw.signatureDefs == [] else None

    def signature(self, signature: Signature) -> Any:
        schema = self.schema
        return _filled(
            schema.SignatureDefT(),
            inputs=[_filled(schema.TensorMapT(), name=name, tensorIndex=index) for name, index in signature.inputs],
            outputs=[_filled(schema.TensorMapT(), name=name, tensorIndex=index) for name, index in signature.outputs],
            signatureKey=signature.key, subgraphIndex=signature.graph)

    def graph(self, graph: Graph) -> Any:
        raw = copy.copy(graph.raw) if graph.raw is not None else self.schema.SubGraphT()
        raw.name = _string(graph.name, raw.name)
        raw.tensors = [self.tensor(t) for t in graph.tensors]
        raw.operators = [self.operator(op) for op in graph.operators]
        raw.inputs = np.asarray(graph.inputs, np.int32)
        raw.outputs = np.asarray(graph.outputs, np.int32)
        return raw

    def tensor(self, tensor: Tensor) -> Any:
        raw = copy.copy(tensor.raw) if tensor.raw is not None else self.schema.TensorT()
        raw.name = _string(tensor.name, raw.name)
        raw.shape = _numbers(tensor.shape, raw.shape, empty=tensor.raw is None)
        raw.shapeSignature = _numbers(tensor.signature, raw.shapeSignature)
        raw.type = int(tensor.type)
        raw.isVariable = tensor.is_variable
        raw.buffer = self.buffer(tensor.data, raw.buffer)
        raw.quantization = self.quantization(tensor, raw.quantization)
        self.inline_bytes += 0 if tensor.quantization is None else 24 * tensor.quantization.scales.size
        return raw

    def quantization(self, tensor: Tensor, before: Any) -> Any:
        new, old = tensor.quantization, quantization_of(before)
        if new is None:
            return None if old is not None else before
        if old is not None and _states_the_same(new, old):
            return before
        raw = copy.copy(before) if before is not None else self.schema.QuantizationParametersT()
        raw.scale, raw.zeroPoint, raw.quantizedDimension = new.scales, new.zero_points, new.axis
        raw.min = new.minimum if new.minimum.size else None
        raw.max = new.maximum if new.maximum.size else None
        return raw

    def operator(self, op: Operator) -> Any:
        raw = copy.copy(op.raw) if op.raw is not None else self.schema.OperatorT()
        raw.opcodeIndex = self.code(op)
        raw.inputs = _numbers(op.inputs, raw.inputs, empty=op.raw is None)
        raw.outputs = _numbers(op.outputs, raw.outputs, empty=op.raw is None)
        raw.intermediates = _numbers(op.intermediates, raw.intermediates)
        if op.mutating != tuple(bool(v) for v in _ints(raw.mutatingVariableInputs)):
            raw.mutatingVariableInputs = np.asarray(op.mutating, np.bool_) if op.mutating else None
        self.options(raw, op)
        self.custom_options(raw, op)
        return raw

    def options(self, raw: Any, op: Operator) -> None:
        if op.raw is not None and op.options is (raw.builtinOptions if raw.builtinOptions is not None
                                                 else raw.builtinOptions2):
            return
        raw.builtinOptions = raw.builtinOptions2 = None
        raw.builtinOptionsType = raw.builtinOptions2Type = 0
        if op.options is None:
            return
        table = type(op.options).__name__[:-1]
        if hasattr(self.schema.BuiltinOptions, table):
            raw.builtinOptions, raw.builtinOptionsType = op.options, getattr(self.schema.BuiltinOptions, table)
        else:
            raw.builtinOptions2, raw.builtinOptions2Type = op.options, getattr(self.schema.BuiltinOptions2, table)

    def custom_options(self, raw: Any, op: Operator) -> None:
        options = op.custom_options
        behind = raw.largeCustomOptionsOffset > _PLACEHOLDER and options is not None and options.size > 0
        raw.largeCustomOptionsOffset = raw.largeCustomOptionsSize = _PLACEHOLDER if behind else 0
        raw.customOptions = None if behind else options
        if options is None:
            return
        blob = np.ascontiguousarray(options)
        if behind:
            self.behind.append((_place(raw, "largeCustomOptionsOffset", "largeCustomOptionsSize"), blob))
        else:
            raw.customOptions = blob
            self.inline_bytes += blob.size


class _Numbered:
    """A list whose elements are referred to by number, before and after superfluous ones are left out."""

    def __init__(self, items: Sequence[Any], used_in_file: set[int]) -> None:
        self.items = list(items)
        self.needed = set(range(len(self.items))) - used_in_file

    def use(self, number: int) -> int:
        self.needed.add(number)
        return number

    def add(self, item: Any) -> int:
        self.items.append(item)
        return self.use(len(self.items) - 1)

    def result(self) -> tuple[dict[int, int], list[Any]]:
        """Return new number by old one, and the elements that are left."""
        kept = sorted(self.needed)
        return {old: new for new, old in enumerate(kept)}, [self.items[i] for i in kept]


def _filled(table: Any, **fields: Any) -> Any:
    """Set fields of a schema object; older bindings have no keyword arguments for it."""
    for name, value in fields.items():
        setattr(table, name, value)
    return table


def _place(table: Any, offset: str, size: str) -> Callable[[int, int], None]:
    def place(position: int, length: int) -> None:
        setattr(table, offset, position)
        setattr(table, size, length)

    return place


def _used_codes(raw: Any) -> set[int]:
    return {op.opcodeIndex for g in raw.subgraphs or () for op in g.operators or ()}


def _used_buffers(raw: Any) -> set[int]:
    used = {t.buffer for g in raw.subgraphs or () for t in g.tensors or ()}
    return used | {m.buffer for m in raw.metadata or ()}


def _code_key(code: Any) -> tuple[int, str, int]:
    return code_number(code), text(code.customCode), code.version


def _address(data: Any) -> int:
    address: int = data.__array_interface__["data"][0]
    return address


def _states_the_same(a: Quantization, b: Quantization) -> bool:
    ranges = ((a.minimum, b.minimum), (a.maximum, b.maximum))
    return a.same_as(b) and a.axis == b.axis and all(np.array_equal(x, y, equal_nan=True) for x, y in ranges)


def _same_memory(before: Any, data: Blob | None) -> bool:
    if before is None or len(before) == 0:
        return data is None or data.size == 0
    return data is not None and data.size == len(before) and _address(before) == _address(data)


def _ints(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(np.asarray(values).tolist())


def _string(value: str, before: bytes | str | None) -> bytes | str | None:
    """Return the string of the file while it still says the same: it may not be UTF-8."""
    return before if text(before) == value else value


def _numbers(values: tuple[int, ...], before: Any, *, empty: bool = False) -> Any:
    """Return the vector of the file while it says the same, else a new one; none for () unless `empty`."""
    if before is not None and _ints(before) == values:
        return before
    return np.asarray(values, np.int32) if values or empty or before is not None else None

"""Schema objects of TensorFlow Lite files: compare them, draw random ones.

Packing goes through the flatbuffers library alone, so that the project's writer is not its own judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
from hypothesis import strategies as st

UNIONS = {"builtinOptions": schema.BuiltinOptions, "builtinOptions2": schema.BuiltinOptions2}
# Their Pack wants values that a generic draw does not give.
WITHOUT_DEFAULTS = {"NONE", "StablehloCustomCallOptions"}


def unpack(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def pack(tree: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def differences(a: Any, b: Any, path: str = "model") -> Iterator[str]:
    """Yield the places where two trees of schema objects differ, types and absence included."""
    if type(a) is not type(b):
        yield f"{path}: {type(a).__name__} became {type(b).__name__}"
    elif isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.tobytes() != b.tobytes():
            yield f"{path}: {a} became {b}"
    elif isinstance(a, list):
        if len(a) != len(b):
            yield f"{path}: {len(a)} elements became {len(b)}"
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from differences(x, y, f"{path}[{i}]")
    elif hasattr(a, "__dict__"):
        for name in vars(a):
            yield from differences(getattr(a, name), getattr(b, name), f"{path}.{name}")
    elif a != b and not (a != a and b != b):
        yield f"{path}: {a!r} became {b!r}"


def filled(table: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        assert hasattr(table, name), name
        setattr(table, name, value)
    return table


def vectors(dtype: type, low: int, high: int, *, least: int = 0, most: int = 4) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.integers(low, high), min_size=least, max_size=most).map(lambda v: np.asarray(v, dtype))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


names = st.sampled_from([None, b"", b"x", b"serving_default", "gr\u00f6\u00dfe".encode(), b"\xff\xfe no text"])
bytes_ = vectors(np.uint8, 0, 255, most=40)


@st.composite
def options(draw: st.DrawFn, union: str) -> tuple[int, Any]:
    """Draw builtin options: their number in the union and a table with random scalars."""
    kinds = {k: v for k, v in vars(UNIONS[union]).items() if isinstance(v, int) and k not in WITHOUT_DEFAULTS}
    kind = draw(st.sampled_from(sorted(kinds)))
    table = getattr(schema, f"{kind}T")()
    for name, value in vars(table).items():
        if isinstance(value, bool):
            setattr(table, name, draw(st.booleans()))
        elif isinstance(value, int):
            setattr(table, name, draw(st.integers(0, 3)))
        elif isinstance(value, float):
            setattr(table, name, draw(st.sampled_from([0.0, 0.5, -2.0])))
    return kinds[kind], table


@st.composite
def quantizations(draw: st.DrawFn) -> Any:
    count = draw(st.integers(0, 3))
    table = filled(schema.QuantizationParametersT(), quantizedDimension=draw(st.integers(0, 3)))
    if count:
        table.scale = np.asarray(draw(st.lists(st.floats(width=32), min_size=count, max_size=count)), np.float32)
        table.zeroPoint = draw(st.none() | vectors(np.int64, -9, 9, least=count, most=count)
                               | vectors(np.int64, -9, 9, least=1, most=1))
    if draw(st.booleans()):
        table.min, table.max = np.asarray([-1.5], np.float32), np.asarray([2.5], np.float32)
    if draw(st.booleans()):
        table.detailsType = schema.QuantizationDetails.CustomQuantization
        table.details = filled(schema.CustomQuantizationT(), custom=draw(bytes_))
    return table


@st.composite
def sparsities(draw: st.DrawFn) -> Any:
    dimension = filled(schema.DimensionMetadataT(), format=1, denseSize=draw(st.integers(0, 4)),
                       arraySegmentsType=schema.SparseIndexVector.Int32Vector,
                       arraySegments=filled(schema.Int32VectorT(), values=draw(vectors(np.int32, 0, 9))),
                       arrayIndicesType=schema.SparseIndexVector.Uint8Vector,
                       arrayIndices=filled(schema.Uint8VectorT(), values=draw(vectors(np.uint8, 0, 9))))
    return filled(schema.SparsityParametersT(), traversalOrder=draw(vectors(np.int32, 0, 3)),
                  blockMap=draw(maybe(vectors(np.int32, 0, 3))), dimMetadata=[dimension])


@st.composite
def models(draw: st.DrawFn) -> Any:
    """Draw a model whose indices and sizes are right and whose meaning is nil."""
    buffers = [filled(schema.BufferT(), data=draw(maybe(bytes_)) if i else None)
               for i in range(draw(st.integers(1, 5)))]
    codes = [draw(_operator_codes()) for _ in range(draw(st.integers(0, 3)))]
    graphs = [draw(_graphs(buffers, codes)) for _ in range(draw(st.integers(1, 2)))]
    buffer = st.integers(0, len(buffers) - 1)
    return filled(
        schema.ModelT(), version=3, description=draw(names), buffers=buffers, operatorCodes=codes, subgraphs=graphs,
        metadata=draw(maybe(st.lists(st.builds(
            lambda n, b: filled(schema.MetadataT(), name=n, buffer=b), names, buffer), max_size=2))),
        metadataBuffer=draw(maybe(st.lists(buffer, max_size=3).map(lambda v: np.asarray(v, np.int32)))),
        signatureDefs=draw(maybe(st.lists(_signatures(graphs), max_size=2))))


@st.composite
def _operator_codes(draw: st.DrawFn) -> Any:
    number = draw(st.sampled_from([0, 3, 32, 127, 150, 205]))
    return filled(schema.OperatorCodeT(), builtinCode=number, version=draw(st.integers(1, 3)),
                  deprecatedBuiltinCode=draw(st.sampled_from([0, min(number, 127)])), customCode=draw(names))


@st.composite
def _tensors(draw: st.DrawFn, buffers: list[Any]) -> Any:
    number = draw(st.integers(0, len(buffers) - 1))
    data = buffers[number].data
    open_ = data is None or not len(data)
    tensor = filled(
        schema.TensorT(), buffer=number, name=draw(names), isVariable=draw(st.booleans()), hasRank=draw(st.booleans()),
        type=draw(st.sampled_from([0, 9, 3, 5, 17])) if open_ else schema.TensorType.INT8,
        shape=draw(maybe(vectors(np.int32, -1, 5))) if open_ else np.asarray([1, len(data)], np.int32),
        shapeSignature=draw(maybe(vectors(np.int32, -1, 5))), quantization=draw(maybe(quantizations())),
        sparsity=draw(maybe(sparsities())))
    if draw(st.booleans()):
        tensor.variantTensors = [filled(schema.VariantSubTypeT(), shape=draw(vectors(np.int32, 0, 3)), type=2)]
    return tensor


@st.composite
def _graphs(draw: st.DrawFn, buffers: list[Any], codes: list[Any]) -> Any:
    tensors = [draw(_tensors(buffers)) for _ in range(draw(st.integers(0, 4)))]
    written = vectors(np.int32, 0, len(tensors) - 1) if tensors else st.just(np.zeros(0, np.int32))
    read = vectors(np.int32, -1, len(tensors) - 1)
    operators = []
    for _ in range(draw(st.integers(0, 3)) if codes else 0):
        op = filled(schema.OperatorT(), opcodeIndex=draw(st.integers(0, len(codes) - 1)), inputs=draw(maybe(read)),
                    outputs=draw(maybe(written)), intermediates=draw(maybe(read)),
                    customOptions=draw(maybe(bytes_)),
                    mutatingVariableInputs=draw(maybe(vectors(np.bool_, 0, 1))))
        for union in UNIONS:
            if draw(st.booleans()):
                number, table = draw(options(union))
                filled(op, **{union: table, f"{union}Type": number})
        operators.append(op)
    return filled(schema.SubGraphT(), name=draw(names), tensors=tensors, operators=operators, inputs=draw(written),
                  outputs=draw(written), debugMetadataIndex=draw(st.integers(-1, 3)))


@st.composite
def _signatures(draw: st.DrawFn, graphs: list[Any]) -> Any:
    number = draw(st.integers(0, len(graphs) - 1))
    count = len(graphs[number].tensors)
    maps = st.lists(st.builds(lambda n, t: filled(schema.TensorMapT(), name=n, tensorIndex=t), names,
                              st.integers(0, max(count - 1, 0))), max_size=2 if count else 0)
    return filled(schema.SignatureDefT(), signatureKey=draw(names), subgraphIndex=number, inputs=draw(maybe(maps)),
                  outputs=draw(maybe(maps)))

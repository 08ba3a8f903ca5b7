"""Containers made up by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from compiler.package import (
    BaseAddress,
    DataType,
    DescriptorHint,
    Direction,
    DmaHints,
    Executable,
    ExecutableType,
    FenceHint,
    FieldOffset,
    InstructionChunk,
    InstructionHint,
    InterruptHint,
    Layer,
    Meta,
    OutputLayout,
    Package,
    Position,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
NATURAL = st.integers(0, 2**31 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TABLE = st.lists(NATURAL, max_size=5).map(tuple)


def tuples(elements: st.SearchStrategy, size: int = 3) -> st.SearchStrategy:
    return st.lists(elements, max_size=size).map(tuple)


metas = st.builds(Meta, st.sampled_from(BaseAddress), NAMES, INT32, st.sampled_from(Position))
chunks = st.builds(InstructionChunk, st.binary(max_size=64), tuples(st.builds(FieldOffset, metas, NATURAL)))
hints = st.one_of(
    st.builds(DescriptorHint, metas, NATURAL, NATURAL, st.sampled_from(Direction)),
    st.builds(InstructionHint, NATURAL, st.sampled_from(Direction)),
    st.builds(InterruptHint, st.integers(0, 3), st.sampled_from(Direction)),
    st.builds(FenceHint, st.sampled_from(Direction)),
)
layouts = st.builds(OutputLayout, TABLE, TABLE, TABLE, TABLE, TABLE, TABLE)
shapes = tuples(st.tuples(INT32, INT32))


def layers(*, is_output: bool) -> st.SearchStrategy[Layer]:
    return st.builds(
        Layer, NAMES, NATURAL, NATURAL, NATURAL, NATURAL, INT32, st.floats(width=32, allow_nan=False),
        st.sampled_from(DataType), st.just(is_output), st.none() | layouts if is_output else st.none(),
        st.none() | shapes, NATURAL, st.booleans())


def executables(*kinds: ExecutableType) -> st.SearchStrategy[Executable]:
    return st.builds(
        Executable, st.sampled_from(kinds), NAMES, tuples(chunks), st.binary(max_size=5000),
        st.none() | st.builds(DmaHints, tuples(hints), st.booleans()), tuples(layers(is_output=False)),
        tuples(layers(is_output=True)), st.integers(0, 2**64 - 1), INT32, INT32, INT32, NAMES, INT32,
        st.integers(-(2**63), 2**63 - 1), INT32, st.none() | st.binary(max_size=40), st.booleans())


RUNS = (ExecutableType.STAND_ALONE, ExecutableType.EXECUTION_ONLY)
packages = st.builds(
    Package,
    st.tuples(executables(*RUNS), tuples(executables(*ExecutableType), 2)).map(lambda t: (t[0], *t[1])),
    INT32, NAMES, st.none() | NAMES, INT32, INT32, st.binary(max_size=40))


def small_package() -> Package:
    """A package with one of everything, for damage."""
    layout = OutputLayout((0, 4), (0, 1), (0, 8, 16, 24), (0, 0), (0, 0), (4, 4))
    meta = Meta(BaseAddress.SCRATCH, "", 0, Position.UPPER)
    run = Executable(
        ExecutableType.EXECUTION_ONLY, "model", (InstructionChunk(bytes(range(48)), (FieldOffset(meta, 582),)),),
        b"parameters", DmaHints((InstructionHint(0), DescriptorHint(Meta(BaseAddress.INPUT, "in"), 0, 8, Direction.INFEED),
                                 FenceHint(), InterruptHint(0))),
        (Layer("in", 8, 1, 1, 5, 128, 0.5, DataType.SIGNED_FIXED_POINT8, False),),
        (Layer("out", 32, 2, 2, 3, 0, 0.25, DataType.FIXED_POINT8, True, layout, ((0, 1), (0, 1), (0, 2))),),
        token=2**63 + 1, batch_size=1, chip="beagle", serialized_model=b"")
    fill = Executable(ExecutableType.PARAMETER_CACHING, "Unknown", (InstructionChunk(b"fill"),), b"cached",
                      token=run.token, batch_size=1, chip="beagle")
    return Package((run, fill), 14, "cl/", "")

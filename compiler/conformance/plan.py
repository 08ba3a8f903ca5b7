"""The memory plan of an official model, read off its executables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compiler.beagle.isa import Instruction, decode_stream
from compiler.beagle.simulator.moves import RingReceive
from compiler.beagle.simulator.streams import Pop
from compiler.facts import PARAMETER_LINE_BYTES, WIDE_ROWS
from compiler.generation import Generation
from compiler.graph import Graph
from compiler.lowering.demand import GraphDemand, read_demand
from compiler.mapping import Subgraph
from compiler.memory.demand import Kind, ModelDemand, for_generation
from compiler.memory.plan import ModelPlan, plan_cache
from compiler.memory.sharing import WHOLE, Sharing
from compiler.package import Executable, Package

Segment = tuple[int, int, int]
"""Tile, first wide row, rows."""


@dataclass(frozen=True)
class CachedTensor:
    """One tensor of a parameter-caching program.

    Attributes
    ----------
    start, stop:
        Bytes of the blob.
    segments:
        Where they go.
    """

    start: int
    stop: int
    segments: tuple[Segment, ...]


def cached_tensors(caching: Executable) -> list[CachedTensor]:
    """Read a parameter-caching program: receives of a tensor come first, then what they receive."""
    program = [ins for chunk in caching.chunks for ins in decode_stream(chunk.data)]
    found: list[CachedTensor] = []
    segments: list[Segment] = []
    start = stop = 0
    for ins, after in zip(program, [*program[1:], None], strict=True):
        if ins.name == "ring_receive_a":
            segments.append(_segment(ins))
        elif ins.name == "pop":
            stop += Pop(ins).size * PARAMETER_LINE_BYTES
            if after is None or after.name != "pop":
                found.append(CachedTensor(start, stop, tuple(segments)))
                segments, start = [], stop
    return found


def _segment(ins: Instruction) -> Segment:
    rows = RingReceive(ins, 0).rows
    return ins["tiles"].bit_length() - 1, int(min(rows)), len(rows)


@dataclass(frozen=True)
class Comparison:
    """Our plan of a subgraph beside the official one.

    Attributes
    ----------
    layers:
        Tensors of our plan.
    split_differs:
        Names of those that the official model caches and we stream, or the other way round.
    unidentified:
        Names of those whose bytes are in none of the official blobs, and whose number of bytes does not tell them either.
    segments, identical:
        Tensors cached by both, and those that lie on the same rows of the same tiles.
    ours, official:
        Bytes cached and streamed.
    """

    layers: int
    split_differs: tuple[str, ...]
    unidentified: tuple[str, ...]
    segments: int
    identical: int
    ours: tuple[int, int]
    official: tuple[int, int]

    @property
    def equal(self) -> bool:
        """Every layer cached or streamed as in the official model, and as many bytes of both."""
        return not self.split_differs and self.ours == self.official


@dataclass(frozen=True)
class Member:
    """A subgraph that the official compiler mapped, and its package."""

    graph: Graph
    part: Subgraph
    package: Package
    generation: Generation

    @cached_property
    def read(self) -> GraphDemand:
        """What it asks of parameter memory."""
        return without_tables(read_demand(self.graph, self.part, "", generation=self.generation), self.package)

    @cached_property
    def demand(self) -> ModelDemand:
        """The same with the habits of its compiler, read as often as the official program does."""
        return for_generation(with_official_reads(self.read, self.package), self.generation)


def compare_plans(members: Sequence[Member], sharing: Sharing = WHOLE) -> list[Comparison]:
    """Plan subgraphs that share the memory, in this order, and compare each with its official executables."""
    staging = min(official_staging(member.package) for member in members)
    plan = plan_cache([member.demand for member in members], staging, sharing)
    return [compare(member.read, own, member.package) for member, own in zip(members, plan.models, strict=True)]


def compare(read: GraphDemand, plan: ModelPlan, package: Package) -> Comparison:
    """Compare a plan with the executables of an official package, layer by layer.

    Layers are found by their bytes; those whose bytes we do not know in this order, by their number in the order of
    the blobs.
    """
    cached = package.caching.parameters if package.caching is not None else b""
    streamed = package.execution.parameters
    places = cached_tensors(package.caching) if package.caching is not None else []
    found = _by_content(read.blobs, cached, streamed, places)
    _by_size(read, found, places, len(streamed))
    differs, unidentified, same, both = [], [], 0, 0
    for i, tensor in enumerate(plan.demand.tensors):
        place = found.get(i)
        if i not in found:
            unidentified.append(tensor.name)
        elif plan.cached(i) is not (place is not None):
            differs.append(tensor.name)
        elif place is not None:
            both += 1
            same += tuple((p.tile, p.row, p.rows) for p in plan.pieces[i]) == place.segments
    ours = sum(t.streamed_bytes for i, t in enumerate(plan.demand.tensors) if plan.cached(i)), plan.streamed
    return Comparison(len(plan.pieces), tuple(differs), tuple(unidentified), both, same, ours, (len(cached), len(streamed)))


def _by_content(blobs: Sequence[bytes], cached: bytes, streamed: bytes, places: list[CachedTensor],
                ) -> dict[int, CachedTensor | None]:
    """Where the bytes of each tensor lie; None for the streamed ones. Takes what it finds out of ``places``."""
    found: dict[int, CachedTensor | None] = {}
    for i, blob in enumerate(blobs):
        place = next((p for p in places if cached[p.start:p.stop] == blob), None) if blob else None
        if place is not None:
            places.remove(place)
            found[i] = place
        elif blob and blob in streamed:
            found[i] = None
    return found


def _by_size(read: GraphDemand, found: dict[int, CachedTensor | None], places: list[CachedTensor], streamed: int) -> None:
    tensors = read.demand.tensors
    left = streamed - sum(tensors[i].streamed_bytes for i, place in found.items() if place is None)
    for i, tensor in enumerate(tensors):
        if i in found:
            continue
        place = next((p for p in places if tensor.cacheable and p.stop - p.start == tensor.streamed_bytes), None)
        if place is not None:
            places.remove(place)
            found[i] = place
        elif tensor.streamed_bytes <= left:
            left -= tensor.streamed_bytes
            found[i] = None


def without_tables(read: GraphDemand, package: Package) -> GraphDemand:
    """Leave out tables that the official blobs do not hold: which tables a SOFTMAX has depends on the compiler."""
    cached = package.caching.parameters if package.caching is not None else b""
    streamed = package.execution.parameters
    places = cached_tensors(package.caching) if package.caching is not None else []
    found = _by_content(read.blobs, cached, streamed, places)
    kept = [i for i, t in enumerate(read.demand.tensors) if not t.table or i in found]
    tensors = tuple(read.demand.tensors[i] for i in kept)
    return replace(read, demand=replace(read.demand, tensors=tensors), blobs=tuple(read.blobs[i] for i in kept))


def official_staging(package: Package) -> int:
    """Lowest wide row above the cached ones that an execution program writes.

    Compiler 1.0 also uses rows below them.
    """
    places = cached_tensors(package.caching) if package.caching is not None else []
    top = max((row + rows for p in places for _, row, rows in p.segments), default=0)
    program = (ins for chunk in package.execution.chunks for ins in decode_stream(chunk.data))
    return min((row for ins in program for row in _written(ins) if row >= top), default=WIDE_ROWS)


def with_official_reads(read: GraphDemand, package: Package) -> ModelDemand:
    """Tell how often the official program reads each tensor: layers that run in bands read theirs once per band."""
    if package.caching is None:
        return read.demand
    program = [ins for chunk in package.execution.chunks for ins in decode_stream(chunk.data)]
    sends = Counter((ins["tiles"].bit_length() - 1, ins["src.start"]) for ins in program if ins.name == "ring_send")
    places = cached_tensors(package.caching)
    found = _by_content(read.blobs, package.caching.parameters, package.execution.parameters, places)
    tensors = list(read.demand.tensors)
    for i, place in found.items():
        if place is not None and tensors[i].kind is Kind.RING:
            tensors[i] = replace(tensors[i], reads=max(1, sends[place.segments[0][:2]]))
    return replace(read.demand, tensors=tuple(tensors))


def _written(ins: Instruction) -> list[int]:
    if ins.name in ("ring_receive_a", "ring_receive_b"):
        return [ins["dst.start"], *([ins["prefix.start"]] if ins["prefix.enable"] else [])]
    if ins.name == "narrow_to_wide":
        return [ins["dst.start"]]
    if ins.name == "tensor_op" and not ins["no_partial_sums"]:
        return [ins["partial.start"] // 4]
    return []

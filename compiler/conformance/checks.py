"""The checks on one pair of source and officially compiled model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from compiler.beagle.isa import Instruction, decode_stream, encode_stream
from compiler.beagle.reference import Generation as Arithmetic
from compiler.beagle.reference import evaluate
from compiler.beagle.simulator import Machine
from compiler.conformance.runs import Array, PairUnderTest, against_kernels, compared, run, simulated_cycles
from compiler.mapping import MappingOptions, map_graph
from compiler.package import Executable, read_package, write_package

TABLE_FUNCTIONS = {"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "RSQRT", "SQUARED_DIFFERENCE",
                   "UNIDIRECTIONAL_SEQUENCE_LSTM"}
EQUAL_SHARE = 0.999


@dataclass(frozen=True)
class Result:
    """Outcome of one check.

    Attributes
    ----------
    status:
        ``pass``, ``fail`` or ``skip``.
    figures:
        Numbers of the check, as they go into the JSON report.
    """

    status: str
    reason: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"status": self.status, "reason": self.reason, **self.figures}


def verdict(ok: bool, reason: str, **figures: Any) -> Result:
    """Return pass, or fail with a reason."""
    return Result("pass" if ok else "fail", "" if ok else reason, figures)


def decode(pair: PairUnderTest) -> Result:
    """Streams are re-encoded identically and every set bit has a name."""
    streams = identical = unexplained = 0
    for executable in pair.executables:
        for chunk in executable.chunks:
            program = decode_stream(chunk.data)
            streams += 1
            identical += encode_stream(program) == chunk.data
            unexplained += sum(ins.unexplained.bit_count() for ins in program)
    return verdict(identical == streams and unexplained == 0, "streams differ or bits are unexplained", streams=streams,
                 identical=identical, unexplained_bits=unexplained)


def package(pair: PairUnderTest) -> Result:
    """Containers are parsed and written with equal content."""
    written = [(p, write_package(p)) for _, p in pair.packages]
    equal = sum(read_package(data) == p for p, data in written)
    return verdict(equal == len(written), "content changed", packages=len(written), equal=equal)


def cache(pair: PairUnderTest) -> Result:
    """Parameter-caching programs place every parameter byte exactly once."""
    caching = [p.caching for _, p in pair.packages if p.caching is not None]
    if not caching:
        return Result("skip", "the model caches no parameters")
    for executable in caching:
        result = Machine().run(executable)
        program = [ins for chunk in executable.chunks for ins in decode_stream(chunk.data)]
        rows = _rows_filled(program)
        if result.findings or result.interrupts != (0,):
            return Result("fail", "; ".join(result.findings) or "no final interrupt")
        if len(rows) != len(set(rows)):
            return Result("fail", "a wide row is written twice")
    return Result("pass", figures={"bytes": sum(len(e.parameters) for e in caching)})


def _rows_filled(program: list[Instruction]) -> list[tuple[int, int]]:
    from compiler.beagle.simulator.moves import RingReceive

    return [(ins["tiles"], int(row)) for ins in program if ins.name == "ring_receive_a"
            for row in RingReceive(ins, 0).rows]


def simulate(pair: PairUnderTest) -> Result:
    """Official executables give the numbers of the source model, and the judge finds nothing.

    The truth is the source graph evaluated with the chip's arithmetic (compiler.beagle.reference),
    on random values of the tensors where the Edge TPU part begins. The difference to TensorFlow
    Lite's own kernels is reported beside it.
    """
    operators = {op.name for op in pair.source.main.operators}
    allowed = 2 if operators & TABLE_FUNCTIONS else 1
    ours: list[Array] = []
    truths: list[Array] = []
    figures: dict[str, Any] = {"reliances": Counter[str](), "suspicions": 0, "tflite": [], "cycles": 0}
    for number, (_, p) in enumerate(pair.packages):
        graph, begin, end = part = pair.mapped_part(number)
        arithmetic = Arithmetic.EARLY if pair.generation.early_arithmetic else Arithmetic.LATER
        for sample in range(pair.samples):
            found = pair.official(number, sample)
            if found.findings:
                return Result("fail", "; ".join(found.findings), {"findings": len(found.findings)})
            given = list(pair.given(number, sample).values())
            truth = evaluate(graph, dict(zip(begin, given, strict=True)), until=end, generation=arithmetic)
            outputs = [found.outputs[layer.name] for layer in p.execution.outputs]
            ours += outputs
            truths += [truth[index] for index in end]
            if sample == 0:
                figures["reliances"].update(found.reliances)
                figures["suspicions"] += len(found.suspicions)
                figures["tflite"].append(against_kernels(part, pair.source, given, outputs))
        figures["cycles"] = _sum(figures["cycles"], simulated_cycles(p))
    result = compared(ours, truths)
    share, largest = result["equal_share"], result["largest_difference"]
    return verdict(largest <= allowed and share >= EQUAL_SHARE, f"largest difference {largest:g}, {share:.3%} equal",
                   **result, findings=0, **figures)


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def mapping(pair: PairUnderTest) -> Result:
    """Our operator table leaves the same operators on the CPU."""
    several = len(pair.packages) > 1
    graph = pair.source.main
    mapped = map_graph(graph, MappingOptions(multiple_subgraphs=several))
    ours = sorted(op.custom_name or op.name for op, v in zip(graph.operators, mapped.verdicts, strict=True) if not v.mapped)
    edge = {op.index for op, _ in pair.packages}
    theirs = sorted(op.custom_name or op.name for op in pair.compiled.main.operators if op.index not in edge)
    return verdict(ours == theirs, f"on the CPU: ours {ours}, official {theirs}", cpu_operators=len(theirs))


def _coverage(pair: PairUnderTest) -> Result | None:
    """Skip what our code generation does not reach yet."""
    graph = pair.source.main
    official = map_graph(graph, MappingOptions(multiple_subgraphs=len(pair.packages) > 1))
    theirs, ours = sum(v.mapped for v in official.verdicts), pair.ours.on_edge_tpu
    if ours >= theirs:
        return None
    missing = next(mine.reason for mine, other in zip(pair.ours.mapped.verdicts, official.verdicts, strict=True)
                   if other.mapped and not mine.mapped)
    return Result("fail", f"maps {ours} of {theirs} operators: {missing}", {"mapped": ours, "official": theirs})


def parameters(pair: PairUnderTest) -> Result:
    """Our parameter blobs are the official ones."""
    if (short := _coverage(pair)) is not None:
        return short
    same = [[e.parameters for e in a.executables] == [e.parameters for e in b.executables]
            for a, (_, b) in zip(pair.our_packages, pair.packages, strict=True)]
    return verdict(all(same), "parameters differ")


def memory(pair: PairUnderTest) -> Result:
    """Each layer is cached or streamed as in the official model, and as many bytes are.

    The plan is that of the whole graph that the official compiler maps, also where code generation does not reach, and of
    all models at hand that share its token; beside rows of others where there must have been others.
    """
    setting = pair.setting
    if setting is None:
        return Result("fail", f"another number of subgraphs than the official {len(pair.packages)}")
    found = setting.comparisons[0]
    figures = {
        "order": [pair.together[i].source.source for i in setting.order], "rows_taken": setting.rows_taken,
        "layers": sum(c.layers for c in found), "split_differs": sum(len(c.split_differs) for c in found),
        "unidentified": sum(len(c.unidentified) for c in found), "segments": sum(c.segments for c in found),
        "segments_identical": sum(c.identical for c in found),
        "on_chip": sum(c.ours[0] for c in found), "off_chip": sum(c.ours[1] for c in found),
        "official_on_chip": sum(c.official[0] for c in found), "official_off_chip": sum(c.official[1] for c in found),
    }
    other = next((name for c in found for name in c.split_differs), None)
    reason = f"{other} is cached by one and streamed by the other" if other is not None else (
        f"cached and streamed bytes: ours {[c.ours for c in found]}, official {[c.official for c in found]}")
    return verdict(all(c.equal for c in found), reason, **figures)


def compiles(pair: PairUnderTest) -> Result:
    """Our executables give the official executables' outputs."""
    if (short := _coverage(pair)) is not None:
        return short
    differ = values = suspicions = 0
    cycles: list[int | None] = [0, 0]
    identical = True
    for number, (ours, (_, theirs)) in enumerate(zip(pair.our_packages, pair.packages, strict=True)):
        same = [_program(e) for e in ours.executables] == [_program(e) for e in theirs.executables]
        identical &= same
        # The same streams with the same parameters are the same run.
        same = same and [e.parameters for e in ours.executables] == [e.parameters for e in theirs.executables]
        for sample in range(pair.samples):
            official = pair.official(number, sample)
            found = official if same else run(ours, pair.given(number, sample), judged=sample == 0)
            if found.findings:
                return Result("fail", "; ".join(found.findings))
            differ += sum(int((found.outputs[name] != array).sum()) for name, array in official.outputs.items())
            values += sum(array.size for array in official.outputs.values())
            suspicions += len(found.suspicions)
        cycles = [_sum(total, simulated_cycles(p)) for total, p in zip(cycles, (ours, theirs), strict=True)]
    mine, official_cycles = cycles
    ratio = None if mine is None or not official_cycles else mine / official_cycles
    return verdict(differ == 0, f"{differ} of {values} output values differ", values=values, suspicions=suspicions,
                   programs_identical=identical, runtime=max(p.min_runtime_version for _, p in pair.packages),
                   cycles=mine, official_cycles=official_cycles, cycles_ratio=ratio)


def _program(executable: Executable) -> list[bytes]:
    return [chunk.data for chunk in executable.chunks]


CHECK_FUNCTIONS: dict[str, Callable[[PairUnderTest], Result]] = {
    "decode": decode, "package": package, "cache": cache, "simulate": simulate, "map": mapping,
    "parameters": parameters, "memory": memory, "compile": compiles,
}
"""All checks by name, in the order in which they run."""

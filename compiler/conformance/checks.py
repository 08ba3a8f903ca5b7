"""The checks on one pair of source and officially compiled model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.beagle.isa import Instruction, decode_stream, encode_stream
from compiler.beagle.judge import Report, try_executables
from compiler.beagle.reference import Generation, evaluate
from compiler.beagle.simulator import Machine
from compiler.compile import CompiledModel, CompileOptions, compile_model
from compiler.graph import Model, Operator, Tensor, parse_model, read_model
from compiler.mapping import MappingOptions, map_graph
from compiler.package import Executable, Package, decode_output, encode_input, read_package, tensor_name, write_package
from compiler.package.container import packages_of

TABLE_FUNCTIONS = {"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "RSQRT"}
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


class PairUnderTest:
    """One pair, read once for all checks."""

    def __init__(self, source: Path, compiled: Path, samples: int, seed: int) -> None:
        self.source: Model = read_model(source)
        self.compiled: Model = read_model(compiled)
        self.packages: list[tuple[Operator, Package]] = packages_of(self.compiled)
        self.samples = samples
        self.seed = seed
        self._ours: CompiledModel | None = None

    @property
    def executables(self) -> list[Executable]:
        """All official executables."""
        return [e for _, package in self.packages for e in package.executables]

    def ours(self) -> CompiledModel:
        """Compile the source with our compiler and the official token."""
        if self._ours is None:
            token = self.packages[0][1].execution.token or None
            self._ours = compile_model(self.source, CompileOptions(token=token, multiple_subgraphs=len(self.packages) > 1))
        return self._ours


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
    on random values of the tensors where the Edge TPU part begins.
    """
    graph = pair.source.main
    names = {t.name: t.index for t in graph.tensors}
    allowed = 2 if any(op.name in TABLE_FUNCTIONS for op in graph.operators) else 1
    values = equal = largest = 0
    seconds = 0.0
    reliances: Counter[str] = Counter()
    for sample in range(pair.samples):
        rng = np.random.default_rng(pair.seed + sample)
        for _, p in pair.packages:
            given = {layer.name: _random_tensor(graph.tensors[names[layer.name]], rng) for layer in p.execution.inputs}
            outputs, took, findings = run_package(p, given)
            seconds += took
            if sample == 0 and not findings:
                report = judge_package(p, given)
                findings = tuple(map(str, report.findings))
                reliances.update(report.reliances)
            if findings:
                return Result("fail", "; ".join(findings), {"findings": len(findings)})
            wanted = [names[tensor_name(layer)] for layer in p.execution.outputs]
            truth = evaluate(graph, {names[name]: array for name, array in given.items()}, until=wanted,
                             generation=_generation_of(p))
            for layer in p.execution.outputs:
                want = truth[names[tensor_name(layer)]].reshape(-1).astype(np.int64)
                difference = np.abs(outputs[layer.name].reshape(-1).astype(np.int64) - want)
                values += difference.size
                equal += int((difference == 0).sum())
                largest = max(largest, int(difference.max(initial=0)))
    share = equal / max(values, 1)
    return verdict(largest <= allowed and share >= EQUAL_SHARE, f"largest difference {largest}, {100 * share:.3f} % equal",
                   values=values, equal_share=share, largest_difference=largest, seconds=round(seconds, 3), findings=0,
                   reliances=dict(reliances))


def judge_package(p: Package, tensors: dict[str, Any]) -> Report:
    """Bring caching and inference before the judge."""
    data = {layer.name: encode_input(layer, tensors[layer.name]) for layer in p.execution.inputs}
    return try_executables([*([p.caching] if p.caching is not None else []), p.execution], data)


def _random_tensor(tensor: Tensor, rng: np.random.Generator) -> Any:
    """Seeded values over the whole range of a tensor's type, in its shape."""
    dtype = tensor.type.numpy
    if dtype is None or dtype.kind not in "iu":
        raise ValueError(f"input {tensor.name} of type {tensor.type.name} is no integer tensor")
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, tensor.shape, dtype, endpoint=True)


def _generation_of(p: Package) -> Generation:
    """Tell which compilers' habits a program shows."""
    program = (ins for chunk in p.execution.chunks for ins in decode_stream(chunk.data))
    early = any(_scalar_function(ins) or _pool_without_clamp(ins) for ins in program)
    return Generation.EARLY if early else Generation.LATER


def _scalar_function(ins: Instruction) -> bool:
    return ins.name == "scalar" and bool(ins["special"])


def _pool_without_clamp(ins: Instruction) -> bool:
    """Tell whether an instruction sums 16-bit pixels, scales the sum and clamps nothing."""
    if ins.name != "tensor_op" or not ins["in_16bit"] or ins["nonlinear"] or ins["out_zero_point"]:
        return False
    low, high = np.array([ins["clamp_low"], ins["clamp_high"]], np.uint32).view(np.float32)
    return bool(np.isneginf(low) and np.isposinf(high) and ins["weights_zero_point"] == 0)


def run_package(p: Package, tensors: dict[str, Any]) -> tuple[dict[str, Any], float, tuple[str, ...]]:
    """Run a package on a fresh chip: outputs, seconds of the inference, findings."""
    machine = Machine()
    if p.caching is not None:
        machine.run(p.caching)
    data = {layer.name: encode_input(layer, tensors[layer.name]) for layer in p.execution.inputs}
    started = time.perf_counter()
    result = machine.run(p.execution, data)
    seconds = time.perf_counter() - started
    outputs = {layer.name: decode_output(layer, result.outputs[layer.name]) for layer in p.execution.outputs}
    return outputs, seconds, result.findings


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
    theirs, ours = sum(v.mapped for v in official.verdicts), pair.ours().on_edge_tpu
    if ours >= theirs:
        return None
    missing = next(v.reason for v in pair.ours().mapped.verdicts if not v.mapped and v.reason)
    return Result("fail", f"maps {ours} of {theirs} operators: {missing}", {"mapped": ours, "official": theirs})


def _our_packages(pair: PairUnderTest) -> list[Package]:
    return [p for _, p in packages_of(parse_model(pair.ours().data))]


def parameters(pair: PairUnderTest) -> Result:
    """Our parameter blobs are the official ones."""
    if (short := _coverage(pair)) is not None:
        return short
    same = [[e.parameters for e in a.executables] == [e.parameters for e in b.executables]
            for a, (_, b) in zip(_our_packages(pair), pair.packages, strict=True)]
    return verdict(all(same), "parameters differ")


def memory(pair: PairUnderTest) -> Result:
    """As many parameter bytes are cached and streamed as in the official model."""
    if (short := _coverage(pair)) is not None:
        return short
    ours = [(len(p.caching.parameters) if p.caching else 0, len(p.execution.parameters)) for p in _our_packages(pair)]
    theirs = [(len(p.caching.parameters) if p.caching else 0, len(p.execution.parameters)) for _, p in pair.packages]
    return verdict(ours == theirs, f"cached and streamed bytes: ours {ours}, official {theirs}",
                 on_chip=pair.ours().on_chip_used, off_chip=pair.ours().off_chip)


def compiles(pair: PairUnderTest) -> Result:
    """Our executables give the official executables' outputs."""
    if (short := _coverage(pair)) is not None:
        return short
    identical, differ, values = True, 0, 0
    graph = pair.source.main
    names = {t.name: t.index for t in graph.tensors}
    for sample in range(pair.samples):
        rng = np.random.default_rng(pair.seed + sample)
        for ours, (_, theirs) in zip(_our_packages(pair), pair.packages, strict=True):
            identical &= [c.data for e in ours.executables for c in e.chunks] == [
                c.data for e in theirs.executables for c in e.chunks]
            tensors = {layer.name: _random_tensor(graph.tensors[names[layer.name]], rng)
                       for layer in theirs.execution.inputs}
            a, _, left = run_package(ours, tensors)
            b, _, _ = run_package(theirs, tensors)
            findings = [*left, *map(str, judge_package(ours, tensors).findings if sample == 0 else ())]
            if findings:
                return Result("fail", "; ".join(findings))
            differ += sum(int((a[name] != b[name]).sum()) for name in b)
            values += sum(array.size for array in b.values())
    return verdict(differ == 0, f"{differ} of {values} output values differ", programs_identical=identical, values=values)


CHECK_FUNCTIONS: dict[str, Callable[[PairUnderTest], Result]] = {
    "decode": decode, "package": package, "cache": cache, "simulate": simulate, "map": mapping,
    "parameters": parameters, "memory": memory, "compile": compiles,
}
"""All checks by name, in the order in which they run."""

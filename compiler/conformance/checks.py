"""The checks on one pair of source and officially compiled model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.beagle.isa import Instruction, decode_stream, encode_stream
from compiler.beagle.simulator import Machine
from compiler.compile import CompiledModel, CompileOptions, compile_model
from compiler.graph import Graph, Model, Operator, parse_model, read_model
from compiler.graph.interpreter import TfliteModel
from compiler.mapping import MappingOptions, map_graph
from compiler.package import Executable, Package, decode_output, encode_input, read_package, write_package
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
            self._ours = compile_model(self.source, CompileOptions(token=token))
        return self._ours


def judge(ok: bool, reason: str, **figures: Any) -> Result:
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
    return judge(identical == streams and unexplained == 0, "streams differ or bits are unexplained", streams=streams,
                 identical=identical, unexplained_bits=unexplained)


def package(pair: PairUnderTest) -> Result:
    """Containers are parsed and written with equal content."""
    written = [(p, write_package(p)) for _, p in pair.packages]
    equal = sum(read_package(data) == p for p, data in written)
    return judge(equal == len(written), "content changed", packages=len(written), equal=equal)


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
    """Official executables give the numbers of the source model.

    Compared with TensorFlow Lite's optimised and plain kernels, whichever is nearer: the chip
    rescales with a float multiplier, and the two kernel sets differ from each other by more.
    """
    graph = pair.source.main
    allowed = 2 if any(op.name in TABLE_FUNCTIONS for op in graph.operators) else 1
    values = equal = largest = 0
    seconds = 0.0
    for sample in range(pair.samples):
        inputs = random_inputs(graph, pair.seed + sample)
        tensors = [_tensors(pair.source, inputs, optimised) for optimised in (True, False)]
        for _, p in pair.packages:
            outputs, took, findings = run_package(p, tensors[1])
            seconds += took
            if findings:
                return Result("fail", "; ".join(findings))
            for layer in p.execution.outputs:
                got = outputs[layer.name].reshape(-1).astype(np.int64)
                differences = [np.abs(got - t[layer.name].reshape(-1).astype(np.int64)) for t in tensors
                               if layer.name in t and t[layer.name].size == got.size]
                if not differences:
                    return Result("fail", f"output {layer.name} is no tensor of the source model")
                best = min(differences, key=lambda d: (int(d.max(initial=0)), int((d > 0).sum())))
                values += best.size
                equal += int((best == 0).sum())
                largest = max(largest, int(best.max(initial=0)))
    share = equal / max(values, 1)
    return judge(largest <= allowed and share >= EQUAL_SHARE, f"largest difference {largest}, {100 * share:.3f} % equal",
                 values=values, equal_share=share, largest_difference=largest, seconds=round(seconds, 3),
                 reference="TensorFlow Lite")


def random_inputs(graph: Graph, seed: int) -> list[Any]:
    """Seeded random arrays for the graph inputs."""
    rng = np.random.default_rng(seed)
    arrays: list[Any] = []
    for index in graph.inputs:
        t = graph.tensors[index]
        if t.type.numpy is None or t.type.is_float:
            arrays.append(rng.random(t.shape).astype(np.float32))
        else:
            info = np.iinfo(t.type.numpy)
            arrays.append(rng.integers(info.min, info.max, t.shape, t.type.numpy, endpoint=True))
    return arrays


def _tensors(model: Model, inputs: list[Any], optimised: bool) -> dict[str, Any]:
    """Tensors by name as TensorFlow Lite computes them; optimised kernels only show graph outputs."""
    graph = model.main
    host = TfliteModel(model.source, keep_tensors=not optimised)
    outputs = host.run(inputs)
    if optimised:
        return {port.name: array for port, array in zip(host.outputs, outputs, strict=True)}
    constants = {t.index for t in graph.tensors if t.is_constant}
    return {t.name: np.asarray(host.tensor(t.index)) for t in graph.used_tensors() if t.index not in constants} | {
        t.name: np.asarray(a) for t, a in zip((graph.tensors[i] for i in graph.inputs), inputs, strict=True)}


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
    return judge(ours == theirs, f"on the CPU: ours {ours}, official {theirs}", cpu_operators=len(theirs))


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
    return judge(all(same), "parameters differ")


def memory(pair: PairUnderTest) -> Result:
    """As many parameter bytes are cached and streamed as in the official model."""
    if (short := _coverage(pair)) is not None:
        return short
    ours = [(len(p.caching.parameters) if p.caching else 0, len(p.execution.parameters)) for p in _our_packages(pair)]
    theirs = [(len(p.caching.parameters) if p.caching else 0, len(p.execution.parameters)) for _, p in pair.packages]
    return judge(ours == theirs, f"cached and streamed bytes: ours {ours}, official {theirs}",
                 on_chip=pair.ours().on_chip_used, off_chip=pair.ours().off_chip)


def compiles(pair: PairUnderTest) -> Result:
    """Our executables give the official executables' outputs."""
    if (short := _coverage(pair)) is not None:
        return short
    identical, differ, values = True, 0, 0
    for sample in range(pair.samples):
        rng = np.random.default_rng(pair.seed + sample)
        for ours, (_, theirs) in zip(_our_packages(pair), pair.packages, strict=True):
            identical &= [c.data for e in ours.executables for c in e.chunks] == [
                c.data for e in theirs.executables for c in e.chunks]
            tensors = {layer.name: rng.integers(0, 256, layer.y * layer.x * layer.z, np.uint8)
                       for layer in theirs.execution.inputs}
            a, _, findings = run_package(ours, tensors)
            b, _, _ = run_package(theirs, tensors)
            if findings:
                return Result("fail", "; ".join(findings))
            differ += sum(int((a[name] != b[name]).sum()) for name in b)
            values += sum(array.size for array in b.values())
    return judge(differ == 0, f"{differ} of {values} output values differ", programs_identical=identical, values=values)


CHECK_FUNCTIONS: dict[str, Callable[[PairUnderTest], Result]] = {
    "decode": decode, "package": package, "cache": cache, "simulate": simulate, "map": mapping,
    "parameters": parameters, "memory": memory, "compile": compiles,
}
"""All checks by name, in the order in which they run."""

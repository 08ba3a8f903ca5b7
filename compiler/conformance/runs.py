"""One pair of models, read once for all checks, and inferences of its executables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.beagle.judge import try_executables
from compiler.beagle.reference import needed
from compiler.beagle.simulator import Machine, SimulationError
from compiler.beagle.timing import BUSES, Costs, latency_us
from compiler.compile import CompiledModel, CompileOptions, compile_model, compile_models
from compiler.conformance.partners import Files, Setting, overlap, settle
from compiler.conformance.plan import Member
from compiler.conformance.vintage import generation_of
from compiler.errors import EtpuError
from compiler.generation import Generation
from compiler.graph import Graph, Model, Operator, Tensor, parse_model, read_model, serialize_model
from compiler.mapping import MappingOptions, map_graph
from compiler.package import Executable, Layer, Package, decode_output, encode_input, tensor_name
from compiler.package.container import packages_of

Array = npt.NDArray[Any]
TIMED_BUS = "usb3"
_NEED_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class Run:
    """One simulated inference.

    Attributes
    ----------
    outputs:
        By layer name.
    findings:
        What the judge, or the simulator, has to object.
    suspicions:
        What the judge only suspects.
    """

    outputs: dict[str, Array]
    findings: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()
    reliances: Mapping[str, int] = field(default_factory=dict)


class PairUnderTest:
    """A source model and what the official compiler made of it."""

    def __init__(self, source: Path, compiled: Path, samples: int, seed: int, partners: Sequence[Files] = ()) -> None:
        self.source: Model = read_model(source)
        self.compiled: Model = read_model(compiled)
        self.samples = samples
        self.seed = seed
        self._partners = partners
        self._official: dict[tuple[int, int], Run] = {}

    @cached_property
    def packages(self) -> list[tuple[Operator, Package]]:
        """Custom operators of the compiled model and their packages."""
        return packages_of(self.compiled)

    @cached_property
    def generation(self) -> Generation:
        """Which compiler made the official model."""
        return generation_of(*self.packages[0])

    @property
    def executables(self) -> list[Executable]:
        """All official executables."""
        return [e for _, package in self.packages for e in package.executables]

    @cached_property
    def together(self) -> list[PairUnderTest]:
        """This pair, and those at hand that shared the memory with it."""
        found = [self]
        for source, compiled in self._partners:
            with suppress(EtpuError):  # a broken file says so in its own checks
                other = PairUnderTest(source, compiled, self.samples, self.seed)
                if other.members and not any(overlap(other.official_packages, known.official_packages) for known in found):
                    found.append(other)
        return found

    @property
    def official_packages(self) -> list[Package]:
        """Packages of the official model."""
        return [package for _, package in self.packages]

    @cached_property
    def members(self) -> list[Member]:
        """What the official compiler mapped, subgraph by subgraph; empty when we do not cut the same number."""
        graph, several = self.source.main, len(self.packages) > 1
        parts = map_graph(graph, MappingOptions(multiple_subgraphs=several)).subgraphs
        if len(parts) != len(self.packages):
            return []
        return [Member(graph, part, package, self.generation)
                for part, package in zip(parts, self.official_packages, strict=True)]

    @cached_property
    def setting(self) -> Setting | None:
        """How the models of the set were planned; None when there are no members."""
        return settle([pair.members for pair in self.together]) if self.members else None

    @cached_property
    def ours(self) -> CompiledModel:
        """The source, compiled by our compiler with the official token, for the official runtime and generation.

        Together with the models at hand that share the token, as far as we can compile these.
        """
        package = self.packages[0][1]
        options = CompileOptions(package.min_runtime_version, package.execution.token or None,
                                 multiple_subgraphs=len(self.packages) > 1, generation=self.generation)
        if self.setting is None:
            return compile_model(self.source, options)
        order, options = self.setting.order, replace(options, sharing=self.setting.sharing)
        try:
            return compile_models([self.together[i].source for i in order], options)[order.index(0)]
        except EtpuError:
            if len(order) == 1:
                raise
            return compile_model(self.source, options)

    @cached_property
    def our_packages(self) -> list[Package]:
        """What our compiler made."""
        return [p for _, p in packages_of(parse_model(self.ours.data))]

    def tensor_of(self, number: int, layer: Layer) -> Tensor:
        """Return the source tensor that a layer of a package holds.

        It is the one of that name; if there is none, the graph input or output at the same place.

        Raises
        ------
        EtpuError
            When there is no such tensor.
        """
        graph, name = self.source.main, tensor_name(layer)
        elements = layer.y * layer.x * layer.z * layer.executions
        found = [t for t in graph.tensors if t.name == name]
        if found:
            return next((t for t in found if not t.is_constant and t.elements == elements), found[-1])
        theirs = self.compiled.main
        named = {i for op, _ in self.packages[number:number + 1] for i in (*op.inputs, *op.outputs)
                 if i >= 0 and theirs.tensors[i].name == name}
        for mine, other in ((graph.inputs, theirs.inputs), (graph.outputs, theirs.outputs)):
            for a, b in zip(mine, other, strict=False):
                if b in named:
                    return graph.tensors[a]
        raise EtpuError(f"no tensor of the source model is called {name}.")

    def given(self, number: int, sample: int) -> dict[str, Array]:
        """Return seeded inputs of a package by layer name, over the whole range of their tensors' types."""
        rng = np.random.default_rng((self.seed + sample, number))
        return {layer.name: _random_values(self.tensor_of(number, layer), rng)
                for layer in self.packages[number][1].execution.inputs}

    def official(self, number: int, sample: int) -> Run:
        """Run an official package; the first sample comes before the judge."""
        key = number, sample
        if key not in self._official:
            self._official[key] = run(self.packages[number][1], self.given(number, sample), judged=sample == 0)
        return self._official[key]

    def mapped_part(self, number: int) -> tuple[Graph, list[int], list[int]]:
        """Return the source graph and the tensors where the part of a package begins and ends."""
        execution = self.packages[number][1].execution
        return (self.source.main, [self.tensor_of(number, layer).index for layer in execution.inputs],
                [self.tensor_of(number, layer).index for layer in execution.outputs])


def _random_values(tensor: Tensor, rng: np.random.Generator) -> Array:
    dtype = tensor.type.numpy
    if dtype is None or dtype.kind not in "iu":
        raise EtpuError(f"input {tensor.name} of type {tensor.type.name} is no integer tensor.")
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, tensor.shape, dtype, endpoint=True)


def run(package: Package, given: Mapping[str, Array], *, judged: bool) -> Run:
    """Run caching, if there is any, and one inference on a fresh chip."""
    data = {layer.name: encode_input(layer, given[layer.name]) for layer in package.execution.inputs}
    executables = [*([package.caching] if package.caching is not None else []), package.execution]
    if judged:
        report = try_executables(executables, data)
        raw = report.outputs
        found = (tuple(str(f) for f in report.findings if f.certain),
                 tuple(str(f) for f in report.findings if not f.certain), report.reliances)
    else:
        machine = Machine()
        for executable in executables:
            result = machine.run(executable, data if executable is package.execution else None)
        raw, found = result.outputs, (result.findings, (), {})
    return Run({layer.name: decode_output(layer, raw[layer.name]) for layer in package.execution.outputs if raw}, *found)


def simulated_cycles(package: Package) -> int | None:
    """Return the cycles of an inference whose parameters are cached, transfers over USB 3 included.

    None when the program cannot be timed.
    """
    costs, bus = Costs(), BUSES[TIMED_BUS]
    try:
        return round((latency_us(package.execution, bus, costs) - bus.overhead_us) * costs.megahertz)
    except SimulationError:
        return None


def against_kernels(part: tuple[Graph, list[int], list[int]], model: Model, given: list[Array],
                    outputs: list[Array]) -> dict[str, Any]:
    """Compare outputs of the mapped part with TensorFlow Lite's default and reference kernels.

    Returns
    -------
    dict
        Per set of kernels the share of equal values and the largest difference, or why there are none.
    """
    graph, begin, end = part
    operators = tuple(replace(op, index=i) for i, op in enumerate(needed(graph, begin, end)))
    if any(op.name in _NEED_BIAS and graph.input(op, 2) is None for op in operators):
        return {"reason": "TensorFlow Lite's optimised kernels crash on convolutions without a bias"}
    cut = replace(graph, operators=operators, inputs=tuple(begin), outputs=tuple(end))
    content = serialize_model(replace(model, graphs=(cut,), signatures=()))
    return {name: _against(content, plain, given, outputs) for name, plain in (("default", False), ("reference", True))}


def _against(content: bytes, plain: bool, given: list[Array], outputs: list[Array]) -> dict[str, Any]:
    from compiler.graph.interpreter import TfliteModel

    try:
        theirs = TfliteModel(content, reference_kernels=plain).run(given)
    except EtpuError as error:
        return {"reason": error.message}
    return compared([a.reshape(-1) for a in outputs], [a.reshape(-1) for a in theirs])


def compared(ours: list[Array], theirs: list[Array]) -> dict[str, Any]:
    """Return number of values, share of equal ones and largest difference."""
    differences = [np.abs(a.reshape(-1).astype(np.float64) - b.reshape(-1)) for a, b in zip(ours, theirs, strict=True)]
    values = sum(d.size for d in differences)
    equal = sum(int(np.count_nonzero(d == 0)) for d in differences)
    return {"values": values, "equal_share": equal / max(values, 1),
            "largest_difference": max((float(d.max(initial=0)) for d in differences), default=0.0)}


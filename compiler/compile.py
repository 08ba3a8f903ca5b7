"""The whole way: a quantized model in, a model for the Edge TPU out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from compiler.errors import ActivationsTooLargeError, CompilationError, UsageError
from compiler.facts import RUNTIME_INT8_HOST, RUNTIME_VERSION_CURRENT, RUNTIME_VERSION_LOWEST
from compiler.generation import Generation, for_runtime
from compiler.graph import Graph, Model, Operator, TensorType, serialize_model
from compiler.lowering.lowered import LoweredNetwork
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.select import Network, network_of, objection
from compiler.mapping import MappedGraph, MappingOptions, Status, Subgraph, Verdict, check_model, map_graph
from compiler.memory.demand import ModelDemand, for_generation
from compiler.memory.plan import ModelPlan, settled_plan
from compiler.memory.sharing import WHOLE, Sharing
from compiler.package.container import with_custom_operators
from compiler.package.file import serialize_compiled
from compiler.package.layers import input_layer, output_layer, shared_layer
from compiler.package.model import Executable, ExecutableType, Package
from compiler.package.options import CustomOptions, write_custom_options
from compiler.package.writer import write_package
from compiler.records import record


@record
class CompileOptions:
    """What the user asks of a compilation.

    Attributes
    ----------
    token:
        Parameter-caching token, 64 bits, never zero; None draws one.
    intermediate_tensors:
        Per model: names of the outputs of the Edge TPU part.
    first_operators:
        Per model: how many operators from the start may run on the Edge TPU; all by default.
    generation:
        Whose habits the programs have; by default those that the runtime version asks for.
    sharing:
        How the models share the on-chip memory.
    """

    min_runtime_version: int = RUNTIME_VERSION_CURRENT
    token: int | None = None
    intermediate_tensors: tuple[tuple[str, ...], ...] = ()
    multiple_subgraphs: bool = False
    first_operators: tuple[int, ...] = ()
    generation: Generation | None = None
    sharing: Sharing = WHOLE

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not RUNTIME_VERSION_LOWEST <= self.min_runtime_version <= RUNTIME_VERSION_CURRENT:
            raise UsageError(f"min_runtime_version {self.min_runtime_version} is not in "
                             f"{RUNTIME_VERSION_LOWEST}..{RUNTIME_VERSION_CURRENT}.")
        if self.token is not None and not 0 < self.token < 1 << 64:
            raise UsageError(f"the caching token {self.token} is not in 1..2**64-1.")

    @property
    def habits(self) -> Generation:
        """Whose habits the programs have."""
        return self.generation or for_runtime(self.min_runtime_version)


@record
class CompiledModel:
    """A compiled model and the figures of its report.

    Attributes
    ----------
    data:
        The output file.
    plans:
        Per Edge TPU subgraph: which parameters are cached where.
    parts:
        Per Edge TPU subgraph: which instructions serve which operator, see
        :class:`~compiler.lowering.builder.Program`.
    on_chip_used, on_chip_remaining, off_chip:
        Bytes: cached parameters, what is left for others, streamed parameters.
    """

    source: Model
    data: bytes
    mapped: MappedGraph
    plans: tuple[ModelPlan, ...]
    parts: tuple[tuple[tuple[int, str], ...], ...]
    on_chip_used: int
    on_chip_remaining: int
    off_chip: int
    seconds: float

    @property
    def subgraphs(self) -> int:
        """Edge TPU subgraphs."""
        return len(self.mapped.subgraphs)

    @property
    def on_edge_tpu(self) -> int:
        """Operators that run on the Edge TPU."""
        return sum(v.mapped for v in self.mapped.verdicts)

    @property
    def on_cpu(self) -> int:
        """Operators that run on the CPU."""
        return len(self.mapped.verdicts) - self.on_edge_tpu


def compile_models(models: Sequence[Model], options: CompileOptions | None = None) -> tuple[CompiledModel, ...]:
    """Compile models; several share one caching token and the on-chip memory, in this order.

    So do several Edge TPU subgraphs of one model. A model may end up on the CPU as a whole.

    Raises
    ------
    InvalidModelError
        When a model cannot be compiled by anybody (not quantized, dynamic shapes, ...).
    CompilationError
        When the options and the models do not go together, or nothing runs on the Edge TPU because activations
        are too large.
    """
    for model in models:
        check_model(model)
    return compile_checked(models, options or CompileOptions())


def compile_checked(models: Sequence[Model], options: CompileOptions) -> tuple[CompiledModel, ...]:
    """Compile models, or segments of models, that were checked as a whole: a segment may be float throughout."""
    started = time.perf_counter()
    token = options.token or int.from_bytes(os.urandom(8), "little") or 1
    jobs = [_Job(model, options, i) for i, model in enumerate(models)]
    while True:
        parts = [(job, network) for job in jobs for network in job.networks()]
        plan = settled_plan([partial(job.demand, network) for job, network in parts], options.sharing)
        try:
            lowered = [(job, _lower(job, network, own), own) for (job, network), own in
                       zip(parts, plan.models, strict=True)]
            break
        except _Again:
            continue
    seconds = time.perf_counter() - started
    return tuple(job.finish([(network, own) for other, network, own in lowered if other is job], token, plan.remaining,
                            seconds) for job in jobs)


def read_networks(model: Model, options: CompileOptions | None = None) -> tuple[MappedGraph, tuple[ModelDemand, ...]]:
    """Map a model and return what its Edge TPU subgraphs ask of parameter memory; nothing is generated."""
    job = _Job(model, options or CompileOptions())
    networks = job.networks()
    assert job.mapped is not None
    return job.mapped, tuple(network.demand(model.source) for network in networks)


def compile_model(model: Model, options: CompileOptions | None = None) -> CompiledModel:
    """Compile one model; see :func:`compile_models`."""
    return compile_models([model], options)[0]


class _Again(Exception):  # noqa: N818 - control flow
    """An operator was refused: map again without it."""


class _Job:
    """One model on its way; operators that code generation refuses are remembered."""

    def __init__(self, model: Model, options: CompileOptions, position: int = 0) -> None:
        self.model = model
        self.options = options
        self.refused: dict[int, Verdict] = {}
        self.too_large: LoweringRefusal | None = None
        names = options.intermediate_tensors
        tensors = names[position] if position < len(names) else ()
        limits = options.first_operators
        self.mapping_options = MappingOptions(options.min_runtime_version, tensors, options.multiple_subgraphs,
                                              limits[position] if position < len(limits) else None)
        self.mapped: MappedGraph | None = None

    def objection(self, graph: Graph, op: Operator) -> Verdict | None:
        """Objection of code generation, including refusals found on the way."""
        return self.refused.get(op.index) or _host_type_objection(graph, op, self.options) or objection(graph, op)

    def networks(self) -> list[Network]:
        """Map the model and read its subgraphs as networks, without operators that turn out to be refused."""
        while True:
            self.mapped = map_graph(self.model.main, self.mapping_options, self.objection)
            try:
                return [network_of(self.model.main, part, self.options.habits) for part in self.mapped.subgraphs]
            except LoweringRefusal as refused:
                self.refuse(refused)

    def demand(self, network: Network, plan: ModelPlan | None = None) -> ModelDemand:
        """Return what a subgraph asks of parameter memory under a plan made before."""
        return for_generation(network.demand(self.model.source, plan), self.options.habits)

    def refuse(self, refused: LoweringRefusal) -> None:
        """Remember a refusal."""
        if refused.operator in self.refused:
            raise CompilationError(f"{self.model.source}: {refused.message}") from refused
        self.refused[refused.operator] = refused.verdict
        if refused.too_large and self.too_large is None:
            self.too_large = refused

    def finish(self, lowered: Sequence[tuple[LoweredNetwork, ModelPlan]], token: int, remaining: int,
               seconds: float) -> CompiledModel:
        """Put programs into the model, a custom operator per subgraph."""
        mapped = self.mapped
        assert mapped is not None
        if not mapped.subgraphs and self.too_large is not None:
            raise ActivationsTooLargeError(f"{self.model.source}: {self.too_large.message}", advice=self.too_large.advice)
        parts = []
        for part, (network, _) in zip(mapped.subgraphs, lowered, strict=True):
            package = build_package(self.model.main, part, network, token, self.options.min_runtime_version)
            blob = write_custom_options(CustomOptions(write_package(package)))
            parts.append((part.operators, part.inputs, part.outputs, blob))
        data = serialize_compiled(with_custom_operators(self.model, parts)) if parts else serialize_model(self.model)
        plans = tuple(plan for _, plan in lowered)
        programs = tuple(network.execution.parts for network, _ in lowered)
        return CompiledModel(self.model, data, mapped, plans, programs, sum(plan.used for plan in plans), remaining,
                             sum(len(network.streamed) for network, _ in lowered), seconds)


def _host_type_objection(graph: Graph, op: Operator, options: CompileOptions) -> Verdict | None:
    """Runtimes before 12 exchange uint8 only; int8 graph inputs and outputs need a newer one."""
    if options.min_runtime_version >= RUNTIME_INT8_HOST:
        return None
    for t in graph.activations(op):
        if t.type is TensorType.INT8 and (t.index in graph.inputs or t.index in graph.outputs):
            return Verdict(Status.DATA_TYPE, f"{op.title}: {t.name} is INT8 host data, which needs runtime version "
                           f"{RUNTIME_INT8_HOST}; the model is compiled for {options.min_runtime_version}.",
                           "Convert the model with uint8 inference input and output types.")
    return None


def _lower(job: _Job, network: Network, plan: ModelPlan) -> LoweredNetwork:
    try:
        return network.lower(plan)
    except LoweringRefusal as refused:
        job.refuse(refused)
        raise _Again from refused


def build_package(graph: Graph, part: Subgraph, network: LoweredNetwork, token: int, min_runtime_version: int) -> Package:
    """Describe the programs of a subgraph for the runtime."""
    execution = Executable(
        type=ExecutableType.EXECUTION_ONLY if network.caching is not None else ExecutableType.STAND_ALONE,
        name="model", chunks=network.execution.chunks, parameters=network.streamed, hints=network.execution.hints,
        inputs=tuple(input_layer(graph.tensors[t], network.views.get(t)) for t in part.inputs),
        outputs=tuple(shared_layer(graph.tensors[t], network.shared[t]) if t in network.shared
                      else output_layer(graph.tensors[t]) for t in part.outputs),
        token=token, batch_size=1, chip="beagle", used_narrow_bytes=network.narrow_bytes, serialized_model=b"",
    )
    executables = [execution]
    if network.caching is not None:
        executables.append(replace(
            execution, type=ExecutableType.PARAMETER_CACHING, name="Unknown", chunks=network.caching.chunks,
            parameters=network.cached, hints=network.caching.hints, inputs=(), outputs=(), used_narrow_bytes=0,
            serialized_model=None))
    return Package(tuple(executables), min_runtime_version, compiler_version="cl/", model_identifier="")

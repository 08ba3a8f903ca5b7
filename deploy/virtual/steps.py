"""A compiled model as a sequence of steps: operators of the Edge TPU, and runs of CPU operators between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy.typing as npt

from compiler.facts import CUSTOM_OPERATOR
from compiler.graph import Graph, Model, Operator, Tensor, serialize_model
from compiler.graph.interpreter import TfliteModel
from compiler.package import Layer, Package, decode_output, encode_input, tensor_name
from deploy.compiled import packages_in
from deploy.errors import VirtualDeviceError
from deploy.virtual.tpu import TpuRun, VirtualTpu

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TpuStep:
    """One custom operator and the package in it."""

    graph: Graph
    operator: Operator
    package: Package

    @property
    def title(self) -> str:
        """How messages call the step."""
        return self.operator.title

    def run(self, tpu: VirtualTpu, values: dict[int, Array]) -> TpuRun:
        """Run on an Edge TPU and add the results to `values`."""
        executable = self.package.execution
        inputs = {layer.name: encode_input(layer, values[self.tensor(layer).index]) for layer in executable.inputs}
        run = tpu.invoke(self.package, inputs)
        for layer in executable.outputs:
            tensor = self.tensor(layer)
            values[tensor.index] = decode_output(layer, run.outputs[layer.name]).reshape(tensor.shape)
        return run

    def tensor(self, layer: Layer) -> Tensor:
        """Return the tensor of a layer: they have the same name; next values of variable tensors name these.

        Raises
        ------
        VirtualDeviceError
            There is none.
        """
        name = tensor_name(layer)
        variable = name != layer.name
        indices = self.operator.outputs if layer.is_output and not variable else self.operator.inputs
        for index in indices:
            if self.graph.tensors[index].name == name:
                return self.graph.tensors[index]
        kind = "output" if layer.is_output else "input"
        raise VirtualDeviceError(f"{kind} {layer.name!r} of the package in {self.title} is no tensor of the operator.")


@dataclass(frozen=True)
class CpuStep:
    """Neighbouring CPU operators as a model of their own.

    Attributes
    ----------
    inputs, outputs:
        Tensor indices of the whole graph.
    """

    model: Model
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def title(self) -> str:
        """How messages call the step."""
        return f"the CPU part from {self.model.main.operators[0].title}"

    @cached_property
    def _interpreter(self) -> TfliteModel:
        return TfliteModel(serialize_model(self.model))

    def run(self, values: dict[int, Array]) -> None:
        """Run in the TensorFlow Lite interpreter and add the results to `values`."""
        results = self._interpreter.run([values[index] for index in self.inputs])
        values.update(zip(self.outputs, results, strict=True))


Step = TpuStep | CpuStep


def steps_of(model: Model) -> tuple[Step, ...]:
    """Cut a model into steps, in execution order.

    Raises
    ------
    PackageError
        A package is damaged.
    """
    return tuple(_steps(model))


def _steps(model: Model) -> Iterator[Step]:
    packages = packages_in(model)
    graph = model.main
    for on_tpu, group in groupby(graph.operators, key=lambda op: op.custom_name == CUSTOM_OPERATOR):
        operators = tuple(group)
        if on_tpu:
            yield from (TpuStep(graph, operator, packages[operator.index]) for operator in operators)
        else:
            yield _cpu_step(model, operators)


def _cpu_step(model: Model, operators: Sequence[Operator]) -> CpuStep:
    graph = model.main
    mine = {op.index for op in operators}
    produced = {index for op in operators for index in op.outputs}
    reads = dict.fromkeys(index for op in operators for index in op.inputs if index >= 0)
    inputs = tuple(i for i in reads if i not in produced and not graph.tensors[i].is_constant)
    wanted = set(graph.outputs)
    wanted.update(i for op in graph.operators if op.index not in mine for i in op.inputs)
    outputs = tuple(sorted(produced & wanted))
    part = Graph(graph.name, graph.tensors, tuple(operators), inputs, outputs)
    # signatures name the tensors of the whole graph
    rest = replace(model, graphs=(part, *model.graphs[1:]), metadata=(), signatures=(), raw=None)
    return CpuStep(rest, inputs, outputs)

"""The judge on programs of our own: nothing to find when they are whole, something when a sync field is spoiled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from compiler.beagle.isa import Instruction, decode_stream, encode_stream
from compiler.beagle.judge import Report, try_executables
from compiler.beagle.simulator import Machine
from compiler.compile import CompileOptions, compile_model
from compiler.graph import Model, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.package import Package, encode_input
from compiler.package.container import packages_of


def dense(*sizes: int) -> Model:
    rng = np.random.default_rng(3)
    b = GraphBuilder()
    x = b.add_input((1, sizes[0]), scale=0.02)
    for m in sizes[1:]:
        w = b.quantized_weights(rng.normal(size=(m, b.tensors[x].shape[-1])), per_channel=True)
        x = b.fully_connected(x, w, b.bias(rng.normal(size=m), x, w), scale=0.4)
    return parse_model(serialize_model(b.build(x)), "dense")


def package_of(*sizes: int) -> Package:
    return packages_of(parse_model(compile_model(dense(*sizes), CompileOptions(token=1)).data))[0][1]


def tried(package: Package, program: list[Instruction] | None = None) -> Report:
    execution = package.execution
    if program is not None:
        chunk = dataclasses.replace(execution.chunks[0], data=encode_stream(program))
        execution = dataclasses.replace(execution, chunks=(chunk,))
    (layer,) = execution.inputs
    x = np.random.default_rng(0).integers(-128, 128, layer.z, np.int8)
    before = [package.caching] if package.caching else []
    return try_executables([*before, execution], {layer.name: encode_input(layer, x)})


@pytest.mark.parametrize("sizes", [(300, 77, 10), (17, 1030, 64, 5), (9000, 2100, 10)])
def test_whole_programs_have_no_findings(sizes: tuple[int, ...]) -> None:
    report = tried(package_of(*sizes))
    assert report.findings == ()
    assert report.outputs


@pytest.fixture(scope="module")
def package() -> Package:
    return package_of(300, 200, 100)


def spoil(package: Package, name: str, **values: int) -> Report:
    """Change the last instruction of a name that moves packets (scaling registers wait for nothing new)."""
    program = list(decode_stream(package.execution.chunks[0].data))
    at = max(i for i, ins in enumerate(program) if ins.name == name and not ins.values.get("to_scaling"))
    program[at] = program[at].replace(**values)
    return tried(package, program)


@pytest.mark.parametrize(("name", "field"), [("wide_to_narrow", "watch0__valid"), ("ring_send", "watch0__valid"),
                                             ("ring_send", "watch1__valid"), ("outfeed", "to_host")])
def test_a_dropped_field_is_found(package: Package, name: str, field: str) -> None:
    assert spoil(package, name, **{field: 0}).findings


def test_a_finding_names_both_instructions(package: Package) -> None:
    findings = [f for f in spoil(package, "wide_to_narrow", watch0__valid=0).findings if f.kind == "race"]
    assert findings
    assert len(findings[0].instructions) == 2
    assert "nothing makes it wait for" in str(findings[0])


def test_a_program_that_stops_is_reported(package: Package) -> None:
    report = spoil(package, "wide_to_narrow", watch0__count=30_000)
    assert [f.kind for f in report.findings][-1] == "stop"
    assert report.outputs == {}


def test_outputs_that_depend_on_old_memory_are_found(package: Package) -> None:
    """Results are sent from a place that no layer writes."""
    program = list(decode_stream(package.execution.chunks[0].data))
    for i, ins in enumerate(program):
        if ins.name == "narrow_to_wide":
            program[i] = ins.with_values({"src.start": 40_000})
    assert "unwritten read" in {f.kind for f in tried(package, program).findings}


@pytest.mark.parametrize(("name", "prefix", "clue"), [
    ("narrow_to_wide", "src", "is older than"),
    ("wide_to_narrow", "dst", "is older than"),
    ("ring_send", "src", "is older than"),
    ("wide_to_narrow", "src", "wrote for nobody else"),
    ("wide_to_narrow", "dst", "skipped"),
])
def test_an_address_one_unit_off_is_suspected(package: Package, name: str, prefix: str, clue: str) -> None:
    """The same wrong result in every order: no counter is spoiled, the ledger sees what is read and what is not."""
    program = decode_stream(package.execution.chunks[0].data)
    field = f"{prefix}.start"
    for at in (i for i, ins in enumerate(program) if ins.name == name and field in ins.values):
        spoiled = [*program[:at], program[at].with_values({field: program[at][field] + 1}), *program[at + 1:]]
        if any(f.kind == "displaced" and clue in f.message for f in tried(package, spoiled).findings):
            return
    pytest.fail(f"no shift of {name} is suspected so")


def test_noise_does_not_reach_the_outputs(package: Package) -> None:
    (layer,) = package.execution.inputs
    data = {layer.name: encode_input(layer, np.ones(layer.z, np.int8))}
    outputs = []
    for noise in (None, 1, 2):
        machine = Machine(noise_seed=noise)
        assert package.caching is not None
        machine.run(package.caching)
        outputs.append(machine.run(package.execution, data).outputs)
    assert outputs[0] == outputs[1] == outputs[2]

"""Official programs with one sync field spoiled: what a judge must notice.

A mutation *matters* if some schedule out of several adversarial ones stops, leaves something behind
or gives other outputs than the official program.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from compiler.beagle.isa import Instruction, decode_stream, encode_stream
from compiler.beagle.isa.counters import ScalarCounter, TileCounter
from compiler.beagle.judge import try_executables
from compiler.beagle.simulator import Machine, SimulationError
from compiler.graph import read_model
from compiler.package import Executable, dtype_of, encode_input
from compiler.package.container import packages_of

SCHEDULES = 8
KINDS = ("dropped watch", "watch value - 1", "wrong counter", "missing fence", "shifted address")


@dataclass(frozen=True)
class Subject:
    """A package of one stream with inputs."""

    caching: Executable | None
    execution: Executable
    inputs: dict[str, bytes]
    program: tuple[Instruction, ...]

    def executables(self, execution: Executable) -> list[Executable]:
        """Return what runs: caching, if there is any, and an execution."""
        return [*([self.caching] if self.caching else []), execution]

    def mutated(self, at: int, ins: Instruction) -> Executable:
        """Return the execution with one instruction replaced."""
        program = [*self.program[:at], ins, *self.program[at + 1:]]
        chunk = dataclasses.replace(self.execution.chunks[0], data=encode_stream(program))
        return dataclasses.replace(self.execution, chunks=(chunk,))


def subject(path: Path) -> Subject:
    """Read a compiled model whose first package has one stream."""
    _, package = packages_of(read_model(path))[0]
    rng = np.random.default_rng(7)
    inputs = {}
    for layer in package.execution.inputs:
        dtype = dtype_of(layer)
        noise = rng.integers(0, 256, layer.y * layer.x * layer.z * dtype.itemsize, np.uint8).view(dtype)
        inputs[layer.name] = encode_input(layer, noise)
    (chunk,) = package.execution.chunks
    return Subject(package.caching, package.execution, inputs, tuple(decode_stream(chunk.data)))


def _watches(ins: Instruction) -> list[str]:
    return [w for w in ins.form.watches if ins[f"{w}.valid"]]


def _drop(ins: Instruction, random: Random) -> Instruction | None:
    watches = _watches(ins)
    return ins.with_values({f"{random.choice(watches)}.valid": 0}) if watches else None


def _earlier(ins: Instruction, random: Random) -> Instruction | None:
    watches = [w for w in _watches(ins) if ins[f"{w}.count"] > ins.form.by_name[f"{w}.count"].minimum]
    if not watches:
        return None
    w = random.choice(watches)
    return ins.with_values({f"{w}.count": ins[f"{w}.count"] - 1})


def _other_counter(ins: Instruction, random: Random) -> Instruction | None:
    watches = _watches(ins)
    if not watches:
        return None
    w = random.choice(watches)
    counters = range(len(ScalarCounter) if ins.form.scalar else len(TileCounter))
    return ins.with_values({f"{w}.counter": random.choice([c for c in counters if c != ins[f"{w}.counter"]])})


def _no_fence(ins: Instruction, random: Random) -> Instruction | None:
    if ins.name == "tile_fence" and ins["engines"]:
        return ins.with_values({"engines": 0})
    if ins.name == "scalar_fence":
        waits = [f"wait{i}.enable" for i in range(9) if ins[f"wait{i}.enable"]] + ["wait_tiles"] * ins["wait_tiles"]
        return ins.with_values({random.choice(waits): 0}) if waits else None
    return None


def _shifted(ins: Instruction, random: Random) -> Instruction | None:
    if ins.form.scalar or not ins.form.generators:
        return None
    used = [g for g in ins.form.generators if any(name.startswith(f"{g.prefix}.") for name in ins.values)]
    if not used:
        return None
    name = f"{random.choice(used).prefix}.start"
    step = 4 if ins.name.startswith("tensor") else 1
    return ins.with_values({name: ins[name] + step}) if ins[name] + step <= ins.form.by_name[name].maximum else None


MUTATORS: dict[str, Callable[[Instruction, Random], Instruction | None]] = dict(
    zip(KINDS, (_drop, _earlier, _other_counter, _no_fence, _shifted), strict=True))


@dataclass
class Tally:
    """Counts per kind of mutation.

    Attributes
    ----------
    by_judge:
        Found by the judge alone, its suspicions included.
    detected:
        Found by it or because the outputs of the plain run are not the official ones.
    missed:
        What the judge alone does not find.
    """

    tried: Counter[str] = dataclasses.field(default_factory=Counter)
    harmful: Counter[str] = dataclasses.field(default_factory=Counter)
    by_judge: Counter[str] = dataclasses.field(default_factory=Counter)
    detected: Counter[str] = dataclasses.field(default_factory=Counter)
    missed: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{kind}: {self.tried[kind]} tried, {self.harmful[kind]} matter, {self.by_judge[kind]} found by the judge "
                 f"alone, {self.detected[kind]} with outputs compared" for kind in KINDS]
        total = self.harmful.total() or 1
        return "\n".join([*lines, f"in all: {self.tried.total()} tried, {self.harmful.total()} matter, "
                          f"{self.by_judge.total() / total:.1%} found by the judge alone, "
                          f"{self.detected.total() / total:.1%} with outputs compared"])


def matters(case: Subject, execution: Executable, truth: dict[str, bytes]) -> bool:
    """Tell whether some adversarial schedule does not give the official outputs."""
    for seed in (None, *range(SCHEDULES)):
        machine = Machine(seed)
        try:
            if case.caching is not None:
                machine.run(case.caching)
            result = machine.run(execution, case.inputs)
        except SimulationError:
            return True
        if result.outputs != truth or result.findings:
            return True
    return False


def try_mutations(paths: list[Path], count: int, seed: int) -> Tally:
    """Spoil ``count`` fields of official programs, evenly over kinds and programs."""
    random = Random(seed)
    subjects = [(path.name, subject(path)) for path in paths]
    truths = [try_executables(case.executables(case.execution), case.inputs).outputs for _, case in subjects]
    tally = Tally()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        pick = number // len(KINDS) % len(subjects)
        name, case = subjects[pick]
        while True:
            at = random.randrange(len(case.program))
            spoiled = MUTATORS[kind](case.program[at], random)
            if spoiled is not None:
                break
        execution = case.mutated(at, spoiled)
        tally.tried[kind] += 1
        report = try_executables(case.executables(execution), case.inputs)
        wrong = report.outputs != truths[pick]
        if not wrong and not matters(case, execution, truths[pick]):
            continue
        tally.harmful[kind] += 1
        tally.by_judge[kind] += bool(report.findings)
        tally.detected[kind] += bool(report.findings) or wrong
        if not report.findings:
            changed = {k: (case.program[at][k], v) for k, v in spoiled.values.items() if case.program[at][k] != v}
            gone = [k for k in case.program[at].values if k not in spoiled.values]
            tally.missed.append(f"{name}: {spoiled.name} at {spoiled.offset:#x}: {changed or gone}")
    return tally

"""``etpu simulate``: one inference of a compiled model on the simulator."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from compiler.errors import UsageError


def simulate_command(
    model: Annotated[str, typer.Argument(help="A compiled model.")],
    seed: Annotated[int, typer.Option(help="Seed of the random input.")] = 0,
    judge: Annotated[bool, typer.Option("--judge", help="Look for races in all orders of engines, too.")] = False,
    input_file: Annotated[str, typer.Option("--input", help="Input tensor as .npy instead of a random one.")] = "",
) -> None:
    """Run one inference of every Edge TPU executable of a model on the simulated chip."""
    import numpy as np

    from compiler.beagle.judge import try_executables
    from compiler.beagle.simulator import Machine
    from compiler.graph import read_model
    from compiler.package import dtype_of, encode_input
    from compiler.package.container import packages_of

    packages = packages_of(read_model(model))
    if not packages:
        raise UsageError(f"{model}: holds no Edge TPU executable.", advice="Compile it first: etpu compile MODEL")
    failed = False
    rng = np.random.default_rng(seed)
    for op, package in packages:
        machine = Machine()
        if package.caching is not None:
            machine.run(package.caching)
        inputs = {}
        for layer in package.execution.inputs:
            dtype = dtype_of(layer)
            noise = rng.integers(0, 256, layer.y * layer.x * layer.z * dtype.itemsize, np.uint8).view(dtype)
            array = np.load(input_file) if input_file else noise
            inputs[layer.name] = encode_input(layer, array)
        started = time.perf_counter()
        result = machine.run(package.execution, inputs)
        seconds = time.perf_counter() - started
        print(f"{op.title}: simulated {result.instructions} scalar steps in {seconds:.3f} s")
        for name, data in result.outputs.items():
            print(f"  output {name}: {len(data)} bytes, mean {np.frombuffer(data, np.uint8).mean():.2f}")
        findings = list(result.findings)
        if judge:
            report = try_executables([*([package.caching] if package.caching else []), package.execution], inputs)
            findings = [str(finding) for finding in report.findings]
            relied = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.reliances.items())
            print(f"  judge: {len(findings)} findings; beside the counters it relies on: {relied}")
        for finding in findings:
            print(f"  finding: {finding}")
        failed = failed or bool(findings)
    if failed:
        raise typer.Exit(1)

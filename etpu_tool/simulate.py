"""``etpu simulate``: one inference of a compiled model on the simulator."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.errors import UsageError

if TYPE_CHECKING:
    from compiler.beagle.simulator import Machine
    from compiler.package import Package


def simulate_command(
    model: Annotated[str, typer.Argument(help="A compiled model.")],
    seed: Annotated[int, typer.Option(help="Seed of the random input.")] = 0,
    input_file: Annotated[str, typer.Option("--input", help="Input tensor as .npy instead of a random one.")] = "",
    source: Annotated[str, typer.Option(help="Source model, to compare with TensorFlow Lite's reference kernels; "
                                             "found by itself when X.tflite lies beside X_edgetpu.tflite.")] = "",
    judge: Annotated[bool, typer.Option("--judge", help="Look for races in all orders of engines, too.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Print simulated time per layer and per engine.")] = False,
    bus: Annotated[str, typer.Option(help="Bus of the simulated device: usb2, usb3 or pcie.")] = "usb3",
    json_file: Annotated[str, typer.Option("--json", help="Write the timeline as JSON.")] = "",
    trace_file: Annotated[str, typer.Option("--trace", help="Write the timeline as a Chrome trace, for Perfetto.")] = "",
) -> None:
    """Run one inference of every Edge TPU executable of a model on the simulated chip."""
    from compiler.beagle.timing import BUSES
    from compiler.graph import read_model
    from compiler.package.container import packages_of

    if bus not in BUSES:
        raise UsageError(f"--bus {bus}: there is no such bus.", advice=f"Choose one of {', '.join(BUSES)}.")
    packages = packages_of(read_model(model))
    if not packages:
        raise UsageError(f"{model}: holds no Edge TPU executable.", advice="Compile it first: etpu compile MODEL")
    findings, seconds = 0, 0.0
    reports: list[dict[str, Any]] = []
    traces: list[dict[str, Any]] = []
    for op, package in packages:
        inputs = _inputs(package, input_file, seed)
        seconds += _run(op.title, package, inputs)
        if judge:
            findings += _judge(package, inputs)
        if timeline or json_file or trace_file:
            report, trace = _time(op.title, package, inputs, bus, printed=timeline)
            reports.append(report)
            traces.append(trace)
    _compare(model, source, seconds)
    if json_file:
        Path(json_file).write_text(json.dumps({"schema": 1, "bus": bus, "executables": reports}, indent=1))
    if trace_file:
        events = [event for trace in traces for event in trace["traceEvents"]]
        Path(trace_file).write_text(json.dumps({"displayTimeUnit": "ns", "traceEvents": events}))
    if findings:
        raise typer.Exit(1)


def _inputs(package: Package, input_file: str, seed: int) -> dict[str, bytes]:
    """Input buffers: the given tensor, or seeded noise."""
    import numpy as np

    from compiler.package import dtype_of, encode_input

    rng = np.random.default_rng(seed)
    inputs = {}
    for layer in package.execution.inputs:
        dtype = dtype_of(layer)
        noise = rng.integers(0, 256, layer.y * layer.x * layer.z * dtype.itemsize, np.uint8).view(dtype)
        inputs[layer.name] = encode_input(layer, np.load(input_file) if input_file else noise)
    return inputs


def _cached(package: Package) -> Machine:
    """Return a chip with the parameters cached."""
    from compiler.beagle.simulator import Machine

    machine = Machine()
    if package.caching is not None:
        machine.run(package.caching)
    return machine


def _run(title: str, package: Package, inputs: dict[str, bytes]) -> float:
    import numpy as np

    machine = _cached(package)
    started = time.perf_counter()
    result = machine.run(package.execution, inputs)
    seconds = time.perf_counter() - started
    print(f"{title}: simulated {result.instructions} scalar steps in {seconds:.3f} s")
    for name, data in result.outputs.items():
        print(f"  output {name}: {len(data)} bytes, mean {np.frombuffer(data, np.uint8).mean():.2f}")
    for finding in result.findings:
        print(f"  finding: {finding}")
    return seconds


def _judge(package: Package, inputs: dict[str, bytes]) -> int:
    from compiler.beagle.judge import try_executables

    report = try_executables([*([package.caching] if package.caching else []), package.execution], inputs)
    relied = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.reliances.items())
    print(f"  judge: {len(report.findings)} findings; beside the counters it relies on: {relied}")
    for finding in report.findings:
        print(f"  finding: {finding}")
    return len(report.findings)


def _time(title: str, package: Package, inputs: dict[str, bytes], bus: str, *,
          printed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time one cached inference; returns the timeline and a Chrome trace."""
    from compiler.beagle.timing import BUSES, Costs, chrome_trace, record, schedule, timeline

    times = schedule(record(_cached(package), package.execution, inputs), Costs(), BUSES[bus])
    report = {"operator": title, **timeline(times)}
    if printed:
        _print_timeline(report, bus)
    return report, chrome_trace(times)


def _print_timeline(report: dict[str, Any], bus: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    console.print(f"{report['operator']}: {report['total_us'] / 1000:.3f} ms on {bus} (simulated)", highlight=False)
    layers = Table("layer", "begin µs", "end µs", "compute µs", "moves µs", box=None)
    for row in report["layers"]:
        layers.add_row(row["heading"], *(f"{row[k]:.1f}" for k in ("begin_us", "end_us", "compute_us", "moves_us")))
    engines = Table("engine", "busy µs", "share", box=None)
    for row in report["engines"]:
        engines.add_row(row["name"], f"{row['busy_us']:.1f}", f"{row['share']:.1%}")
    console.print(layers)
    console.print(engines)


def _compare(model: str, source: str, seconds: float) -> None:
    """Print how the simulator's speed compares with TensorFlow Lite's reference kernels on the source."""
    import numpy as np

    from compiler.graph.interpreter import TfliteModel

    path = Path(source or model.removesuffix("_edgetpu.tflite") + ".tflite")
    if not path.exists() or path == Path(model):
        print("  (give --source X.tflite to compare with TensorFlow Lite's reference kernels)")
        return
    interpreter = TfliteModel(path.read_bytes(), reference_kernels=True)
    zeros = [np.zeros(t.shape, t.dtype) for t in interpreter.inputs]
    started = time.perf_counter()
    interpreter.run(zeros)
    reference = time.perf_counter() - started
    print(f"  TensorFlow Lite reference kernels: {reference:.3f} s; the simulator: {seconds / reference:.1f} times that")

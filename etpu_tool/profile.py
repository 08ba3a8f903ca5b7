"""``etpu profile``: latency on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etpu_tool.deploy import Device, Timeout, current_release

if TYPE_CHECKING:
    from deploy.releases import Release
    from deploy.session import DeviceSession


def profile_command(
    model: Annotated[str, typer.Argument(help="A .tflite file, compiled or not, or the name of a deployed model.")],
    device: Device,
    runs: Annotated[int, typer.Option(min=1, help="Warm inferences.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    timeout: Timeout = 10.0,
) -> None:
    """Measure first (uncached) and warm (cached) latency of a model on a device."""
    from deploy.inventory import Inventory
    from deploy.session import connect
    from profiler.latency import measure

    found = Inventory().get(device)
    with connect(found, timeout=timeout) as session:
        if Path(model).suffix != ".tflite":
            release = current_release(session, model)
            if len(release.paths) > 1:
                _profile_pipeline(session, release, runs, device, as_json=as_json)
                return
            report = measure(session.agent, release.paths[0], runs=runs)
        else:
            report = measure(session.agent, _compiled(model, session.agent.runtime().version), runs=runs)
    if as_json:
        print(json.dumps({"model": model, "device": device, **report.as_json()}, indent=2))
        return
    label = " (simulated)" if report.simulated else ""
    print(f"latency of {model} on {found.where}{label}")
    rows = [("first (uncached)", report.first_us), ("warm (cached) p50", report.percentile(50)),
            ("warm (cached) p90", report.percentile(90)), ("warm (cached) p99", report.percentile(99)),
            ("  host part", report.host_us), ("  device part", report.device_us)]
    for name, value in rows:
        print(f"  {name:<20} {'-' if value is None else f'{value / 1000:10.3f} ms'}")


def _profile_pipeline(session: DeviceSession, release: Release, runs: int, device: str, *, as_json: bool) -> None:
    from deploy.inference import load_pipeline
    from profiler.pipeline import measure_pipeline

    files = release.manifest.files
    pipeline = load_pipeline(session, release.paths, [file.on_tpu for file in files])
    report = measure_pipeline(pipeline, [file.name for file in files], runs=runs)
    if as_json:
        print(json.dumps({"model": release.manifest.model, "device": device, **report.as_json()}, indent=2))
        return
    label = " (simulated)" if report.simulated else ""
    print(f"pipeline of {len(files)} segments of {release.manifest.model} on {session.transport.where}{label}")
    for segment in report.segments:
        first = "-" if segment.first_us is None else f"{segment.first_us / 1000:.3f} ms"
        mark = "  slowest" if segment is report.slowest else ""
        print(f"  {segment.name}: first {first}, warm p50 {segment.warm_us / 1000:.3f} ms{mark}")
    print(f"  one inference through all: {report.latency_us / 1000:.3f} ms")
    print(f"  all at work: {report.per_second:.1f} inferences per second")


def _compiled(path: str, runtime: int) -> bytes:
    """Return the file's bytes, compiled for the runtime if it is a source model."""
    from compiler.compile import CompileOptions, compile_model
    from compiler.facts import CUSTOM_OPERATOR, RUNTIME_VERSION_CURRENT
    from compiler.graph import read_model

    model = read_model(path)
    if any(op.custom_name == CUSTOM_OPERATOR for op in model.main.operators):
        return Path(path).read_bytes()
    return compile_model(model, CompileOptions(min(runtime, RUNTIME_VERSION_CURRENT))).data

"""``etpu profile``: latency on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from compiler.errors import EtpuError
from etpu_tool.deploy import Device, Timeout


def profile_command(
    model: Annotated[str, typer.Argument(help="A .tflite file, compiled or not, or the name of a deployed model.")],
    device: Device,
    runs: Annotated[int, typer.Option(min=1, help="Warm inferences.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    timeout: Timeout = 10.0,
) -> None:
    """Measure first (uncached) and warm (cached) latency of a model on a device."""
    from deploy.inventory import Inventory
    from deploy.session import DeviceSession, connect
    from profiler.latency import measure

    found = Inventory().get(device)

    def target(session: DeviceSession) -> str | bytes:
        if Path(model).suffix != ".tflite":
            from deploy.deployer import releases

            current = next((r for r in releases(session, model) if r.current), None)
            if current is None:
                raise EtpuError(f"no current release of {model} is on {found.where}.",
                                advice="Deploy it first: etpu deploy")
            return current.paths[0]
        return _compiled(model, session.agent.runtime().version)

    with connect(found, timeout=timeout) as session:
        report = measure(session.agent, target(session), runs=runs)
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


def _compiled(path: str, runtime: int) -> bytes:
    """Return the file's bytes, compiled for the runtime if it is a source model."""
    from compiler.compile import CompileOptions, compile_model
    from compiler.facts import CUSTOM_OPERATOR, RUNTIME_VERSION_CURRENT
    from compiler.graph import read_model

    model = read_model(path)
    if any(op.custom_name == CUSTOM_OPERATOR for op in model.main.operators):
        return Path(path).read_bytes()
    return compile_model(model, CompileOptions(min(runtime, RUNTIME_VERSION_CURRENT))).data

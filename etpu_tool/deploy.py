"""``etpu deploy``, ``rollback`` and ``releases``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.errors import EtpuError, UsageError
from etpu_tool.compile import parse_token
from etpu_tool.compiling import BALANCES

if TYPE_CHECKING:
    from compiler.compile import CompiledModel, CompileOptions
    from compiler.graph import Model
    from deploy.deployer import SmokeTest, Target
    from deploy.releases import Release
    from deploy.session import DeviceSession

Device = Annotated[str, typer.Option("--device", "-d", help="Name of the device (etpu devices list).")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds until a device that does not answer is given up.")]
SMOKE_TOLERANCE = 1
"""The chip rounds with a float multiplier: a tie may land one step beside TensorFlow Lite."""


def deploy_command(
    model: Annotated[str, typer.Argument(help="A quantized .tflite file, or one that is compiled already.")],
    device: Device,
    name: Annotated[str, typer.Option(help="Name of the model on the device; by default the file's.")] = "",
    token: Annotated[str, typer.Option(help="Caching token; random by default.")] = "",
    keep: Annotated[int, typer.Option(help="Older releases kept on the device.")] = 5,
    num_segments: Annotated[int, typer.Option("--num_segments", "--num-segments", "-n",
                                              help="Segments, each for an Edge TPU of its own; by default as many as pay "
                                                   "off.")] = 0,
    balance: Annotated[str, typer.Option(help="How to cut: latency (fastest slowest segment) or parameters (as the official "
                                              "compiler).")] = "latency",
    timeout: Timeout = 10.0,
) -> None:
    """Compile a model for a device, upload it, try it out there and switch to it."""
    from compiler.compile import CompileOptions
    from compiler.graph import read_model
    from compiler.output import output_path
    from deploy.deployer import deploy
    from deploy.inventory import Inventory
    from deploy.session import connect

    found = Inventory().get(device)
    read = read_model(model)

    def compile_for(target: Target) -> Mapping[str, bytes]:
        if is_compiled(read):
            print(f"{model} is compiled already and goes to {found.where} as it is")
            return {Path(model).name: source}
        options = CompileOptions(target.min_runtime_version, parse_token(token))
        compiled = _segments(read, options, num_segments, balance, target, getattr(found, "bus", ""))
        print(f"compiled for runtime version {target.min_runtime_version} of {found.where}")
        for one in compiled:
            _report(one, output_path(one.source.source))
        return {output_path(one.source.source).name: one.data for one in compiled}

    source = Path(model).read_bytes()
    smoke = smoke_test(source, read)
    with connect(found, timeout=timeout) as session:
        report = deploy(session, name or Path(model).stem, source, compile_for, smoke, keep=keep)
    simulated = " (simulated)" if report.simulated else ""
    number = report.release.manifest.release
    print(f"\nrelease {number} of {name or Path(model).stem} is current on {found.where}{simulated}")
    print(f"smoke inference{simulated}: {report.smoke.values} values, {report.smoke.differing} differ from the host's")


def _segments(model: Model, options: CompileOptions, count: int, balance: str, target: Target, bus: str
              ) -> Sequence[CompiledModel]:
    """Compile a model, cut into segments where the device has several Edge TPUs and that pays off."""
    if count < 0 or balance not in BALANCES:
        raise UsageError(f"num_segments is a number from 1, balance one of {', '.join(BALANCES)}.")
    from compiler.beagle.timing.costs import BUSES
    from compiler.compile import compile_model
    from compiler.segments.compile import Segmenter

    most = count or len(target.tpus)
    if most < 2:
        return (compile_model(model, options),)
    kind = "pcie" if target.tpus and target.tpus[0].type == "pcie" else "usb3"
    segmenter = Segmenter(model, options, bus=BUSES[bus or kind])
    if not count:
        cut = segmenter.worthwhile(most)
    else:
        cut = segmenter.by_latency(count) if balance == "latency" else segmenter.by_parameters(count)
    if len(cut.ends) == 1:
        print(f"one Edge TPU is enough: segments for {most} would not be faster (by the cycle model)")
    else:
        whole = segmenter.by_parameters(1).slowest
        print(f"cut into {len(cut.ends)} segments: the slowest takes {cut.slowest / 1000:.2f} ms, the whole model would "
              f"take {whole / 1000:.2f} ms (by the cycle model)")
    return segmenter.compile(cut).models


def _report(compiled: CompiledModel, output: Path) -> None:
    from compiler.report.official import model_block
    from compiler.report.reasons import reasons

    print(model_block(compiled, compiled.source.source, output, show_operations=True))
    for reason, advice in reasons(compiled):
        print(f"CPU: {reason} {advice}".rstrip())


def current_release(session: DeviceSession, name: str) -> Release:
    """Return the current release of a model on a device.

    Raises
    ------
    EtpuError
        There is none.
    """
    from deploy.deployer import releases

    current = next((r for r in releases(session, name) if r.current), None)
    if current is None:
        raise EtpuError(f"no current release of {name} is on {session.transport.where}.",
                        advice="Deploy it first: etpu deploy")
    return current


def is_compiled(model: Model) -> bool:
    """Tell whether a model already holds Edge TPU executables."""
    from compiler.facts import CUSTOM_OPERATOR

    return any(op.custom_name == CUSTOM_OPERATOR for op in model.main.operators)


def smoke_test(source: bytes, model: Model) -> SmokeTest:
    """Run one inference on seeded random data on this host.

    TensorFlow Lite runs source models; compiled ones run on the simulated chip.
    """
    import numpy as np

    from deploy.deployer import SmokeTest

    rng = np.random.default_rng(0)
    inputs: list[Any] = []
    for index in model.main.inputs:
        tensor = model.main.tensors[index]
        dtype = tensor.type.numpy
        if dtype is None or dtype.kind not in "iuf":
            raise UsageError(f"{model.source}: no test data can be made for input {tensor.name} of type {tensor.type.name}.")
        if dtype.kind == "f":
            inputs.append(rng.random(tensor.shape).astype(dtype))
        else:
            info = np.iinfo(dtype)
            inputs.append(rng.integers(info.min, info.max, tensor.shape, dtype, endpoint=True))
    raw = tuple(a.tobytes() for a in inputs)
    if is_compiled(model):
        from deploy.virtual.runtime import VirtualRuntime

        return SmokeTest(raw, tuple(VirtualRuntime().run_model(source, raw)))
    from compiler.graph.interpreter import TfliteModel

    outputs = TfliteModel(source, reference_kernels=True).run(inputs)
    return SmokeTest(raw, tuple(a.tobytes() for a in outputs), SMOKE_TOLERANCE)


def rollback_command(
    device: Device,
    name: Annotated[str, typer.Argument(help="Model; may be left out when there is only one.")] = "",
    to: Annotated[str, typer.Option(help="Release to go to; by default the previous one.")] = "",
    timeout: Timeout = 10.0,
) -> None:
    """Make the previous release of a model current again."""
    from deploy.deployer import rollback
    from deploy.inventory import Inventory
    from deploy.session import connect

    with connect(Inventory().get(device), timeout=timeout) as session:
        release = rollback(session, name, to)
    print(f"release {release.manifest.release} is current")


def releases_command(
    device: Device,
    name: Annotated[str, typer.Argument(help="Only this model.")] = "",
    timeout: Timeout = 10.0,
) -> None:
    """List the releases on a device."""
    from deploy.deployer import releases
    from deploy.inventory import Inventory
    from deploy.session import connect

    with connect(Inventory().get(device), timeout=timeout) as session:
        for release in releases(session, name):
            mark = "*" if release.current else " "
            m = release.manifest
            print(f"{mark} {m.release}  runtime {m.min_runtime_version}  {m.created}  {release.folder}")

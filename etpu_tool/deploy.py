"""``etpu deploy``, ``rollback`` and ``releases``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.errors import UsageError
from etpu_tool.compile import parse_token

if TYPE_CHECKING:
    from compiler.compile import CompiledModel
    from compiler.graph import Model
    from deploy.deployer import SmokeTest

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
    timeout: Timeout = 10.0,
) -> None:
    """Compile a model for a device, upload it, try it out there and switch to it."""
    from compiler.compile import CompileOptions, compile_model
    from compiler.graph import read_model
    from compiler.output import output_path
    from compiler.report.official import model_block
    from compiler.report.reasons import reasons
    from deploy.deployer import deploy
    from deploy.inventory import Inventory
    from deploy.session import connect

    found = Inventory().get(device)
    read = read_model(model)
    output = output_path(model)
    compiled: list[CompiledModel] = []

    def compile_for(runtime: int) -> Mapping[str, bytes]:
        if is_compiled(read):
            print(f"{model} is compiled already and goes to {found.where} as it is")
            return {Path(model).name: source}
        compiled.append(compile_model(read, CompileOptions(runtime, parse_token(token))))
        print(f"compiled for runtime version {runtime} of {found.where}")
        print(model_block(compiled[0], model, output, show_operations=True))
        for reason, advice in reasons(compiled[0]):
            print(f"CPU: {reason} {advice}".rstrip())
        return {output.name: compiled[0].data}

    source = Path(model).read_bytes()
    smoke = smoke_test(source, read)
    with connect(found, timeout=timeout) as session:
        report = deploy(session, name or Path(model).stem, source, compile_for, smoke, keep=keep)
    simulated = " (simulated)" if report.simulated else ""
    number = report.release.manifest.release
    print(f"\nrelease {number} of {name or Path(model).stem} is current on {found.where}{simulated}")
    print(f"smoke inference{simulated}: {report.smoke.values} values, {report.smoke.differing} differ from the host's")


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

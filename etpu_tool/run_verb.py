"""``etpu run``: inferences on a device, compared with the host's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.errors import EtpuError, UsageError
from etpu_tool.deploy import Device, Timeout, current_release


def run_command(
    model: Annotated[str, typer.Argument(help="A compiled .tflite file, or the name of a deployed model.")],
    device: Device,
    input_file: Annotated[str, typer.Option("--input", help="Inputs as .npy, or .npz with inputs (and labels); one row "
                                            "per inference.")],
    compare: Annotated[str, typer.Option(help="Source .tflite: compare with TensorFlow Lite on this host.")] = "",
    output_file: Annotated[str, typer.Option("--output", help="Write the outputs as .npy.")] = "",
    timeout: Timeout = 10.0,
) -> None:
    """Run a model on a device, once per row of the input file."""
    import numpy as np

    from deploy.inference import load_pipeline
    from deploy.inventory import Inventory
    from deploy.session import connect

    rows, labels = _load(input_file)
    with connect(Inventory().get(device), timeout=timeout) as session:
        path = Path(model)
        if path.suffix == ".tflite":
            loaded = session.agent.load(path.read_bytes(), 0)
            target = loaded.outputs[0]
            results = [session.agent.run(loaded, (np.ascontiguousarray(row).tobytes(),)) for row in rows]
            raw, simulated = [r.outputs[0] for r in results], any(r.simulated for r in results)
        else:
            current = current_release(session, model)
            pipeline = load_pipeline(session, current.paths, [f.on_tpu for f in current.manifest.files])
            target = pipeline.models[-1].outputs[0]
            runs = pipeline.run_all([(np.ascontiguousarray(row).tobytes(),) for row in rows])
            raw, simulated = [outputs[0] for outputs in runs.outputs], runs.simulated
            if len(current.paths) > 1:
                print(f"pipeline of {len(current.paths)} segments: {len(rows) / runs.elapsed_us * 1e6:.1f} inferences per "
                      f"second{' (simulated)' if simulated else ''}")
    outputs = np.stack([np.frombuffer(data, target.dtype).reshape(target.shape) for data in raw])
    print(f"{len(rows)} inferences{' (simulated)' if simulated else ''}")
    if labels is not None:
        right = int((outputs.reshape(len(rows), -1).argmax(1) == labels).sum())
        print(f"accuracy: {right} of {len(rows)} ({100 * right / len(rows):.2f} %)")
    if output_file:
        np.save(output_file, outputs)
    if compare:
        _compare(compare, rows, outputs)


def _load(path: str):  # type: ignore[no-untyped-def]
    import numpy as np

    try:
        data = np.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as .npy or .npz: {error}") from error
    if isinstance(data, np.ndarray):
        return data, None
    if "inputs" not in data:
        raise UsageError(f"{path}: holds no array named inputs.")
    return data["inputs"], data.get("labels")


def _compare(source: str, rows, outputs) -> None:  # type: ignore[no-untyped-def]
    import numpy as np

    from compiler.graph.interpreter import TfliteModel

    host = TfliteModel(source, reference_kernels=True)
    expected = np.stack([host.run([row.reshape(host.inputs[0].shape)])[0] for row in rows]).astype(np.int64)
    difference = np.abs(expected - outputs.reshape(expected.shape).astype(np.int64))
    same = int((difference == 0).sum())
    print(f"equal to the TensorFlow Lite interpreter on this host: {same} of {difference.size} values, largest "
          f"difference {int(difference.max())}")
    if int(difference.max()) > 1:
        raise EtpuError("the device's outputs differ from TensorFlow Lite by more than one step.")

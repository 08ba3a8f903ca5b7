"""Standard output and operation log in the official compiler's words.

Scripts parse both; the grammar follows compiler version 16.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from compiler.compile import CompiledModel
from compiler.facts import COMPILER_VERSION

VERSION_LINE = f"Edge TPU Compiler version {COMPILER_VERSION}"
_CPU_NOTE = (
    "Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will "
    "instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported "
    "by the Edge TPU. For details, visit g.co/coral/model-reqs.")


def size_text(size: int) -> str:
    """Return a size as B, KiB or MiB with two decimals."""
    if size < 1024:
        return f"{size:.2f}B"
    if size < 1024 * 1024:
        return f"{size / 1024:.2f}KiB"
    return f"{size / 1024 / 1024:.2f}MiB"


def operation_rows(compiled: CompiledModel) -> list[tuple[str, int, str]]:
    """Return (operator, count, status) per pair, in the order in which pairs first appear."""
    names = [op.custom_name or op.name for op in compiled.mapped.graph.operators]
    counts = Counter(zip(names, (v.status.value for v in compiled.mapped.verdicts), strict=True))
    return [(name, count, status) for (name, status), count in counts.items()]


def operation_table(compiled: CompiledModel) -> str:
    """Return the table of the operation log."""
    rows = [f"{name:<31}{count:<11}{status}" for name, count, status in operation_rows(compiled)]
    return "\n".join([f"{'Operator':<31}{'Count':<11}Status", "", *rows])


def operation_log(compiled: CompiledModel, source: str, output: str) -> str:
    """Return the text of the .log file."""
    return f"{VERSION_LINE}\nInput: {source}\nOutput: {output}\n\n{operation_table(compiled)}\n"


def model_block(compiled: CompiledModel, source: str, output: Path, *, show_operations: bool) -> str:
    """Return the block of one model on standard output."""
    lines = [
        f"Input model: {source}",
        f"Input size: {size_text(compiled.source.size)}",
        f"Output model: {output}",
        f"Output size: {size_text(len(compiled.data))}",
        f"On-chip memory used for caching model parameters: {size_text(compiled.on_chip_used)}",
        f"On-chip memory remaining for caching model parameters: {size_text(compiled.on_chip_remaining)}",
        f"Off-chip memory used for streaming uncached model parameters: {size_text(compiled.off_chip)}",
        f"Number of Edge TPU subgraphs: {compiled.subgraphs}",
        f"Total number of operations: {len(compiled.mapped.verdicts)}",
        f"Operation log: {log_path(output)}",
    ]
    if compiled.on_cpu:
        lines += ["", _CPU_NOTE, f"Number of operations that will run on Edge TPU: {compiled.on_edge_tpu}",
                  f"Number of operations that will run on CPU: {compiled.on_cpu}"]
    if show_operations:
        lines += ["", operation_table(compiled)]
    else:
        lines.append("See the operation log file for individual operation details.")
    return "\n".join(lines)


def log_path(output: Path) -> Path:
    """Return the place of the operation log beside a compiled model."""
    return output.with_suffix(".log")


def success(compiled: Sequence[CompiledModel], sources: Sequence[str], outputs: Sequence[Path], *,
            show_operations: bool) -> str:
    """Return what follows a compilation that succeeded; models that were compiled together have a block each."""
    milliseconds = round(max(c.seconds for c in compiled) * 1000)
    noun = "Models" if len(compiled) > 1 else "Model"
    blocks = [model_block(c, s, o, show_operations=show_operations) for c, s, o in
              zip(compiled, sources, outputs, strict=True)]
    return "\n".join(["", f"{noun} compiled successfully in {milliseconds} ms.", "", "\n\n".join(blocks), CHILD_ENDED,
                      "Compilation succeeded! "])


CHILD_ENDED = "Compilation child process completed within timeout period."
FAILED = "Compilation failed! "
TIMED_OUT = "Compilation timeout. This is usually caused by large activations."
NOT_APPLIED = "ERROR: Restored original execution plan after delegate application failure."
TOO_LARGE = "Compilation failed: Compilation failed due to large activation tensors in model."
INTERNAL = "Compilation failed: Internal error."
DYNAMIC = ("ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
           "dynamic-sized tensors.")
NOT_LOADED = ("Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite "
              "interpreter.")
NOT_PARSED = "Model could not be parsed"
NOT_QUANTIZED = "Model not quantized"


def started(seconds: int) -> str:
    """Return the line that begins a compilation."""
    return f"Started a compilation timeout timer of {seconds} seconds."


def searching(step: int) -> str:
    """Return the line that begins a search for a valid delegate."""
    return f"Searching for valid delegate with step {step}"


def trying(operators: int, tensors: Sequence[str]) -> str:
    """Return the lines of one attempt of that search."""
    lines = [f"Try to compile segment with {operators} ops"]
    return "\n".join(lines + ([f"Intermediate tensors: {','.join(tensors)}"] if tensors else []))


def invalid(source: str) -> str:
    """Return the line about a model that cannot be compiled."""
    return f"Invalid model: {source}"

"""Writes compiled models and their logs: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from compiler.compile import CompiledModel
from compiler.errors import EtpuError
from compiler.report.official import log_path, operation_log


def output_path(source: str | Path, folder: str | Path = ".") -> Path:
    """Return where the compiled model goes: ``X.tflite`` becomes ``X_edgetpu.tflite`` in the folder."""
    return Path(folder) / f"{Path(source).stem}_edgetpu.tflite"


def write_outputs(compiled: Sequence[CompiledModel], sources: Sequence[str], folder: str | Path) -> list[Path]:
    """Write every model and its log under temporary names, then rename them all.

    Raises
    ------
    EtpuError
        When a file cannot be written; nothing is left behind.
    """
    outputs = [output_path(source, folder) for source in sources]
    if len(set(outputs)) < len(outputs):
        raise EtpuError("two input models would be written to the same output file.",
                        advice="Rename one of them or compile them into different folders.")
    contents: list[tuple[Path, bytes]] = []
    for c, source, output in zip(compiled, sources, outputs, strict=True):
        contents.append((output, c.data))
        contents.append((log_path(output), operation_log(c, source, str(output)).encode()))
    parts: list[tuple[Path, Path]] = []
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for path, data in contents:
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            parts.append((part, path))
            part.write_bytes(data)
        for part, path in parts:
            part.replace(path)
    except OSError as error:
        for part, _ in parts:
            part.unlink(missing_ok=True)
        raise EtpuError(f"{path}: cannot be written: {error.strerror}.",
                        advice="Choose a folder that you may write to with --out_dir.") from error
    return outputs

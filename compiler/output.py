"""Writes compiled models and their logs: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from compiler.compile import CompiledModel
from compiler.errors import EtpuError
from compiler.report.official import log_path, operation_log


def output_path(source: str | Path, folder: str | Path = ".") -> Path:
    """Return where the compiled model goes: ``X.tflite`` becomes ``X_edgetpu.tflite`` in the folder."""
    return Path(folder) / f"{Path(source).stem}_edgetpu.tflite"


class OutputFiles:
    """Files that appear together.

    Everything is written under temporary names first; :meth:`commit` renames it all. Leaving the context
    without that leaves nothing behind.

    Parameters
    ----------
    folder:
        Where to; it is made if need be.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._made: list[Path] = []
        self._parts: dict[Path, Path] = {}

    def __enter__(self) -> OutputFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in self._parts:
            part.unlink(missing_ok=True)
        for folder in reversed(self._made):
            if not any(folder.iterdir()):
                folder.rmdir()

    def add(self, compiled: Sequence[CompiledModel], sources: Sequence[str]) -> list[Path]:
        """Write models and logs; returns where the models will be.

        Raises
        ------
        EtpuError
            When a file cannot be written, or two would have the same name.
        """
        outputs = [output_path(source, self._folder) for source in sources]
        for c, source, output in zip(compiled, sources, outputs, strict=True):
            self.add_file(output, c.data)
            self.add_file(log_path(output), operation_log(c, source, str(output)).encode())
        return outputs

    def commit(self) -> None:
        """Give the files their names.

        Raises
        ------
        EtpuError
            When that cannot be done.
        """
        for part, path in self._parts.items():
            try:
                part.replace(path)
            except OSError as error:
                raise _refused(path, error) from error

    def add_file(self, path: Path, data: bytes) -> None:
        """Write one file more; it appears with the others."""
        if path in self._parts.values():
            raise EtpuError("two input models would be written to the same output file.",
                            advice="Rename one of them or compile them into different folders.")
        if path.is_dir():
            raise EtpuError(f"{path}: cannot be written: a folder has this name.", advice="Rename it, or the model.")
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._make_folder()
            self._parts[part] = path
            part.write_bytes(data)
        except OSError as error:
            raise _refused(path, error) from error

    def _make_folder(self) -> None:
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.append(folder)


def _refused(path: Path, error: OSError) -> EtpuError:
    return EtpuError(f"{path}: cannot be written: {error.strerror}.",
                     advice="Choose a folder that you may write to with --out_dir.")

"""What ``etpu compile`` and ``edgetpu_compiler`` have in common."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from compiler.errors import CompilationError, UsageError

if TYPE_CHECKING:
    from compiler.compile import CompiledModel

DEFAULT_TIMEOUT = 180


def compile_files(sources: Sequence[str], folder: str, *, min_runtime_version: int, token: int | None = None,
                  intermediate_tensors: str = "", multiple_subgraphs: bool = False,
                  timeout: int = DEFAULT_TIMEOUT) -> tuple[tuple[CompiledModel, ...], list[Path]]:
    """Compile files and write the results.

    Parameters
    ----------
    intermediate_tensors:
        Names separated by commas; models separated by colons.
    timeout:
        Seconds until the compilation is given up.

    Raises
    ------
    EtpuError
        With nothing written.
    """
    from compiler.compile import CompileOptions, compile_models
    from compiler.graph import read_model
    from compiler.output import write_outputs

    if len(set(sources)) < len(sources):
        raise UsageError("the same model is given twice.")
    options = CompileOptions(min_runtime_version, token, _names(intermediate_tensors), multiple_subgraphs)
    with time_limit(timeout):
        compiled = compile_models([read_model(source) for source in sources], options)
        return compiled, write_outputs(compiled, sources, folder)


def _names(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(n for n in part.split(",") if n) for part in text.split(":")) if text else ()


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """End what takes longer than this many seconds with an error; 0 means no limit."""

    def expired(_: int, __: FrameType | None) -> None:
        raise CompilationError(f"the compilation took longer than {seconds} seconds and was given up.",
                               advice="Give it more time with --timeout_sec.")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

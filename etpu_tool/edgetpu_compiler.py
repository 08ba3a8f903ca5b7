"""The command ``edgetpu_compiler``: a drop-in for scripts written for the official compiler."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from compiler.errors import (
    ActivationsTooLargeError,
    CompilationError,
    DynamicShapeError,
    EtpuError,
    InvalidModelError,
    NotQuantizedError,
)
from compiler.facts import COMPILER_VERSION
from etpu_tool.compiling import BALANCES, Listener, compile_files
from etpu_tool.garbage import little_collection
from etpu_tool.limit import InternalError, TimeLimitError
from etpu_tool.official_options import add_official_options, help_formatter, request_of

if TYPE_CHECKING:
    from compiler.compile import CompiledModel

_VERSION = f"Edge TPU Compiler version {COMPILER_VERSION}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the official options; long ones work with one dash too."""
    p = argparse.ArgumentParser(prog="edgetpu_compiler", description=_VERSION, allow_abbrev=False,
                                usage="edgetpu_compiler [options] model...", formatter_class=help_formatter)

    p.add_argument("-v", "--version", "-version", action="version", version=_VERSION, help="print the version and exit")
    add_official_options(p, lambda letter, name: (f"-{letter}", f"--{name}", f"-{name}"))
    p.add_argument("--balance", choices=BALANCES, default=BALANCES[0], help="how --num_segments cuts; not in the official "
                   "compiler (default: %(default)s)")
    return p


class _Printer(Listener):
    """Prints what the official compiler prints; what it leaves unsaid goes to standard error."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.said: EtpuError | None = None

    def cut(self, warning: str) -> None:
        if warning:
            print(warning)

    def searches(self) -> None:
        print(_official().searching(self._options.delegate_search_step))

    def tries(self, operators: int, tensors: Sequence[str]) -> None:
        print(_official().trying(operators, tensors))

    def starts(self) -> None:
        print(_official().started(self._options.timeout_sec))

    def failed(self, error: CompilationError) -> None:
        official = _official()
        if isinstance(error, TimeLimitError):
            print(official.TIMED_OUT)
        else:
            if isinstance(error, ActivationsTooLargeError):
                _complain(official.NOT_APPLIED, official.TOO_LARGE)
            elif isinstance(error, InternalError):
                _complain(official.INTERNAL)
            print(official.CHILD_ENDED)
        print(official.FAILED)
        _explain(error)
        self.said = error

    def compiled(self, compiled: Sequence[CompiledModel], sources: Sequence[str], outputs: Sequence[Path]) -> None:
        print(_official().success(compiled, sources, outputs, show_operations=self._options.show_operations))


def _official() -> ModuleType:
    """The official compiler's words; imported late, ``--help`` and ``--version`` do without."""
    from compiler.report import official

    return official


@little_collection()
def run() -> None:
    """Entry point."""
    options = parser().parse_args()
    print(_VERSION)
    printer = _Printer(options)
    try:
        compile_files(request_of(options), printer)
    except EtpuError as error:
        if printer.said is not error:
            _refuse(error, options)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(130)


def _refuse(error: EtpuError, options: argparse.Namespace) -> None:
    """Print an error that comes before any compilation."""
    official = _official()
    if isinstance(error, DynamicShapeError):
        print(official.started(options.timeout_sec))
        _complain(official.DYNAMIC, official.NOT_LOADED)
        print(official.CHILD_ENDED)
        print(official.FAILED)
    elif isinstance(error, InvalidModelError):
        source = next((s for s in options.models if error.message.startswith(s)), options.models[0])
        _complain(official.invalid(source),
                  official.NOT_QUANTIZED if isinstance(error, NotQuantizedError) else official.NOT_PARSED)
    _explain(error)


def _explain(error: EtpuError) -> None:
    _complain(error.message, *([error.advice] if error.advice else []))


def _complain(*lines: str) -> None:
    sys.stdout.flush()
    print(*lines, sep="\n", file=sys.stderr, flush=True)

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
from compiler.facts import COMPILER_VERSION, RUNTIME_VERSION_CURRENT, RUNTIME_VERSION_LOWEST
from etpu_tool.compiling import BALANCES, DEFAULT_TIMEOUT, Listener, Request, compile_files
from etpu_tool.garbage import little_collection
from etpu_tool.limit import InternalError, TimeLimitError

if TYPE_CHECKING:
    from compiler.compile import CompiledModel

_VERSION = f"Edge TPU Compiler version {COMPILER_VERSION}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the official options; long ones work with one dash too."""
    p = argparse.ArgumentParser(prog="edgetpu_compiler", description=_VERSION, allow_abbrev=False,
                                usage="edgetpu_compiler [options] model...")

    def add(short: str, name: str, **settings: object) -> None:
        p.add_argument(f"-{short}", f"--{name}", f"-{name}", dest=name, **settings)  # type: ignore[arg-type]

    p.add_argument("-v", "--version", "-version", action="version", version=_VERSION, help="print the version and exit")
    add("i", "intermediate_tensors", default="", metavar="names", help="outputs of the Edge TPU part: a,b for one model, "
        "a,b:c for two")
    add("m", "min_runtime_version", type=int, default=RUNTIME_VERSION_CURRENT, metavar="num",
        help=f"lowest runtime version to be compatible with, {RUNTIME_VERSION_LOWEST}..{RUNTIME_VERSION_CURRENT} "
             "(default: %(default)s)")
    add("n", "num_segments", type=int, default=1, metavar="num", help="compile into so many segments for pipelining")
    add("o", "out_dir", default=".", metavar="dir", help="folder for model and log (default: the current one)")
    add("s", "show_operations", action="store_true", help="print the operation log")
    add("d", "search_delegate", action="store_true", help="on failure retry with fewer operators")
    add("k", "delegate_search_step", type=int, default=1, metavar="num", help="operators dropped per retry "
        "(default: %(default)s)")
    add("t", "timeout_sec", type=int, default=DEFAULT_TIMEOUT, metavar="sec", help="give up after this time "
        "(default: %(default)s)")
    add("a", "enable_multiple_subgraphs", action="store_true", help="map all Edge TPU subgraphs, not only the first")
    p.add_argument("--balance", choices=BALANCES, default=BALANCES[0], help="how --num_segments cuts; not in the official "
                   "compiler (default: %(default)s)")
    p.add_argument("models", nargs="+", metavar="model")
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
        compile_files(Request(
            tuple(options.models), options.out_dir, min_runtime_version=options.min_runtime_version,
            intermediate_tensors=options.intermediate_tensors, multiple_subgraphs=options.enable_multiple_subgraphs,
            num_segments=options.num_segments, balance=options.balance, search_delegate=options.search_delegate,
            delegate_search_step=options.delegate_search_step, timeout=options.timeout_sec), printer)
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

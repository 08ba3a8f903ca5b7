"""The command ``edgetpu_compiler``: a drop-in for scripts written for the official compiler."""

from __future__ import annotations

import argparse
import sys

from compiler.errors import CompilationError, EtpuError, InvalidModelError
from compiler.facts import COMPILER_VERSION, RUNTIME_VERSION_CURRENT
from etpu_tool.compiling import DEFAULT_TIMEOUT, compile_files

_VERSION = f"Edge TPU Compiler version {COMPILER_VERSION}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the official options; long ones work with one dash too."""
    p = argparse.ArgumentParser(prog="edgetpu_compiler", description=_VERSION, allow_abbrev=False)

    def add(short: str, name: str, **settings: object) -> None:
        p.add_argument(f"-{short}", f"--{name}", f"-{name}", dest=name, **settings)  # type: ignore[arg-type]

    p.add_argument("-v", "--version", "-version", action="version", version=_VERSION)
    add("i", "intermediate_tensors", default="", metavar="names", help="outputs of the Edge TPU part: a,b:c")
    add("m", "min_runtime_version", type=int, default=RUNTIME_VERSION_CURRENT, metavar="num",
        help="lowest runtime version to be compatible with")
    add("n", "num_segments", type=int, default=0, metavar="num", help="compile into segments for pipelining")
    add("o", "out_dir", default=".", metavar="dir", help="folder for model and log")
    add("s", "show_operations", action="store_true", help="print the operation log")
    add("d", "search_delegate", action="store_true", help="on failure retry with fewer operators")
    add("k", "delegate_search_step", type=int, default=1, metavar="num", help="operators dropped per retry")
    add("t", "timeout_sec", type=int, default=DEFAULT_TIMEOUT, metavar="sec", help="give up after this time")
    add("a", "enable_multiple_subgraphs", action="store_true", help="map all Edge TPU subgraphs")
    p.add_argument("models", nargs="+", metavar="model")
    return p


def run() -> None:
    """Entry point."""
    options = parser().parse_args()
    print(_VERSION)
    try:
        _compile(options)
    except InvalidModelError as error:
        print(f"Invalid model: {options.models[0]}", file=sys.stderr)
        _fail(error)
    except EtpuError as error:
        _fail(error)


def _fail(error: EtpuError) -> None:
    print(error.message, file=sys.stderr)
    if error.advice:
        print(error.advice, file=sys.stderr)
    if isinstance(error, CompilationError):
        print("Compilation failed! ", file=sys.stderr)
    sys.exit(error.exit_status)


def _compile(options: argparse.Namespace) -> None:
    from compiler.report.official import report

    if options.num_segments > 1:
        raise CompilationError("cutting a model into segments is not available yet.",
                               advice="Compile it as one model (without --num_segments).")
    compiled, outputs = compile_files(
        options.models, options.out_dir, min_runtime_version=options.min_runtime_version,
        intermediate_tensors=options.intermediate_tensors, multiple_subgraphs=options.enable_multiple_subgraphs,
        timeout=options.timeout_sec)
    if options.search_delegate:
        print(f"Searching for valid delegate with step {options.delegate_search_step}")
        print(f"Try to compile segment with {sum(len(c.mapped.verdicts) for c in compiled)} ops")
    print(report(compiled, options.models, outputs, show_operations=options.show_operations,
                 timeout=options.timeout_sec))

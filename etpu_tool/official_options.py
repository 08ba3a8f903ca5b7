"""The options of the official compiler: both commands that compile have them, spelled each in its way."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from compiler.facts import RUNTIME_VERSION_CURRENT, RUNTIME_VERSION_LOWEST
from etpu_tool.compiling import DEFAULT_TIMEOUT, Request


def help_formatter(prog: str) -> argparse.HelpFormatter:
    """Return what formats the help for the width of the terminal.

    ``argparse`` makes one for every option, and would load ``shutil`` with all its archivers to learn the width.
    """
    try:
        width = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns
    except (OSError, ValueError):
        width = 80
    return argparse.HelpFormatter(prog, width=width - 2)


def add_official_options(parser: argparse.ArgumentParser, spellings: Callable[[str, str], Sequence[str]]) -> None:
    """Add the official options and the models.

    Parameters
    ----------
    spellings:
        How an option of such a letter and such a name may be written.
    """
    def add(letter: str, name: str, **settings: Any) -> None:
        parser.add_argument(*spellings(letter, name), dest=name, **settings)

    parser.add_argument("models", nargs="+", metavar="model", help="quantized .tflite files; several are co-compiled")
    add("o", "out_dir", default=".", metavar="dir", help="folder for model and log (default: the current one)")
    add("m", "min_runtime_version", type=int, default=RUNTIME_VERSION_CURRENT, metavar="num",
        help=f"lowest runtime version to be compatible with, {RUNTIME_VERSION_LOWEST}..{RUNTIME_VERSION_CURRENT} "
             "(default: %(default)s)")
    add("i", "intermediate_tensors", default="", metavar="names",
        help="outputs of the Edge TPU part: a,b for one model, a,b:c for two")
    add("a", "enable_multiple_subgraphs", action="store_true", help="map all Edge TPU subgraphs, not only the first")
    add("n", "num_segments", type=int, default=1, metavar="num",
        help="cut into so many segments for as many Edge TPUs (default: %(default)s)")
    add("d", "search_delegate", action="store_true", help="on failure retry with fewer operators")
    add("k", "delegate_search_step", type=int, default=1, metavar="num",
        help="operators dropped per retry (default: %(default)s)")
    add("s", "show_operations", action="store_true", help="print the operation log")
    add("t", "timeout_sec", type=int, default=DEFAULT_TIMEOUT, metavar="sec",
        help="give up after this time (default: %(default)s)")


def request_of(options: argparse.Namespace, token: int | None = None) -> Request:
    """Return what the options ask for."""
    return Request(
        tuple(options.models), options.out_dir, min_runtime_version=options.min_runtime_version, token=token,
        intermediate_tensors=options.intermediate_tensors, multiple_subgraphs=options.enable_multiple_subgraphs,
        num_segments=options.num_segments, balance=options.balance, search_delegate=options.search_delegate,
        delegate_search_step=options.delegate_search_step, timeout=options.timeout_sec)

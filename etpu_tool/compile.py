"""``etpu compile``: models to Edge TPU models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.errors import CompilationError, UsageError
from etpu_tool.compiling import Listener, compile_files
from etpu_tool.official_options import add_official_options, help_formatter, request_of

if TYPE_CHECKING:
    from compiler.compile import CompiledModel


def parse_token(text: str) -> int | None:
    """Read a caching token, decimal or 0x...; None for an empty text.

    Raises
    ------
    UsageError
        When it is no number.
    """
    try:
        return int(text, 0) if text else None
    except ValueError:
        raise UsageError(f"the caching token {text!r} is no number.") from None


class _Notes(Listener):
    """Warnings and attempts that failed go to standard error."""

    def cut(self, warning: str) -> None:
        if warning:
            print(warning, file=sys.stderr)

    def tries(self, operators: int, tensors: Sequence[str]) -> None:
        print(f"trying with {operators} operators", file=sys.stderr)

    def failed(self, error: CompilationError) -> None:
        print(f"failed: {error.message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options; typer would take longer than a small model."""
    p = argparse.ArgumentParser(prog="etpu compile", allow_abbrev=False, usage="etpu compile [OPTIONS] models...",
                                description=compile_command.__doc__, formatter_class=help_formatter)

    add_official_options(p, lambda letter, name: (f"--{name}", f"--{name.replace('_', '-')}", f"-{letter}"))
    p.add_argument("--balance", default="parameters", metavar="HOW",
                   help="How to cut: parameters (as the official compiler) or latency (fastest slowest segment; "
                        "default: %(default)s).")
    p.add_argument("--token", type=parse_token, metavar="N",
                   help="Caching token (for reproducible results); random by default.")
    p.add_argument("--memory-map", action="store_true", help="Print which layer's parameters lie where on the chip.")
    p.add_argument("--memory-picture", default="", metavar="FILE", help="Draw the on-chip memory into an SVG file.")
    p.add_argument("--json", action="store_true", help="Print the report as JSON.")
    return p


def compile_command(words: list[str]) -> None:
    """Compile quantized TensorFlow Lite models for the Edge TPU."""
    options = parser().parse_intermixed_args(words)
    picture, memory_map = options.memory_picture, options.memory_map
    if picture and Path(picture).suffix != ".svg":
        raise UsageError(f"{picture}: the picture is an SVG file.", advice="Give it a name that ends in .svg.")
    finished = compile_files(request_of(options, options.token), _Notes())
    from compiler.report.official import model_block
    from compiler.report.reasons import as_json as json_report
    from compiler.report.reasons import reasons

    if picture:
        _draw_memory([c for c, _, _ in finished], picture)
    if options.json:
        import json

        print(json.dumps([json_report(c, str(output)) | (_memory_json(c) if memory_map else {})
                          for c, _, output in finished], indent=2))
        return
    for compiled, source, output in finished:
        print(model_block(compiled, source, output, show_operations=options.show_operations))
        if memory_map:
            _print_memory(compiled)
        for reason, advice in reasons(compiled):
            print(f"CPU: {reason} {advice}".rstrip())
        print()


def _memory_json(compiled: CompiledModel) -> dict[str, object]:
    from compiler.report.memory_map import memory_json

    return {"memory_map": memory_json(compiled)}


def _print_memory(compiled: CompiledModel) -> None:
    from rich.console import Console
    from rich.table import Table

    from compiler.report.memory_map import memory_rows

    table = Table("layer", "where", "on-chip bytes", "streamed bytes", "place", box=None)
    for row in memory_rows(compiled):
        table.add_row(row.layer, row.where, str(row.on_chip), str(row.streamed), row.place)
    Console(width=150).print(table)


def _draw_memory(models: Sequence[CompiledModel], file: str) -> None:
    from compiler.output import OutputFiles
    from compiler.report.memory_map import memory_picture

    with OutputFiles(Path(file).parent) as files:
        files.add_file(Path(file), memory_picture(models).encode())
        files.commit()

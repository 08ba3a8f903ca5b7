"""``etpu compile``: models to Edge TPU models."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.errors import CompilationError, UsageError
from compiler.facts import RUNTIME_VERSION_CURRENT
from etpu_tool.compiling import DEFAULT_TIMEOUT, Listener, Request, compile_files

if TYPE_CHECKING:
    from compiler.compile import CompiledModel


def parse_token(text: str) -> int | None:
    """Read a caching token, decimal or 0x...; None for an empty text."""
    try:
        return int(text, 0) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


class _Notes(Listener):
    """Warnings and attempts that failed go to standard error."""

    def cut(self, warning: str) -> None:
        if warning:
            print(warning, file=sys.stderr)

    def tries(self, operators: int, tensors: Sequence[str]) -> None:
        print(f"trying with {operators} operators", file=sys.stderr)

    def failed(self, error: CompilationError) -> None:
        print(f"failed: {error.message}", file=sys.stderr)


def compile_command(
    models: Annotated[list[str], typer.Argument(help="Quantized .tflite files; several are co-compiled.")],
    out_dir: Annotated[str, typer.Option("--out_dir", "--out-dir", "-o", help="Folder for the results.")] = ".",
    min_runtime_version: Annotated[int, typer.Option("--min_runtime_version", "--min-runtime-version", "-m",
                                                     help="Oldest runtime that must run the result, 10..14.")
                                   ] = RUNTIME_VERSION_CURRENT,
    intermediate_tensors: Annotated[str, typer.Option("--intermediate_tensors", "--intermediate-tensors", "-i",
                                                      help="Outputs of the Edge TPU part: a,b:c.")] = "",
    multiple_subgraphs: Annotated[bool, typer.Option("--enable_multiple_subgraphs", "--enable-multiple-subgraphs", "-a",
                                                     help="Map every Edge TPU subgraph, not only the first.")] = False,
    num_segments: Annotated[int, typer.Option("--num_segments", "--num-segments", "-n",
                                              help="Cut the model into so many segments for as many Edge TPUs.")] = 1,
    balance: Annotated[str, typer.Option(help="How to cut: parameters (as the official compiler) or latency (fastest "
                                              "slowest segment).")] = "parameters",
    search_delegate: Annotated[bool, typer.Option("--search_delegate", "--search-delegate", "-d",
                                                  help="When it fails try again with fewer operators.")] = False,
    delegate_search_step: Annotated[int, typer.Option("--delegate_search_step", "--delegate-search-step", "-k",
                                                      help="Operators fewer at each attempt.")] = 1,
    token: Annotated[str, typer.Option(help="Caching token (for reproducible results); random by default.")] = "",
    show_operations: Annotated[bool, typer.Option("--show_operations", "--show-operations", "-s",
                                                  help="Print the operation log.")] = False,
    timeout_sec: Annotated[int, typer.Option("--timeout_sec", "--timeout-sec", "-t", help="Give up after this time.")
                           ] = DEFAULT_TIMEOUT,
    memory_map: Annotated[bool, typer.Option("--memory-map", help="Print which layer's parameters lie where on the chip.")
                          ] = False,
    memory_picture: Annotated[str, typer.Option("--memory-picture", help="Draw the on-chip memory into an SVG file.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compile quantized TensorFlow Lite models for the Edge TPU."""
    if memory_picture and Path(memory_picture).suffix != ".svg":
        raise UsageError(f"{memory_picture}: the picture is an SVG file.", advice="Give it a name that ends in .svg.")
    finished = compile_files(Request(
        tuple(models), out_dir, min_runtime_version=min_runtime_version, token=parse_token(token),
        intermediate_tensors=intermediate_tensors, multiple_subgraphs=multiple_subgraphs, num_segments=num_segments,
        balance=balance, search_delegate=search_delegate, delegate_search_step=delegate_search_step, timeout=timeout_sec),
        _Notes())
    from compiler.report.official import model_block
    from compiler.report.reasons import as_json as json_report
    from compiler.report.reasons import reasons

    if memory_picture:
        _draw_memory([c for c, _, _ in finished], memory_picture)
    if as_json:
        print(json.dumps([json_report(c, str(output)) | (_memory_json(c) if memory_map else {})
                          for c, _, output in finished], indent=2))
        return
    for compiled, source, output in finished:
        print(model_block(compiled, source, output, show_operations=show_operations))
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

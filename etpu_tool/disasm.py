"""``etpu disasm``: the programs of a compiled model as text."""

from __future__ import annotations

from typing import Annotated

import typer

from compiler.errors import UsageError


def disasm_command(
    model: Annotated[str, typer.Argument(help="A compiled model.")],
    executable: Annotated[int, typer.Option(help="Only this executable, counted from 0 over all custom operators.")] = -1,
    raw: Annotated[bool, typer.Option("--raw", help="Plain field values instead of the compact notation.")] = False,
) -> None:
    """Print the instruction streams of a compiled model."""
    from compiler.beagle.assembly import disassemble
    from compiler.graph import read_model
    from compiler.package.container import packages_of

    executables = [e for _, package in packages_of(read_model(model)) for e in package.executables]
    if not executables:
        raise UsageError(f"{model}: holds no Edge TPU executable.", advice="Compile it first: etpu compile MODEL")
    if executable >= len(executables):
        raise UsageError(f"{model}: has {len(executables)} executables, there is no number {executable}.")
    for number, e in enumerate(executables):
        if executable in (-1, number):
            for chunk, stream in enumerate(e.chunks):
                print(f"; executable {number} {e.type.name}, stream {chunk}")
                print(disassemble(stream.data, raw=raw))

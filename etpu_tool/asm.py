"""``etpu asm``: assembly text to an instruction stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.errors import UsageError


def asm_command(
    source: Annotated[str, typer.Argument(help="Assembly text, as etpu disasm prints it for one stream.")],
    output: Annotated[str, typer.Option("--output", "-o", help="File for the instruction stream.")],
) -> None:
    """Turn assembly text back into the bytes of an instruction stream."""
    from compiler.beagle.assembly import assemble
    from compiler.graph import write_file

    try:
        text = Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: cannot be read: {error}.") from error
    data = assemble(text)
    write_file(output, data)
    print(f"{output}: {len(data)} bytes")

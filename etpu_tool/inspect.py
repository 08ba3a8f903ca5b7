"""``etpu inspect``: what is in a model."""

from __future__ import annotations

from typing import Annotated

import typer


def inspect_command(model: Annotated[str, typer.Argument(help="A .tflite file, compiled or not.")]) -> None:
    """List the operators and tensors of a model, and the executables of a compiled one."""
    from compiler.graph import read_model
    from compiler.package.container import packages_of

    read = read_model(model)
    graph = read.main
    for op in graph.operators:
        operands = ", ".join(graph.tensors[t].name if t >= 0 else "-" for t in op.inputs)
        print(f"{op.index:4} {op.custom_name or op.name:<28} {operands} -> "
              f"{', '.join(graph.tensors[t].name for t in op.outputs)}")
    print()
    for t in graph.tensors:
        kind = "constant" if t.is_constant else "input" if t.index in graph.inputs else (
            "output" if t.index in graph.outputs else "")
        print(f"{t.index:4} {t.type.name:<8} {list(t.shape)!s:<22} {t.name} {kind}".rstrip())
    for op, package in packages_of(read):
        print(f"\n{op.title}: needs runtime {package.min_runtime_version}")
        for e in package.executables:
            print(f"  {e.type.name:<18} {sum(len(c.data) for c in e.chunks):>9} bytes of instructions, "
                  f"{len(e.parameters):>9} bytes of parameters, token {e.token:#x}")

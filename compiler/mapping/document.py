"""Writes docs/supported-operators.md from the rules of the mapping and of the code generator."""

from __future__ import annotations

from compiler.lowering.spatial.families import family_of
from compiler.mapping.rules import RULES, SINCE_RUNTIME

_INTRODUCTION = """# Operators

Generated from the docstrings in `compiler/mapping/rules.py` and of the objections of the code generator's families; do not
edit. The first table says from which runtime version on the official compiler maps an operator, and what etpu generates code
for today; everything else stays on the CPU, and `etpu compile` says why for each operator. All activations are INT8 or UINT8.
A network must fit the narrow memory of the tiles, some rows of an image at a time if need be.
"""


def document() -> str:
    """Return the text of docs/supported-operators.md."""
    lines = [_INTRODUCTION, "| operator | since runtime | generated |", "|---|---|---|"]
    lines += [f"| {name} | {since} | {generated(name) or 'no'} |" for name, since in sorted(SINCE_RUNTIME.items())]
    lines += ["", "## Rules, in the order in which they are tested", ""]
    lines += [f"{i}. {(rule.__doc__ or '').strip()}" for i, rule in enumerate(RULES, 1)]
    return "\n".join(lines) + "\n"


def generated(name: str) -> str:
    """Return for what code is generated; empty when for nothing."""
    family = family_of(name)
    return " ".join((family.objection.__doc__ or "").split()) if family is not None else ""


if __name__ == "__main__":
    print(document(), end="")

"""Writes docs/supported-operators.md from the rules of the mapping."""

from __future__ import annotations

from compiler.mapping.rules import RULES, SINCE_RUNTIME


def document() -> str:
    """Return the text of docs/supported-operators.md."""
    lines = ["# Operators", "",
             "Generated from `compiler/mapping/rules.py`; do not edit. The first table is what the official compiler maps. What",
             "etpu generates code for today is less: see the README; everything else stays on the CPU, and `etpu compile` says",
             "why for each operator.", "", "| operator | since runtime |", "|---|---|"]
    lines += [f"| {name} | {since} |" for name, since in sorted(SINCE_RUNTIME.items())]
    lines += ["", "## Rules, in the order in which they are tested", ""]
    lines += [f"{i}. {(rule.__doc__ or '').strip()}" for i, rule in enumerate(RULES, 1)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")

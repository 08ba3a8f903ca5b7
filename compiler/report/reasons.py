"""What the official report does not say: why each operator stays on the CPU, and the way out."""

from __future__ import annotations

from typing import Any

from compiler.compile import CompiledModel
from compiler.report.official import operation_rows


def reasons(compiled: CompiledModel) -> list[tuple[str, str]]:
    """Return (reason, advice) of every operator that stays on the CPU, in operator order."""
    return [(v.reason, v.advice) for v in compiled.mapped.verdicts if not v.mapped]


def as_json(compiled: CompiledModel, output: str) -> dict[str, Any]:
    """Return the report of one model as plain data."""
    return {
        "input": compiled.source.source,
        "output": output,
        "input_bytes": compiled.source.size,
        "output_bytes": len(compiled.data),
        "on_chip_used_bytes": compiled.on_chip_used,
        "on_chip_remaining_bytes": compiled.on_chip_remaining,
        "off_chip_bytes": compiled.off_chip,
        "subgraphs": compiled.subgraphs,
        "operations": [{"operator": n, "count": c, "status": s} for n, c, s in operation_rows(compiled)],
        "cpu_reasons": [{"reason": r, "advice": a} for r, a in reasons(compiled)],
        "milliseconds": round(compiled.seconds * 1000, 3),
    }

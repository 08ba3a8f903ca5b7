"""Which layer's parameters lie where: rows for tables, plain data, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from compiler.compile import CompiledModel
from compiler.facts import TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.memory.demand import Kind
from compiler.memory.plan import ModelPlan, Piece
from compiler.records import record

_COLUMN, _GAP, _HEIGHT, _LEFT, _TOP = 44, 6, 520, 60, 40
_COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#6cc5b0", "#a463f2", "#9c6b4e", "#97bbf5")


@record
class MemoryRow:
    """Parameters of one layer.

    Attributes
    ----------
    where:
        ``tiles`` (each computing tile has its own part), ``ring`` (owner tiles send them over the ring bus), or
        ``streamed`` from the host with every inference.
    pieces:
        Tile, first wide row, wide rows (256 bytes).
    on_chip, streamed:
        Bytes of wide memory; bytes that travel with every inference.
    """

    layer: str
    where: str
    pieces: tuple[tuple[int, int, int], ...]
    on_chip: int
    streamed: int

    @property
    def place(self) -> str:
        """The pieces as text: tiles with the same rows together."""
        by_rows: dict[tuple[int, int], list[int]] = {}
        for tile, row, rows in self.pieces:
            by_rows.setdefault((row, rows), []).append(tile)
        return "; ".join(f"tile{'s' if len(tiles) > 1 else ''} {_ranges(tiles)}: rows {row}..{row + rows - 1}"
                         for (row, rows), tiles in by_rows.items())


def memory_rows(compiled: CompiledModel) -> list[MemoryRow]:
    """Return a row per layer with parameters, in operator order."""
    return [row for plan in compiled.plans for row in _rows_of(plan)]


def _rows_of(plan: ModelPlan) -> list[MemoryRow]:
    found = []
    for i, (tensor, pieces) in enumerate(zip(plan.demand.tensors, plan.pieces, strict=True)):
        beside = tensor.kind is Kind.LOCAL and plan.side_by_side(i)
        where = "streamed" if not pieces else "tiles" if beside else "ring"
        found.append(MemoryRow(tensor.name, where, tuple((p.tile, p.row, p.rows) for p in pieces),
                               WIDE_ROW_BYTES * sum(p.rows for p in pieces),
                               0 if pieces else tensor.streamed_bytes * tensor.reads))
    return found


def memory_json(compiled: CompiledModel) -> list[dict[str, Any]]:
    """Return the rows as plain data."""
    return [asdict(row) for row in memory_rows(compiled)]


def memory_picture(models: Sequence[CompiledModel]) -> str:
    """Draw the wide memory of the 16 tiles as SVG, row 0 at the bottom: a colour per model, names as tooltips."""
    plans = [(i, plan) for i, compiled in enumerate(models) for plan in compiled.plans]
    top = min((plan.demand.staging_row for _, plan in plans), default=WIDE_ROWS)
    width = _LEFT + TILES * (_COLUMN + _GAP) + 20
    height = _TOP + _HEIGHT + 40 + 18 * len(models)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
             'font-size="12">', f'<text x="{_LEFT}" y="20">On-chip memory: 16 tiles, {WIDE_ROWS} rows of '
             f'{WIDE_ROW_BYTES} bytes each</text>']
    for tile in range(TILES):
        x = _LEFT + tile * (_COLUMN + _GAP)
        lines.append(_box(x, 0, WIDE_ROWS, "#f3f3f3", f"tile {tile}"))
        lines.append(_box(x, top, WIDE_ROWS - top, "#c8c8c8", f"rows {top}..{WIDE_ROWS - 1}: used by the executables"))
        lines.append(f'<text x="{x + _COLUMN / 2}" y="{_TOP + _HEIGHT + 16}" text-anchor="middle">{tile}</text>')
    for model, plan in plans:
        for tensor, pieces in zip(plan.demand.tensors, plan.pieces, strict=True):
            lines += [_piece(models[model].source.source, tensor.name, piece, _COLOURS[model % len(_COLOURS)])
                      for piece in pieces]
    for row in range(0, WIDE_ROWS, 512):
        lines.append(f'<text x="{_LEFT - 6}" y="{_y(row)}" text-anchor="end">{row}</text>')
    for i, compiled in enumerate(models):
        y = _TOP + _HEIGHT + 40 + 18 * i
        lines.append(f'<rect x="{_LEFT}" y="{y - 10}" width="12" height="12" fill="{_COLOURS[i % len(_COLOURS)]}"/>'
                     f'<text x="{_LEFT + 18}" y="{y}">{escape(compiled.source.source)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _piece(model: str, name: str, piece: Piece, colour: str) -> str:
    title = f"{model}: {name}, rows {piece.row}..{piece.row + piece.rows - 1} of tile {piece.tile}"
    return _box(_LEFT + piece.tile * (_COLUMN + _GAP), piece.row, piece.rows, colour, title)


def _box(x: int, row: int, rows: int, colour: str, title: str) -> str:
    height = rows * _HEIGHT / WIDE_ROWS
    return (f'<rect x="{x}" y="{_y(row + rows)}" width="{_COLUMN}" height="{height:.2f}" fill={quoteattr(colour)} '
            f'stroke="white" stroke-width="0.3"><title>{escape(title)}</title></rect>')


def _y(row: int) -> str:
    return f"{_TOP + _HEIGHT * (1 - row / WIDE_ROWS):.2f}"


def _ranges(tiles: Sequence[int]) -> str:
    """Write numbers as 0-3,7."""
    parts: list[list[int]] = []
    for tile in sorted(tiles):
        if parts and tile == parts[-1][-1] + 1:
            parts[-1].append(tile)
        else:
            parts.append([tile])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)

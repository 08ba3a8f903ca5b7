"""A fully connected layer, and the instructions that multiply with it wherever its parameters lie."""

from __future__ import annotations

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import LANES, TILES, WIDE_ROWS
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.parameters import DenseParameters, round_up
from compiler.lowering.pieces import ROW_WORDS
from compiler.memory.placement import Piece
from compiler.records import record

_FLOAT_ONE = 0x3F800000


@record
class DenseLayer:
    """A fully connected layer ready for code generation.

    Attributes
    ----------
    row:
        First wide row of its parameters, the same on all its tiles; None when they lie elsewhere.
    pieces:
        Where they lie for owners to send them over the ring; streamed when neither is given.
    early:
        They arrive in the wide rows of compiler 1.0.
    top_row:
        Wide rows from here on are taken.
    in_place:
        Every tile's results lie where they do in the whole result.
    joint_bytes:
        Bytes of the vector that its result is a part of; zero when it stands by itself.
    in_zero_point, out_zero_point:
        Unsigned domain.
    clamp_low, clamp_high:
        Bit patterns of float32 bounds.
    """

    name: str
    parameters: DenseParameters
    row: int | None
    in_zero_point: int
    out_zero_point: int
    clamp_low: int
    clamp_high: int
    pieces: tuple[Piece, ...] = ()
    early: bool = False
    top_row: int = WIDE_ROWS
    in_place: bool = False
    joint_bytes: int = 0

    @property
    def groups_per_tile(self) -> int:
        """Groups of 64 output channels on each tile (the last may have fewer)."""
        return -(-self.parameters.groups // TILES)

    @property
    def streamed(self) -> bool:
        """True when its parameters come from the host with every inference."""
        return self.row is None and not self.pieces

    @property
    def tiles(self) -> int:
        """Number of tiles that compute: tiles 0, 1, ..."""
        return -(-self.parameters.groups // self.groups_per_tile)

    def groups_on(self, tile: int) -> int:
        """Groups of one tile."""
        q = self.groups_per_tile
        return min(q, self.parameters.groups - tile * q)

    def lanes_of_last_group(self, tile: int) -> int:
        """Active lanes of the last group of a tile, a multiple of four."""
        first = (tile * self.groups_per_tile + self.groups_on(tile) - 1) * LANES
        return min(LANES, round_up(self.parameters.outputs - first, 4))

    def bytes_on(self, tile: int) -> int:
        """Output bytes of one tile."""
        return (self.groups_on(tile) - 1) * LANES + self.lanes_of_last_group(tile)


def tile_shapes(layer: DenseLayer) -> dict[tuple[int, int, int], int]:
    """Tiles by (groups, lanes of the last group, bytes to their results): each kind needs an instruction of its own."""
    found: dict[tuple[int, int, int], int] = {}
    for tile in range(layer.tiles):
        offset = tile * layer.groups_per_tile * LANES if layer.in_place else 0
        key = (layer.groups_on(tile), layer.lanes_of_last_group(tile), offset)
        found[key] = found.get(key, 0) | 1 << tile
    return found


def by_groups(shapes: dict[tuple[int, int, int], int]) -> dict[int, int]:
    """Tiles by number of groups."""
    masks: dict[int, int] = {}
    for (groups, _, _), mask in shapes.items():
        masks[groups] = masks.get(groups, 0) | mask
    return masks


def scaling_lines(p: DenseParameters) -> int:
    """Header rows that go into the scaling registers."""
    return int(p.has_factor_row) + int(p.bias is not None)


def load_scaling(b: ProgramBuilder, p: DenseParameters, mask: int, src: Values, groups: int,
                  arrival: Values | None = None) -> None:
    """Copy multipliers and bias of each group into the scaling registers, half a bank ahead."""
    lines = scaling_lines(p)
    if not lines:
        return
    entries = ROW_WORDS // 2
    dst = [(entries, 1), (lines, LANES)] if groups == 1 else [(entries, 1), (lines, LANES), (groups, 0)]
    watches = watch(0, TileCounter.AVDATA, -1, level=2, side=1)
    if arrival is not None:
        watches = arrival | watch(1, TileCounter.AVDATA, -1, level=2, side=1)
    b.tile("wide_to_narrow", mask, src,
           walk("dst", 0 if p.has_factor_row else LANES, dst, total_dims=6, level=2, slot=entries),
           watches, signal("done", 2), to_scaling=1, drop_level=1)


def multiply(b: ProgramBuilder, layer: DenseLayer, out: int, groups: int, lanes: int, mask: int, *parts: Values) -> None:
    """Emit the tensor operation; ``parts`` are loops, operands and watches."""
    p = layer.parameters
    first_lanes = LANES if groups > 1 else lanes
    epilogue = (2, lanes // 4, LANES - lanes) if groups > 1 and lanes < LANES else None
    # A single group stands for the whole slice, which is as large as the first tile's.
    slice_bytes = first_lanes if groups > 1 else layer.bytes_on(0)
    b.tile(
        "tensor_op", mask, *parts,
        walk("out", out, [(first_lanes // 4, 4), (1, layer.joint_bytes or first_lanes), (groups, slice_bytes)], total_dims=8,
             epilogue=epilogue),
        signal("avdata", 2), signal("parameters", 1),
        flag1843=1, partial_from_zero=1, no_partial_sums=1, in_zero_point=layer.in_zero_point, lanes_last_m1=lanes - 1,
        lanes_m1=first_lanes - 1, clamp_high=layer.clamp_high, clamp_low=layer.clamp_low,
        out_zero_point=layer.out_zero_point, use_bias=int(p.bias is not None), use_multiplier=int(p.has_factor_row),
        multiplier=_FLOAT_ONE if p.has_factor_row else int(p.factors[:1].view("uint32")[0]),
    )


def zero_points(p: DenseParameters, first: int, step: int, last: int) -> Values:
    """Weight zero points: an immediate, or rows of int32 per group."""
    if not p.per_channel:
        return {"weights_zero_point": p.zero_point}
    return {"zero_points_per_channel": 1, "zero_point_row.start": first, "zero_point_row.step": step,
            "zero_point_row.last": last}

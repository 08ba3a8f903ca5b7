"""Pools over all pixels of an image.

The pixels of a small image come together on tile 0 and are pooled there; with compiler 16.0 those of a
smaller one on as many tiles as there are groups of channels. Of a large image every tile pools its own,
and only the results come together: maxima of 8 bits, or sums of 16. An official DeepLab v3 sums the rows
of its image so before it adds up the sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from compiler.facts import LANES, NARROW_BYTES, TILES, WIDE_ROWS
from compiler.graph import Operator
from compiler.lowering.arithmetic import bits, clamp, mean_multiplier, unary_multiplier, zero_point
from compiler.lowering.builder import walk
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.families.channel_pool import ChannelPool, by_channels, channel_words
from compiler.lowering.spatial.families.pool import (
    PIXELS_PER_ROW,
    Pool,
    PoolStep,
    Region,
    collect_pixels,
    emit_pool,
    groups_of,
    reduce_pixels,
    wide_rows_of,
)
from compiler.lowering.spatial.families.unary import HIGHEST, complement
from compiler.lowering.spatial.geometry import Activation, Image, Slab, Span, Window, by_content
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.records import record

_MOST_SUMMED = 65535 // 255
"""Pixels whose sum always fits 16 bits."""
_MOST_ROWS = 512
"""Wide rows that pixels take at once."""
_SPARING_ROWS = 48
"""Wide rows for some channels of all pixels: fewer than most layers with weights need."""
_MOST_GATHERED = NARROW_BYTES // 2
"""Bytes of an image that tile 0 pools as a whole."""


@record
class WholePool(PoolStep):
    """A pool over pixels that lie one behind the other on tile 0.

    Attributes
    ----------
    pixels:
        How many there are.
    sparing:
        Channels are pooled some groups after the other, so that their pixels take few wide rows: compiler 16.0 has 64
        channels on every tile, and all its tiles need no more.
    """

    pixels: int
    sparing: bool = False

    early_constants: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = Leaves.VECTOR

    @property
    def name(self) -> str:  # type: ignore[override]
        """Title of the operator."""
        return self.pool.name

    def _lines(self, target: Activation) -> Slab:
        """All pixels as one row of an image; sums of 16 bits as one column."""
        rows, columns = (self.pixels, 1) if self.pool.wide_operand else (1, self.pixels)
        return Slab(Span(0, rows), Span(0, columns), target.image.padded * self.pool.operand_bytes)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the pixels."""
        del top
        lines = self._lines(scenes[0][self.target])
        return WIDE_ROWS - wide_rows_of(replace(lines, pixel=self._at_once(lines)), self.pool.operand_bytes)

    def _at_once(self, lines: Slab) -> int:
        """Return how many bytes of a pixel are pooled at once."""
        if not self.sparing:
            return lines.pixel
        rows = wide_rows_of(replace(lines, pixel=LANES))
        return min(lines.pixel, LANES * max(1, _SPARING_ROWS // rows))

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the constant one of a sum."""
        del scenes
        return 0 if self.pool.maximum else 4

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Reduce the pixels."""
        emission.begin_vector()
        target, wide = activations[self.target], self.lowest_row([activations], 0)
        lines = self._lines(target)
        at_once = self._at_once(lines)
        for first in range(0, lines.pixel, at_once):
            region = Region(activations[self.pool.source].address + first, target.own_address(0) + first, lines,
                            Slab(Span(0, 1), Span(0, 1), target.image.padded), len(lines.rows), len(lines.columns), 1, 1,
                            min(at_once, lines.pixel - first))
            emit_pool(emission.b, emission.books, self.pool, {0: region}, wide, emission.constants.get(self.name, 0),
                      again=first > 0)
        emission.reset()


@record
class Part:
    """Pixels of a tile that lie in wide memory together.

    Attributes
    ----------
    height:
        Rows that are pooled into one result.
    """

    rows: Span
    columns: Span
    height: int

    @property
    def results(self) -> int:
        """How many results there are."""
        return len(self.rows) // self.height

    @property
    def pixels(self) -> int:
        """Pixels of a result."""
        return self.height * len(self.columns)


@record
class TilePool(PoolStep):
    """Every tile pools its own pixels, into as many results as wide memory and 16 bits demand: a vector in slices.

    Attributes
    ----------
    image:
        What is pooled.
    """

    image: Image

    @property
    def name(self) -> str:  # type: ignore[override]
        """Title of the operator, and what is done."""
        return f"{self.pool.name}, tile by tile"

    @property
    def _parts(self) -> Mapping[int, list[Part]]:
        """What every tile that has pixels pools."""
        return {t: list(parts_of(self.image, t, maximum=self.pool.maximum)) for t in range(TILES) if self.image.pixels(t)}

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the pixels."""
        del scenes, top
        return WIDE_ROWS - max(_rows(self.image, p) for parts in self._parts.values() for p in parts)

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the constant ones of a sum."""
        del scenes
        return 0 if self.pool.maximum else 4 * self._most_results

    @property
    def _most_results(self) -> int:
        return max(p.results for parts in self._parts.values() for p in parts)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Pool part after part."""
        emission.begin_vector()
        b, ones, wide = emission.b, emission.constants.get(self.name, 0), self.lowest_row([activations], 0)
        if not self.pool.maximum:
            count = self._most_results
            b.tile("mesh_from_south", sum(1 << t for t in self._parts),
                   walk("dst", ones // 4, [(count, 1)], total_dims=4, mask=int(count > 1)), fill=1, fill_value=1)
        steps = {t: self._steps(activations, t, parts) for t, parts in self._parts.items()}
        name = "tensor_max" if self.pool.maximum else "tensor_op"
        for i in range(max(map(len, steps.values()))):
            now = {t: found[i] for t, found in steps.items() if i < len(found)}
            b.tile_fence()
            for tiles, fields in by_content({t: collect_pixels(*step, wide) for t, step in now.items()}):
                b.tile("narrow_to_wide", tiles, dict(fields))
            b.tile_fence()
            for tiles, fields in by_content({t: reduce_pixels(*step, wide, ones) for t, step in now.items()}):
                b.tile(name, tiles, dict(fields))
        emission.reset()

    def _steps(self, activations: Activations, tile: int, parts: Sequence[Part]) -> list[tuple[Pool, Region]]:
        source, target = activations[self.pool.source], activations[self.target]
        slab, pixel = source.slab(tile), result_bytes(self.image, maximum=self.pool.maximum)
        found, done = [], target.own_address(tile)
        for p in parts:
            windows = Window(p.height, p.height), Window(len(p.columns), len(p.columns))
            zero = self.pool.in_zero_point * (1 if self.pool.maximum else p.pixels)
            region = Region(source.address + slab.offset(p.rows.start, p.columns.start), done, slab,
                            Slab(Span(0, p.results), Span(0, 1), pixel), len(p.rows), len(p.columns), p.results, 1)
            found.append((replace(self.pool, windows=windows, out_zero_point=zero), region))
            done += p.results * pixel
        return found


def parts_of(image: Image, tile: int, *, maximum: bool) -> Iterator[Part]:
    """Yield the parts into which the pixels of a tile are cut.

    Examples
    --------
    >>> [(len(p.rows), p.results, p.pixels) for p in parts_of(Image(72, 72, 8), 0, maximum=False)]
    [(14, 1, 252), (4, 1, 72)]
    """
    rows, columns = image.own(tile)
    for left in range(columns.start, columns.stop, _MOST_SUMMED):
        part = Span(left, min(left + _MOST_SUMMED, columns.stop))
        most = max(1, _MOST_ROWS // (-(-len(part) // PIXELS_PER_ROW) * groups_of(image.padded)))
        height = most if maximum else min(most, max(1, _MOST_SUMMED // len(part)))
        together = most // height * height
        for top in range(rows.start, rows.stop, together):
            count = min(together, rows.stop - top)
            whole = count // height * height
            if whole:
                yield Part(Span(top, top + whole), part, height)
            if count > whole:
                yield Part(Span(top + whole, top + count), part, count - whole)


def result_bytes(image: Image, *, maximum: bool) -> int:
    """Return the bytes of what a tile makes of some pixels."""
    return image.padded * (1 if maximum else 2)


def _rows(image: Image, part: Part) -> int:
    return wide_rows_of(Slab(part.rows, part.columns, image.padded))


def read_whole_pool(context: Context, op: Operator) -> Layer:
    """Read a mean, sum, maximum or minimum over a whole image."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    image = context.image(x.index)
    count = image.height * image.width
    pool = pool_of(context, op, 1 if op.name == "SUM" else count, y.index, (Window(1), Window(count)))
    origin, maximum = pool.source, pool.maximum
    if context.generation.pools_by_channels and origin not in context.slices and by_channels(image):
        context.lie(y.index, channel_words(image))
        rows, columns = (getattr(op.options, name, 1) for name in ("strideH", "strideW"))
        windows = Window(image.height, rows), Window(image.width, columns)
        return ChannelPool(replace(pool, windows=windows), image)
    line = Slab(Span(0, 1), Span(0, count), image.padded)
    results = [sum(p.results for p in parts_of(image, t, maximum=maximum)) for t in range(TILES)]
    small = line.size <= _MOST_GATHERED and wide_rows_of(line) <= _MOST_ROWS
    if origin in context.slices or small or sum(results) * result_bytes(image, maximum=maximum) >= line.size:
        return WholePool(replace(pool, source=context.gather((origin,), 1)), count, context.generation.pools_by_channels)
    return _in_parts(context, pool, image, results)


def pool_of(context: Context, op: Operator, count: int, target: int, windows: Windows) -> Pool:
    """Return a pool with full windows; minima are maxima of what values lack to 255, negated.

    Parameters
    ----------
    count:
        Pixels of a mean, one for a sum.
    """
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    low, high = clamp(y, getattr(op.options, "fusedActivationFunction", 0))
    source, zero = context.origin(x.index), zero_point(x)
    maximum = op.name in ("MAX_POOL_2D", "REDUCE_MAX", "REDUCE_MIN")
    early = op.name == "AVERAGE_POOL_2D" and context.generation.early_arithmetic
    multiplier = unary_multiplier(x, y) if maximum else mean_multiplier(x, y, count, early_pool=early)
    if op.name == "REDUCE_MIN":
        rest = context.between(x, x.shape, "to 255").index
        context.pass_on(source, rest)
        context.before.append(complement(f"{op.title} to 255", source, rest))
        source, zero, multiplier = rest, HIGHEST - zero, np.float32(-multiplier)
    return Pool(op.title, maximum, source, target, windows, zero, zero_point(y), bits(multiplier), low, high)


def _in_parts(context: Context, pool: Pool, image: Image, results: Sequence[int]) -> Layer:
    """Return the pool of what every tile makes of its pixels, so many results on each."""
    words, count = result_bytes(image, maximum=pool.maximum) // 4, sum(results)
    between = context.between(context.tensor(pool.source), (1, 4 * words * count), "pooled on every tile").index
    context.lie(between, tuple(words * n for n in results))
    low, high = bits(float("-inf")), bits(float("inf"))
    first = replace(pool, target=between, multiplier=bits(1.0), clamp_low=low, clamp_high=high,
                    wide_result=not pool.maximum)
    context.before.append(TilePool(first, image))
    source = context.gather((between,), 1)
    if pool.maximum:
        second = replace(pool, source=source, windows=(Window(1), Window(count)))
    else:
        second = replace(pool, source=source, windows=(Window(count), Window(1)), in_zero_point=0, wide_operand=True,
                         constant=-pool.in_zero_point * image.height * image.width)
    return WholePool(second, count)

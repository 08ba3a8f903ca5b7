"""The compute engine: T01 multiply-accumulate, T02 maximum, T03 sum.

An instruction is a nest of loops. Each step reads one narrow word and one wide row and
accumulates in every active lane. A *run* is the steps that add up to one result (for all lanes);
a *unit* is what may execute without looking at a watch again. Units are executed as matrix
products over all runs that see the same wide rows, and over all tiles at once.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.beagle.simulator.errors import UnsupportedInstruction
from compiler.beagle.simulator.output import OutputStage
from compiler.beagle.simulator.state import Chip, check, picked
from compiler.beagle.simulator.task import Ints, Levels, Signal, TileTask, watch_gates
from compiler.beagle.simulator.walk import Nest, Walk, walk_of
from compiler.facts import LANE_BYTES, LANES, NARROW_BYTES, TILES, WIDE_ROWS

Number = TypeVar("Number", bound=np.number)
MAX_BATCH_BYTES = 64 << 20
_EXACT_FLOAT32 = 1 << 24
_INT32 = np.iinfo(np.int32)


class Stage(Protocol):
    """What turns sums into bytes."""

    def apply(self, chip: Chip, tiles: list[int], sums: npt.NDArray[np.int64],
              group: Ints) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Return finished elements; sums has shape (tiles, runs, lanes)."""
        ...


class TensorOp(TileTask):
    """A compute instruction. Positions are steps of its loop nest."""

    engine = TileEngine.OP

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        counts = tuple(ins[f"loop{i}"] + 1 for i in range(8))
        dim = ins["loop_epilogue_dim"]
        self.nest = Nest(counts, dim, ins["loop_epilogue_limit"] + 1 if dim else 0)
        self.size = self.nest.size
        self.read_walks()
        self.find_runs(counts)
        self.find_channels()
        self.find_outputs()
        self.set_gates()
        self.carry: dict[int, npt.NDArray[np.int64]] = {}
        self.stage = self.output_stage()

    # -- preparation ----------------------------------------------------------------------------

    def output_stage(self) -> Stage:
        """Return what turns sums into bytes."""
        return OutputStage(self.ins)

    def read_walks(self) -> None:
        """Work out all addresses."""
        ins = self.ins
        a, b, c, d = (walk_of(ins, g) for g in ins.form.generators)
        self.a_walk, self.b_walk, self.c_walk, self.d_walk = a, b, c, d
        self.a = self._stretch(a, "in")
        self.c = self._stretch(c, "weights")
        self.d = self._stretch(d, "partial")
        self.wide_in = 1 << ins["in_16bit"]
        self.wide_weights = 1 << ins["weights_16bit"]
        slots = 4 - ins["slot1_off"] - ins["slot2_off"] - ins["slot3_off"]
        self.products = max(slots // (self.wide_in * self.wide_weights), 1)
        self.uses_in = ins.name == "tensor_op"
        self.reads_wide = True
        if self.uses_in:
            check(self.a, NARROW_BYTES - self.products * self.wide_in + 1, "narrow memory byte")
        check(self.c, WIDE_ROWS * 4, "wide memory quarter row")

    def _stretch(self, walk: Walk, what: str) -> Ints:
        """Return one address per step; an operand that never moves may be shorter than the loops."""
        if walk.size == self.size:
            return walk.addresses
        if len(np.unique(walk.addresses)) == 1:
            return np.full(self.size, walk.addresses[0])
        if self.size % walk.size == 0:
            return np.tile(walk.addresses, self.size // walk.size)
        raise UnsupportedInstruction(f"{self.ins.name} at {self.ins.offset:#x}: operand {what} has {walk.size} elements, "
                                     f"the loops have {self.size} steps")

    def find_runs(self, counts: tuple[int, ...]) -> None:
        """Work out which steps add up to one result."""
        ins = self.ins
        self.partial = not ins["no_partial_sums"]
        mask = ins["reduction"]
        leading = 0
        # Sums that stay in the unit run on through loops of one iteration; partial sums in wide
        # memory are stored at the end of the innermost reduction.
        while leading < 8 and (mask >> leading & 1 or (not self.partial and counts[leading] == 1)):
            leading += 1
        while leading and not mask >> (leading - 1) & 1:
            leading -= 1
        if not self.partial and (ins["partial.level"] or ins["partial.slot"]):
            self.run_ends = self.d_walk.nest.block_ends(ins["partial.level"])
            if self.d_walk.size != self.size:
                self.run_ends = self.nest.block_ends(leading)
        else:
            self.run_ends = self.nest.block_ends(leading)
        self.run_starts = np.concatenate((np.zeros(1, np.int64), self.run_ends[:-1]))
        outer = np.repeat(np.arange(len(self.nest.outer)), self.nest.lengths)[self.run_starts]
        index = self.nest.outer[outer]
        self.run_index = index
        later = [i for i in range(max(leading, 1), 8) if mask >> i & 1]
        self.first_visit = np.all(index[:, [i - 1 for i in later]] == 0, axis=1) if later else np.ones(len(index), bool)
        lasts = np.asarray([counts[i] - 1 for i in later])
        self.last_visit = (np.all(index[:, [i - 1 for i in later]] == lasts, axis=1) if later
                           else np.ones(len(index), bool))
        # Partial sums of one visit lie in distinct rows; a second visit must see the first one's.
        self.visit_level = min(later) if later and self.partial else 8
        self.visits = self.nest.block_ends(self.visit_level) if self.visit_level < 8 else self.run_ends
        self.length_changes = np.flatnonzero(np.diff(self.run_ends - self.run_starts)) + 1

    def find_channels(self) -> None:
        """Channel group and number of lanes of every run."""
        ins = self.ins
        level = ins["channel_group_level"]
        n = len(self.run_starts)
        group = np.zeros(n, np.int64)
        factor = 1
        for loop in range(max(level, 1), 8):
            group += self.run_index[:, loop - 1] * factor
            factor *= self.nest.counts[loop]
        self.groups = factor
        self.group = group
        self.lanes_of_run = np.where(group == factor - 1, ins["lanes_last_m1"] + 1, ins["lanes_m1"] + 1)
        self.lanes = int(self.lanes_of_run.max())

    def find_outputs(self) -> None:
        """Narrow addresses written, and how many words are out after each run."""
        ins = self.ins
        per_run = -(-self.lanes_of_run * (2 if ins["nonlinear"] & 4 else 1) // 4)
        emits = self.last_visit if self.partial else np.ones(len(per_run), bool)
        self.words = np.where(emits, per_run, 0)
        self.words_end = np.cumsum(self.words)
        total = int(self.words_end[-1])
        self.out = self.b_walk.addresses
        if len(self.out) < total:
            if len(np.unique(self.out)) == 1:
                self.out = np.full(total, self.out[0])
            else:
                raise UnsupportedInstruction(f"{ins.name} at {ins.offset:#x} gives {total} words, its output names "
                                             f"{len(self.out)}")
        check(self.out, NARROW_BYTES - 3, "narrow memory byte")

    def set_gates(self) -> None:
        """Bind watches to loops and signals to operands."""
        ins = self.ins
        self.gates = watch_gates(ins, {0: Levels(self.nest)})
        signals = []
        if ins["avdata.valid"]:
            ends = self.b_walk.nest.block_ends(ins["avdata.level"])
            run = np.minimum(np.searchsorted(self.words_end, ends, "left"), len(self.run_ends) - 1)
            signals.append(Signal(TileCounter.AVDATA, self.run_ends[run]))
        for name, walk, counter in (("parameters", self.c_walk, TileCounter.PARAMETERS),
                                    ("partial_sums", self.d_walk, TileCounter.PARTIAL_SUMS)):
            if ins[f"{name}.valid"]:
                signals.append(Signal(counter, np.minimum(walk.nest.block_ends(ins[f"{name}.level"]), self.size)))
        self.signals = tuple(signals)

    @cached_property
    def beats(self) -> int:
        """What the instruction takes: a beat per step however many lanes work, and at least one per word of a result.

        Results leave word by word (4 channels) while the next ones are summed up. The cycle estimates in official files have
        a minimum of 16 steps per result, too.
        """
        return int(np.maximum(self.run_ends - self.run_starts, self.words).sum())

    # -- execution --------------------------------------------------------------------------------

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Execute steps start..stop (ends of blocks) on several tiles at once."""
        at = start if chip.computes else stop
        while at < stop:
            end = self._next_batch(at, stop)
            self._execute(chip, tiles, at, end)
            at = end

    def _next_batch(self, at: int, stop: int) -> int:
        """End of what can be computed together: one visit of the partial sums, equal run lengths, bounded size."""
        first = int(np.searchsorted(self.run_ends, at, "right"))
        if self.run_starts[first] < at or self.run_ends[first] > stop:
            return min(int(self.run_ends[first]), stop)
        last = int(np.searchsorted(self.run_ends, stop, "right"))
        change = int(np.searchsorted(self.length_changes, first, "right"))
        if change < len(self.length_changes):
            last = min(last, int(self.length_changes[change]))
        if self.visit_level < 8:
            end = int(self.visits[np.searchsorted(self.visits, at, "right")])
            last = min(last, int(np.searchsorted(self.run_ends, end, "right")))
        length = int(self.run_ends[first] - self.run_starts[first])
        limit = max(1, MAX_BATCH_BYTES // (length * self.products * 8 * 16))
        if last - first > limit:
            last = first + limit
        return int(self.run_ends[last - 1])

    def _execute(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        first = int(np.searchsorted(self.run_ends, start, "right"))
        last = int(np.searchsorted(self.run_ends, stop, "left")) + 1
        steps = stop - start
        runs = last - first
        length = steps // runs
        sums = self._accumulate(chip, tiles, start, runs, length, first)
        complete = self.run_ends[last - 1] == stop
        whole = self.run_starts[first] == start
        if not self.partial:
            if not whole:
                sums = self._combine(sums, np.stack([self.carry.pop(t) for t in tiles])[:, None])
            if not complete:
                for i, tile in enumerate(tiles):
                    self.carry[tile] = sums[i, 0]
                return
        else:
            sums = self._partial(chip, tiles, first, last, sums)
        self._emit(chip, tiles, first, last, sums)

    def _combine(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.maximum(a, b) if self.ins.name == "tensor_max" else a + b

    def _accumulate(self, chip: Chip, tiles: list[int], start: int, runs: int, length: int,
                    first: int) -> npt.NDArray[np.int64]:
        """Sums of the runs, shape (tiles, runs, lanes)."""
        c = self.c[start:start + runs * length].reshape(runs, length)
        change = np.flatnonzero(np.any(c[1:] != c[:-1], axis=1)) + 1
        bounds = np.concatenate((np.zeros(1, np.int64), change, np.asarray([runs])))
        sizes = np.diff(bounds)
        if len(sizes) > 1 and np.all(sizes == sizes[0]):
            return self._product(chip, tiles, start, length, c[bounds[:-1]], int(sizes[0]), self.group[first + bounds[:-1]])
        parts = []
        for i, size in enumerate(sizes.tolist()):
            at = int(bounds[i])
            parts.append(self._product(chip, tiles, start + at * length, length, c[at:at + 1], size,
                                       self.group[first + at:first + at + 1]))
        return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]

    def _product(self, chip: Chip, tiles: list[int], start: int, length: int, c: Ints, size: int,
                 group: Ints) -> npt.NDArray[np.int64]:
        """Sums of ``size`` runs for each of the sets of wide rows c, shape (sets, length)."""
        sets = len(c)
        if self.ins.name == "tensor_max":
            return np.repeat(self._weights(chip, tiles, c, group, np.int64).max(2), size, 1)
        if self.ins.name == "tensor_sum":
            return np.repeat(self._weights(chip, tiles, c, group, np.int64).sum(2), size, 1)
        if self.ins.name != "tensor_op":
            raise UnsupportedInstruction(f"{self.ins.name} at {self.ins.offset:#x} is not decoded")
        exact32 = length * self.products * (256 ** (self.wide_in + self.wide_weights)) < _EXACT_FLOAT32
        kind: type[np.float32 | np.float64] = np.float32 if exact32 else np.float64
        w = self._weights(chip, tiles, c, group, kind)
        a = self._inputs(chip, tiles, start, sets * size * length, kind).reshape(len(tiles), sets, size, -1)
        result: npt.NDArray[np.int64] = np.matmul(a, w).astype(np.int64).reshape(len(tiles), sets * size, self.lanes)
        return result

    def _inputs(self, chip: Chip, tiles: list[int], start: int, steps: int, kind: type[Number]) -> npt.NDArray[Number]:
        """Input elements minus zero point, shape (tiles, steps, products)."""
        at = self.a[start:start + steps]
        if self.wide_in == 1:
            if self.products == 4 and not np.any(at & 3):
                words = picked(chip.narrow.view(np.uint32), tiles, at >> 2)
                values = words.view(np.uint8).reshape(len(tiles), steps, 4)
            else:
                values = picked(chip.narrow, tiles, at[:, None] + np.arange(self.products))
            inputs = values.astype(kind)
            inputs -= kind(self.ins["in_zero_point"] & 0xFF)
            return inputs
        at = at[:, None] + 2 * np.arange(self.products)
        low = picked(chip.narrow, tiles, at).astype(np.int32)
        high = picked(chip.narrow, tiles, at + 1).astype(np.int32)
        return (low + (high << 8) - self.ins["in_zero_point"]).astype(kind)

    def _weights(self, chip: Chip, tiles: list[int], c: Ints, group: Ints, kind: type[Number]) -> npt.NDArray[Number]:
        """Wide elements minus zero point, shape (tiles, sets, length * products, lanes)."""
        sets, length = c.shape
        elements = chip.wide.view(np.uint8 if self.wide_weights == 1 else np.uint16)
        in_lane = LANE_BYTES // self.wide_weights
        # A product takes the next element of every lane: tiles, rows, elements of a lane, lanes.
        elements = elements.reshape(TILES, WIDE_ROWS, LANES, in_lane)[:, :, :self.lanes].swapaxes(2, 3)
        first = (c & 3) // self.wide_weights
        element = np.minimum(first[..., None] + np.arange(self.products), in_lane - 1)
        values = picked(elements, tiles, (c >> 2)[..., None], element)
        weights: npt.NDArray[Number] = values.astype(kind).reshape(len(tiles), sets, length * self.products, self.lanes)
        if self.ins.name != "tensor_max":  # the maximum is taken before zero points
            np.subtract(weights, self._zero_points(chip, tiles, group), out=weights, casting="unsafe")
        return weights

    def _zero_points(self, chip: Chip, tiles: list[int], group: Ints) -> npt.NDArray[np.int32] | int:
        ins = self.ins
        if not ins["zero_points_per_channel"]:
            return ins["weights_zero_point"]
        points = picked(chip.wide.view(np.int32), tiles, self.zero_point_rows(group))
        return points[:, :, None, :self.lanes]

    def zero_point_rows(self, group: Ints) -> Ints:
        """Wide row of the zero points of each channel group."""
        first, step, last = (self.ins[f"zero_point_row.{k}"] for k in ("start", "step", "last"))
        # The pointer steps once per group and returns to the first row when it passes the last.
        turns = (last - first) // step + 1 if step and last >= first else 1
        return check(first + group % turns * step, WIDE_ROWS, "wide memory")

    def _partial(self, chip: Chip, tiles: list[int], first: int, last: int,
                 sums: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Add the partial sums in wide memory and store the new ones."""
        rows = check(self.d[self.run_starts[first:last]] >> 2, WIDE_ROWS, "wide memory")
        stored = picked(chip.wide.view(np.int32)[..., :self.lanes], tiles, rows)
        if self.ins["partial_from_zero"]:
            stored[:, self.first_visit[first:last]] = 0
        sums += stored
        np.clip(sums, _INT32.min, _INT32.max, out=sums)
        for i, tile in enumerate(tiles):
            chip.wide.view(np.int32)[tile][rows, :self.lanes] = sums[i]
        return sums

    def _emit(self, chip: Chip, tiles: list[int], first: int, last: int, sums: npt.NDArray[np.int64]) -> None:
        """Send finished sums through the output stage into narrow memory."""
        emits = self.words[first:last] > 0
        if not emits.any():
            return
        if not emits.all():
            sums = sums[:, emits]
        group = self.group[first:last][emits]
        data = self.stage.apply(chip, tiles, sums, group)  # tiles, runs, lanes -> uint8 or uint16
        begin = int(self.words_end[first - 1]) if first else 0
        targets = self.out[begin:int(self.words_end[last - 1])]
        lanes = self.lanes_of_run[first:last][emits]
        in_word = 4 // data.dtype.itemsize
        width = -(-self.lanes // in_word) * in_word
        if data.shape[2] < width:
            data = np.concatenate((data, np.zeros((*data.shape[:2], width - data.shape[2]), data.dtype)), 2)
        words = np.ascontiguousarray(data).view(np.uint32).reshape(len(tiles), len(group), -1)
        if np.all(lanes == self.lanes):
            flat = words.reshape(len(tiles), -1)
        else:
            used = -(-lanes // in_word)
            flat = words[:, np.arange(words.shape[2]) < used[:, None]]
        if np.any(targets & 3):
            for k in range(4):
                for i, tile in enumerate(tiles):
                    chip.narrow[tile, targets + k] = flat[i].view(np.uint8).reshape(-1, 4)[:, k]
            return
        memory = chip.narrow.view(np.uint32)
        memory[np.asarray(tiles)[:, None], targets >> 2] = flat


class LoadTable(TileTask):
    """T19: loads the nonlinear table. One position."""

    engine = TileEngine.OP
    size = 1

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Store coefficients (8, 5) and breakpoints (7) as one float32 array."""
        names = [f"c{s}.{k}" for s in range(8) for k in range(5)] + [f"breakpoint{i}" for i in range(7)]
        table = np.asarray([self.ins[n] for n in names], np.uint32).view(np.float32)
        for tile in tiles:
            chip.tables[tile] = table


__all__ = ["LANES", "LoadTable", "TensorOp"]

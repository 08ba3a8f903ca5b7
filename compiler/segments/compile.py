"""Cuts a model and compiles its segments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import inf, isfinite

from compiler.beagle.timing.costs import BUSES, Bus
from compiler.compile import CompiledModel, CompileOptions, compile_checked, read_networks
from compiler.errors import CompilationError, UsageError
from compiler.graph import Model
from compiler.mapping import check_model
from compiler.segments.balance import Cut, Floats, balance
from compiler.segments.costs import SegmentCosts
from compiler.segments.order import execution_order, last_cut
from compiler.segments.parameters import check_count, cut_by_parameters, parameter_bytes
from compiler.segments.segment import segment_of, segments_of
from compiler.segments.times import OperatorTimes, ProgramTimes

DEFAULT_BUS = "usb3"
_WORTH = 0.95
"""Another segment pays off when it brings the slowest one below this share."""


@dataclass(frozen=True)
class Segments:
    """A compiled pipeline.

    Attributes
    ----------
    models:
        Each for an Edge TPU of its own, with its own caching token and the whole memory.
    warning:
        Says that fewer segments would do; may be empty.
    """

    cut: Cut
    models: tuple[CompiledModel, ...]
    warning: str = ""


class Segmenter:
    """Cuts one model.

    Parameters
    ----------
    times:
        What operators take; by default from the cycle model of the whole model's programs.

    Raises
    ------
    InvalidModelError
        When the model cannot be compiled by anybody.
    CompilationError
        When intermediate tensors are asked for: they would end the Edge TPU part within a segment.
    """

    def __init__(self, model: Model, options: CompileOptions | None = None, *, bus: Bus = BUSES[DEFAULT_BUS],
                 times: OperatorTimes | None = None) -> None:
        check_model(model)
        self._options = options or CompileOptions()
        if any(self._options.intermediate_tensors):
            raise CompilationError("num_segments cannot be combined with intermediate_tensors: the cuts decide what each "
                                   "segment gives.", advice="Use one of the two.")
        _check_names(model)
        self.model = model
        self.order = execution_order(model.main)
        self.possible = last_cut(model.main, self.order)
        self._bus = bus
        self._times = times
        self._exact: set[tuple[int, int]] = set()
        self._lost: set[tuple[int, int]] = set()

    @cached_property
    def costs(self) -> SegmentCosts:
        """Latency of every stretch of operators."""
        whole = compile_checked([self.model], replace(self._options, multiple_subgraphs=True))[0]
        on_tpu = [v.mapped for v in whole.mapped.verdicts]
        demands = [plan.demand for plan in whole.plans]
        times = self._times or ProgramTimes(whole, self._bus)
        return SegmentCosts(self.model.main, self.order, on_tpu, demands, times, self._bus)

    @cached_property
    def matrix(self) -> Floats:
        """Cost of every stretch, indexed by first position and the position behind the last."""
        costs = self.costs.matrix()
        for stretch in self._lost:
            costs[stretch] = inf
        return costs

    def by_parameters(self, count: int) -> Cut:
        """Cut as ``--num_segments`` of the official compiler does; operators may fall back to the CPU."""
        self._check(count)
        sizes = parameter_bytes(self.model.main)
        ends = cut_by_parameters([sizes[i] for i in self.order], count, self.possible)
        for stretch in pairwise((0, *ends)):
            self.look(*stretch)
        return Cut(ends, tuple(self.costs(*stretch) for stretch in pairwise((0, *ends))))

    def by_latency(self, count: int) -> Cut:
        """Cut so that the slowest segment is as fast as can be.

        No operator may fall back to the CPU because of the cut: the pipeline gives the bytes of the whole model.
        Whether code generation takes a stretch is looked at only when a cut would use it; those that it does not
        take only get worse by that, so what is best in the end is best of all.

        Raises
        ------
        CompilationError
            When there is no such cut.
        """
        self._check(count)
        while True:
            cut = balance(self.matrix, count, self.possible)
            if not isfinite(cut.slowest):
                raise CompilationError(f"{self.model.source}: no {count} segments keep on the Edge TPU what runs there in "
                                       "one piece.", advice=f"Ask for {count - 1} segments.")
            unseen = [stretch for stretch in pairwise((0, *cut.ends)) if stretch not in self._exact]
            if not unseen:
                return cut
            for stretch in unseen:
                self.look(*stretch)

    def worthwhile(self, most: int) -> Cut:
        """Cut into as many segments as pay off, up to ``most``: each saves more than the submission that it costs."""
        cut = self.by_latency(1)
        for count in range(2, min(most, self.possible + 1) + 1):
            try:
                more = self.by_latency(count)
            except CompilationError:
                break
            if more.slowest < min(_WORTH * cut.slowest, cut.slowest - self._bus.overhead_us):
                cut = more
        return cut

    def compile(self, cut: Cut) -> Segments:
        """Compile the segments of a cut."""
        jobs = self.jobs(cut)
        return Segments(cut, tuple(compile_checked([model], options)[0] for model, options in jobs), self.warning(cut))

    def jobs(self, cut: Cut) -> list[tuple[Model, CompileOptions]]:
        """Return the segments and the options to compile each with.

        Each has a caching token of its own: two with one token would spoil each other's parameters if they met
        on one Edge TPU.
        """
        segments = segments_of(self.model, self.order, cut.ends)
        token = self._options.token
        tokens = [None if token is None else (token + i - 1) % (2**64 - 1) + 1 for i in range(len(segments))]
        return [(model, replace(self._options, token=own)) for model, own in zip(segments, tokens, strict=True)]

    def warning(self, cut: Cut) -> str:
        """Say so when one segment fewer, cut by parameters, would be as fast; empty when not."""
        count = len(cut.ends)
        fewer = self.by_parameters(count - 1) if count > 1 else cut
        if count < 2 or cut.slowest < _WORTH * fewer.slowest:
            return ""
        return ("Warning: For the given model, you're creating more segments than is necessary, which can increase latency: "
                f"with {count - 1} the slowest would take {fewer.slowest / 1000:.2f} ms, with {count} it takes "
                f"{cut.slowest / 1000:.2f} ms.")

    def _check(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"num_segments {count} is not positive.")
        check_count(count, self.possible, self.model.source)

    def look(self, first: int, last: int) -> None:
        """Find out what of a stretch really runs on the Edge TPU; its cost is infinite when that is less than could."""
        if (first, last) in self._exact:
            return
        self._exact.add((first, last))
        operators = self.order[first:last]
        segment = segment_of(self.model, operators, "_stretch", is_first=first == 0, is_last=last == len(self.order))
        mapped, _ = read_networks(segment, self._options)
        on_tpu = [index for index, verdict in zip(operators, mapped.verdicts, strict=True) if verdict.mapped]
        expected = self.costs.on_tpu(first, last)
        self.costs.correct(first, last, on_tpu)
        if expected - frozenset(on_tpu):
            self._lost.add((first, last))
        if "matrix" in self.__dict__:
            self.matrix[first, last] = inf if (first, last) in self._lost else self.costs(first, last)


def _check_names(model: Model) -> None:
    """Segments know the tensors that they exchange by name."""
    counts = Counter(t.name for t in model.main.used_tensors() if not t.is_constant)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise CompilationError(f"{model.source}: {counts[repeated[0]]} tensors are named {repeated[0]!r}; segments exchange "
                               "tensors by name.", advice="Give them different names, or compile it as one model.")

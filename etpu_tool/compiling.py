"""What ``etpu compile`` and ``edgetpu_compiler`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.errors import CompilationError, UsageError
from compiler.records import record
from etpu_tool.limit import limited

if TYPE_CHECKING:
    from compiler.compile import CompiledModel, CompileOptions
    from compiler.graph import Model

DEFAULT_TIMEOUT = 180
BALANCES = ("parameters", "latency")


@record
class Request:
    """What is to be compiled.

    Attributes
    ----------
    sources:
        Model files; several are compiled together.
    intermediate_tensors:
        Names separated by commas; models separated by colons.
    num_segments:
        0 or 1: the model as it is.
    balance:
        How to cut: ``parameters`` as the official compiler does, ``latency`` for the fastest slowest segment.
    search_delegate, delegate_search_step:
        When a compilation fails, try again with so many operators fewer at the end.
    timeout:
        Seconds until one compilation is given up.
    """

    sources: Sequence[str]
    out_dir: str = "."
    min_runtime_version: int = 0
    token: int | None = None
    intermediate_tensors: str = ""
    multiple_subgraphs: bool = False
    num_segments: int = 0
    balance: str = BALANCES[0]
    search_delegate: bool = False
    delegate_search_step: int = 1
    timeout: int = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        """Check what does not go together."""
        if len(set(self.sources)) < len(self.sources):
            raise UsageError("the same model is given twice.")
        if self.num_segments < 0:
            raise UsageError(f"num_segments {self.num_segments} is not positive.")
        if self.num_segments > 1 and len(self.sources) > 1:
            raise UsageError("num_segments cannot be used with several models: models that are compiled together share one "
                             "Edge TPU, segments are for several.", advice="Compile the models one by one.")
        if self.num_segments > 1 and self.intermediate_tensors:
            raise UsageError("num_segments cannot be combined with intermediate_tensors.", advice="Use one of the two.")
        if self.balance not in BALANCES:
            raise UsageError(f"balance {self.balance!r} is not one of {', '.join(BALANCES)}.")
        if self.delegate_search_step < 1:
            raise UsageError(f"delegate_search_step {self.delegate_search_step} is not positive.")
        if self.timeout < 0:
            raise UsageError(f"timeout_sec {self.timeout} is negative.")


class Listener:
    """Is told how a compilation goes; this one says nothing."""

    def cut(self, warning: str) -> None:
        """The model was cut into segments; the warning may be empty."""

    def searches(self) -> None:
        """A search for operators that can be compiled begins."""

    def tries(self, operators: int, tensors: Sequence[str]) -> None:
        """The search tries so many operators, whose results are these; none are given at first."""

    def starts(self) -> None:
        """A compilation starts."""

    def failed(self, error: CompilationError) -> None:
        """A compilation failed; the search may go on."""

    def compiled(self, compiled: Sequence[CompiledModel], sources: Sequence[str], outputs: Sequence[Path]) -> None:
        """Models were compiled."""


def compile_files(request: Request, listener: Listener | None = None
                  ) -> list[tuple[CompiledModel, str, Path]]:
    """Compile files and write the results: all of them or none.

    Returns
    -------
    list
        Per output file: the compiled model, name of its source, path.

    Raises
    ------
    EtpuError
        With nothing written.
    """
    from compiler.output import OutputFiles

    listener = listener or Listener()
    finished: list[tuple[CompiledModel, str, Path]] = []
    with OutputFiles(request.out_dir) as files:
        for models, options in _jobs(request, listener):
            compiled = _compile(models, options, request, listener)
            sources = [model.source for model in models]
            outputs = files.add(compiled, sources)
            listener.compiled(compiled, sources, outputs)
            finished += zip(compiled, sources, outputs, strict=True)
        files.commit()
    return finished


def _jobs(request: Request, listener: Listener) -> list[tuple[Sequence[Model], CompileOptions]]:
    """Read the models; return what is compiled one after the other: all models at once, or segment by segment."""
    from compiler.compile import CompileOptions
    from compiler.facts import RUNTIME_VERSION_CURRENT
    from compiler.graph import read_model
    from compiler.mapping import check_model

    models = [read_model(source) for source in request.sources]
    for model in models:
        check_model(model)
    options = CompileOptions(request.min_runtime_version or RUNTIME_VERSION_CURRENT, request.token,
                             _names(request.intermediate_tensors, models), request.multiple_subgraphs)
    if request.num_segments < 2:
        return [(models, options)]
    from compiler.segments.compile import Segmenter
    from compiler.segments.times import ShapeTimes

    by_latency = request.balance == "latency"
    # the cut by parameters needs latencies for its warning only
    segmenter = Segmenter(models[0], options, times=None if by_latency else ShapeTimes(models[0].main))
    find = segmenter.by_latency if by_latency else segmenter.by_parameters
    cut, warning = limited(lambda: (found := find(request.num_segments), segmenter.warning(found)), request.timeout)
    listener.cut(warning)
    return [([segment], own) for segment, own in segmenter.jobs(cut)]


def _names(text: str, models: Sequence[Model]) -> tuple[tuple[str, ...], ...]:
    """Split lists of tensors; names of tensors may have colons in them, which split lists."""
    if not text:
        return ()
    if len(models) == 1:
        known = {t.name for t in models[0].main.tensors}
        whole = tuple(n for n in text.split(",") if n)
        if known.issuperset(whole):
            return (whole,)
    lists = tuple(tuple(n for n in part.split(",") if n) for part in text.split(":"))
    if len(lists) != len(models):
        raise UsageError("The number of lists given to intermediate_tensors doesn't match the number of input models.",
                         advice="Separate tensors by commas and models by colons.")
    return lists


def _compile(models: Sequence[Model], options: CompileOptions, request: Request, listener: Listener
             ) -> tuple[CompiledModel, ...]:
    """Compile within the time limit; when that fails, search for how many operators it works with, if asked to."""
    from compiler.compile import compile_checked

    sizes = [len(model.main.operators) for model in models]
    if request.search_delegate:
        listener.searches()
    dropped = 0
    while True:
        kept = tuple(size - dropped for size in sizes)
        if request.search_delegate:
            listener.tries(sum(kept), [name for model, count in zip(models, kept, strict=True)
                                       for name in _results(model, count)] if dropped else ())
        listener.starts()
        try:
            return limited(partial(compile_checked, models, replace(options, first_operators=kept)), request.timeout)
        except CompilationError as error:
            listener.failed(error)
            dropped += request.delegate_search_step
            if not request.search_delegate or dropped >= min(sizes):
                raise


def _results(model: Model, count: int) -> list[str]:
    """Names of the tensors that the first operators give to others or as results."""
    graph = model.main
    return [graph.tensors[t].name for op in graph.operators[:count] for t in op.outputs
            if t in graph.outputs or any(c.index >= count for c in graph.consumers.get(t, ()))]

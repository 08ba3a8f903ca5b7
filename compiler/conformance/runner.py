"""Runs the checks on many pairs; one model's failure, crash or endless loop is that model's alone."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.conformance.partners import SUFFIX, Files, find_partners, source_of
from compiler.errors import UsageError
from compiler.facts import RUNTIME_VERSION_CURRENT

CHECKS = ("decode", "package", "cache", "simulate", "map", "parameters", "memory", "compile")
MODEL_SECONDS = 900
"""Time for one check of one model; on two cores all pairs at hand stay below a third of it."""
_PLANNED = {"parameters", "memory", "compile"}
"""Checks for which it matters what was compiled together."""
_UnderTest = tuple[str, Path, Path, tuple[Files, ...]]
"""Name, source model, compiled model, others of the same token."""


@dataclass(frozen=True)
class ModelReport:
    """Results of one model: check name -> plain data with status and reason."""

    name: str
    checks: dict[str, dict[str, Any]]


def find_pairs(paths: Iterable[str | Path]) -> list[tuple[str, Path, Path]]:
    """Find every ``X_edgetpu.tflite`` with its ``X.tflite``; returns (name, source, compiled).

    Raises
    ------
    UsageError
        When a path does not exist or there is no pair.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"{path}: does not exist.")
        root = path if path.is_dir() else path.parent
        candidates = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        for compiled in candidates:
            if compiled.name.endswith(SUFFIX) and source_of(compiled).exists():
                source = source_of(compiled)
                found.append((str(source.relative_to(root).with_suffix("")), source, compiled))
    if not found:
        raise UsageError("no pair of X.tflite and X_edgetpu.tflite was found.",
                         advice="Name a folder that holds such pairs.")
    return found


def run_all(pairs: Sequence[tuple[str, Path, Path]], checks: Sequence[str], *, samples: int, seed: int,
            jobs: int) -> Iterable[ModelReport]:
    """Run the checks on all pairs, each in a process of its own; yields reports in order."""
    unknown = [c for c in checks if c not in CHECKS]
    if unknown:
        raise UsageError(f"there is no check called {unknown[0]}.", advice=f"Checks: {', '.join(CHECKS)}.")
    partners = find_partners(pair[1:] for pair in pairs) if _PLANNED & set(checks) else {}
    under_test = [(*pair, partners.get(pair[2].resolve(), ())) for pair in pairs]
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        yield from pool.map(lambda pair: _run_one(pair, checks, samples, seed), under_test)


def _run_one(pair: _UnderTest, checks: Sequence[str], samples: int, seed: int) -> ModelReport:
    """Run the checks; one that crashes or takes too long fails alone, the others go on in a new process."""
    results: dict[str, dict[str, Any]] = {}
    while rest := [check for check in checks if check not in results]:
        reason = _run_process(pair, rest, samples, seed, results)
        failed = next((check for check in rest if check not in results), None)
        if failed is not None:
            results[failed] = {"status": "fail", "reason": reason}
    return ModelReport(pair[0], results)


def _run_process(pair: _UnderTest, checks: Sequence[str], samples: int, seed: int,
                 results: dict[str, dict[str, Any]]) -> str:
    """Run checks in a process of their own, add what it reports; returns why it ended if it has not done all."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, pair, tuple(checks), samples, seed), daemon=True)
    process.start()
    sender.close()
    reason = f"took longer than {MODEL_SECONDS} seconds"
    try:
        while any(check not in results for check in checks) and receiver.poll(MODEL_SECONDS):
            name, data = receiver.recv()
            results[name] = data
    except EOFError:
        reason = "the process ended unexpectedly"
    process.kill()
    process.join()
    return reason


def _work(sender: Any, pair: _UnderTest, checks: Sequence[str], samples: int, seed: int) -> None:
    """Body of the process of one model."""
    from compiler.conformance.checks import CHECK_FUNCTIONS
    from compiler.conformance.runs import PairUnderTest

    under_test: PairUnderTest | None = None
    for check in checks:
        try:
            under_test = under_test or PairUnderTest(pair[1], pair[2], samples, seed, pair[3])
            data = CHECK_FUNCTIONS[check](under_test).as_json()
        except Exception as error:  # the report names what went wrong; the next check goes on
            data = {"status": "fail", "reason": f"{type(error).__name__}: {error}"}
        sender.send((check, data))


def summarize(reports: Sequence[ModelReport], checks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Count pass, fail and skip per check; of compile and memory also how ours stand against the official ones."""
    summary: dict[str, dict[str, Any]] = {check: {
        status: sum(r.checks[check]["status"] == status for r in reports) for status in ("pass", "fail", "skip")}
        for check in checks}
    if "compile" in summary:
        summary["compile"] |= _compile_figures([r.checks["compile"] for r in reports])
    if "memory" in summary:
        found = [r.checks["memory"] for r in reports if "official_on_chip" in r.checks["memory"]]
        summary["memory"] |= {"compared": len(found), "at_most_official": sum(
            c["on_chip"] <= c["official_on_chip"] for c in found), "beside_absent": sum(c["rows_taken"] > 0 for c in found)}
    return summary


def _compile_figures(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Identical programs, per runtime version too, and cycles ours/official."""
    ran = [c for c in results if "programs_identical" in c]
    newest = [c for c in ran if c["runtime"] >= RUNTIME_VERSION_CURRENT]
    ratios = [c["cycles_ratio"] for c in ran if c["cycles_ratio"]]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
    return {"compared": len(ran), "programs_identical": sum(c["programs_identical"] for c in ran),
            "compared_newest_runtime": len(newest), "identical_newest_runtime": sum(c["programs_identical"] for c in newest),
            "cycles_ratio_mean": mean, "cycles_ratio_largest": max(ratios, default=None)}

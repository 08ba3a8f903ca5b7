"""``etpu conformance``: our knowledge and our compiler against officially compiled models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer


def conformance_command(
    paths: Annotated[list[str], typer.Argument(help="Folders with pairs X.tflite and X_edgetpu.tflite.")],
    checks: Annotated[str, typer.Option(help="decode,package,cache,simulate,map,parameters,memory,compile")] = "",
    samples: Annotated[int, typer.Option(min=1, help="Random inputs per model.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.")] = 0,
    json_file: Annotated[str, typer.Option("--json", help="Write the report as JSON.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Models at the same time.")] = 1,
) -> None:
    """Compare with officially compiled models: a row per model, a summary per check."""
    from compiler.conformance import CHECKS, find_pairs, run_all, summarize
    from compiler.graph import write_file

    chosen = [c for c in checks.split(",") if c] or list(CHECKS)
    reports = []
    print(f"{'model':<60} {' '.join(f'{c:>10}' for c in chosen)}")
    for report in run_all(find_pairs(paths), chosen, samples=samples, seed=seed, jobs=jobs):
        reports.append(report)
        statuses = [report.checks[c]["status"] for c in chosen]
        print(f"{report.name[-60:]:<60} {' '.join(f'{s:>10}' for s in statuses)}", flush=True)
        for c in chosen:
            if report.checks[c]["status"] == "fail":
                print(f"    {c}: {report.checks[c]['reason'][:300]}")
    summary = summarize(reports, chosen)
    for check, counts in summary.items():
        print(f"{check:<12} {counts['pass']:>4} pass {counts['fail']:>4} fail {counts['skip']:>4} skip")
    for text in _against_official(summary):
        print(text)
    if json_file:
        data = {"schema": 1, "models": [{"name": r.name, "checks": r.checks} for r in reports], "summary": summary}
        write_file(json_file, (json.dumps(data, indent=2) + "\n").encode())


def _against_official(summary: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Say how our programs stand against the official ones."""
    found = summary.get("compile", {})
    if found.get("compared"):
        yield (f"programs byte-identical: {found['programs_identical']} of {found['compared']} compiled completely, of "
               f"runtime 14: {found['identical_newest_runtime']} of {found['compared_newest_runtime']}")
    if found.get("cycles_ratio_mean"):
        yield (f"simulated cycles ours/official: geometric mean {found['cycles_ratio_mean']:.3f}, largest "
               f"{found['cycles_ratio_largest']:.3f}")
    found = summary.get("memory", {})
    if found.get("compared"):
        yield f"on-chip bytes at most the official ones: {found['at_most_official']} of {found['compared']}"
    if found.get("beside_absent"):
        yield f"planned beside rows of models that are not at hand: {found['beside_absent']} of {found['compared']}"

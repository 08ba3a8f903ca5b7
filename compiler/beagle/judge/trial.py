"""One executable before the judge: an observed run, and a run on a chip full of noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler.beagle.judge.judge import Finding, Judge
from compiler.beagle.simulator.errors import SimulationError
from compiler.beagle.simulator.machine import MAX_WORK, Machine
from compiler.package.model import Executable

NOISE_SEED = 20_111


@dataclass(frozen=True)
class Report:
    """What a trial found.

    Attributes
    ----------
    outputs:
        Of the last executable, by layer name; empty when it did not come to its end.
    reliances:
        How often the executables rely on something beside the counters: ``prompt_drains``,
        ``same_bytes``, ``host_latency`` (see :class:`~compiler.beagle.judge.judge.Verdict`).
    """

    findings: tuple[Finding, ...]
    outputs: dict[str, bytes]
    reliances: dict[str, int]


def try_executables(executables: Sequence[Executable], inputs: Mapping[str, bytes] | None = None, *,
                    work: int = MAX_WORK) -> Report:
    """Judge executables that run one after the other on one chip, such as caching and inference.

    Parameters
    ----------
    inputs:
        Input buffers of the last one, by layer name, in the layout of the host.
    work:
        Budget of each run, see :class:`~compiler.beagle.simulator.machine.Machine`.
    """
    findings: list[Finding] = []
    reliances: Counter[str] = Counter()
    outputs: dict[str, bytes] = {}
    machine = Machine(work=work)
    rows = None
    unwritten = False
    for executable in executables:
        judge = machine.chip.observer = Judge(machine.chip, rows)
        try:
            result = machine.run(executable, inputs if executable is executables[-1] else None)
        except SimulationError as error:
            findings += [*judge.verdict.findings, Finding("stop", str(error), ())]
            return Report(tuple(findings), {}, dict(reliances))
        judge.finish()
        rows = judge.ledger.wide_rows_written
        unwritten = unwritten or judge.ledger.unwritten
        outputs = result.outputs
        findings += judge.verdict.findings
        findings += [Finding("leftover", text, ()) for text in result.findings]
        reliances.update(prompt_drains=judge.verdict.prompt_drains, same_bytes=judge.verdict.same_bytes,
                         host_latency=judge.verdict.host_latency)
    if unwritten and not findings:
        findings += _noise_test(executables, inputs, outputs)
    return Report(tuple(findings), outputs, dict(reliances))


def _noise_test(executables: Sequence[Executable], inputs: Mapping[str, bytes] | None,
                outputs: dict[str, bytes]) -> list[Finding]:
    """Outputs must not depend on what the memories held before."""
    machine = Machine(noise_seed=NOISE_SEED)
    for executable in executables:
        result = machine.run(executable, inputs if executable is executables[-1] else None)
    return [Finding("unwritten read", f"output {name} depends on memory that nothing wrote", ())
            for name, data in result.outputs.items() if data != outputs[name]]

"""The fit of the cycle model's constants to measured latencies, and how good its predictions are.

Run as a program (``PYTHONPATH=.:tests python tests/conformance/cycle_fit.py``) it rebuilds every second network of the
published series, fits the constants to every second one of these and prints them with the figures of both halves, and
which rows were left out and why; that takes about half an hour. ``docs/cycle-model.md`` states what came out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from measured_latencies import MIB, SAMPLED, Row, rows

from compiler.beagle.simulator import Machine
from compiler.beagle.timing import BUSES, Costs, Trace, record, schedule
from compiler.beagle.timing.trace import Work
from compiler.compile import CompileOptions, compile_model
from compiler.errors import EtpuError
from compiler.graph import parse_model
from compiler.package.container import packages_of

Floats = npt.NDArray[np.float64]
_SAME_PROGRAM = 0.05
"""Streamed bytes of our program and of the measured one may differ by so much: padding."""
_STEP = np.log(1.05)
_LARGEST_MOVE = 0.7
_WORST = 12
_NOISE = 0.02
"""Below this residual (of the logarithm) rows weigh the same; above it they weigh less, as in a median."""


@dataclass(frozen=True)
class Recorded:
    """A row with the trace of its network, and the bytes that it streams."""

    row: Row
    trace: Trace
    streamed: int


@dataclass(frozen=True)
class LeftOut:
    """A row whose measured program is not the one that comes out here, and why that is so."""

    row: Row
    reason: str


@dataclass(frozen=True)
class Quality:
    """How well latencies are predicted: median absolute error, Spearman's rank correlation."""

    rows: int
    median_error: float
    rank_correlation: float

    @classmethod
    def of(cls, predicted: Floats, measured: Floats) -> Quality:
        """Compare predictions with measurements."""
        places = [np.argsort(np.argsort(values)) for values in (predicted, measured)]
        return cls(len(measured), float(np.median(np.abs(predicted / measured - 1))), float(np.corrcoef(*places)[0, 1]))


def recorded(row: Row) -> Recorded | LeftOut:
    """Compile a row's network and record its program, unless another program was measured.

    That is where an operator stays on the CPU here, or other layers are streamed than in the measured program.
    """
    try:
        compiled = compile_model(row.network.build(), CompileOptions(token=1))
    except EtpuError as error:
        return LeftOut(row, error.message)
    packages = packages_of(parse_model(compiled.data))
    if compiled.on_cpu or len(packages) != 1:
        reason = next((v.reason for v in compiled.mapped.verdicts if not v.mapped and v.reason), "several subgraphs")
        return LeftOut(row, f"not compiled whole: {reason}")
    program = packages[0][1].execution
    streamed = len(program.parameters)
    if row.off_chip is not None and abs(row.off_chip - streamed) > _SAME_PROGRAM * max(row.off_chip, streamed):
        return LeftOut(row, f"streams {streamed / MIB:.2f} MiB, the measured program {row.off_chip / MIB:.2f} MiB")
    inputs = {layer.name: bytes(layer.size) for layer in program.inputs}
    return Recorded(row, record(Machine(computes=False), program, inputs), streamed)


def constants() -> dict[str, float]:
    """Return the constants in use that are fitted."""
    bus = BUSES["pcie"]
    return {"compute": Costs().per_element[Work.COMPUTE], "to_chip": bus.to_chip, "to_host": bus.to_host,
            "overhead_us": bus.overhead_us}


def milliseconds(networks: Sequence[Recorded], values: Mapping[str, float]) -> Floats:
    """Predict latencies on PCIe with given constants."""
    given = dict(values)
    costs = replace(Costs(), per_element={**Costs().per_element, Work.COMPUTE: given.pop("compute")})
    bus = replace(BUSES["pcie"], **given)
    return np.asarray([schedule(n.trace, costs, bus).total_us / 1000 for n in networks])


def measured(networks: Sequence[Recorded]) -> Floats:
    """Return the measured latencies."""
    return np.asarray([n.row.milliseconds for n in networks])


def fit(networks: Sequence[Recorded], start: Mapping[str, float], rounds: int = 4) -> dict[str, float]:
    """Fit constants by their logarithms: Gauss and Newton, absolute residuals."""
    values, target = dict(start), measured(networks)

    def residuals(at: Mapping[str, float]) -> Floats:
        return np.asarray(np.log(milliseconds(networks, at) / target))

    for _ in range(rounds):
        now = residuals(values)
        slopes = np.stack([(residuals({**values, k: values[k] * float(np.exp(_STEP))}) - now) / _STEP for k in values], 1)
        move = np.zeros(len(values))
        for _ in range(20):
            weight = np.maximum(np.abs(now + slopes @ move), _NOISE) ** -0.5
            damped = np.vstack([slopes * weight[:, None], 0.05 * np.eye(len(values))])
            move = np.linalg.lstsq(damped, np.concatenate([-now * weight, np.zeros(len(values))]), rcond=None)[0]
            move = np.clip(move, -_LARGEST_MOVE, _LARGEST_MOVE)
        values = {k: values[k] * float(np.exp(step)) for k, step in zip(values, move, strict=True)}
    return values


def halves(networks: Sequence[Recorded]) -> tuple[Sequence[Recorded], Sequence[Recorded]]:
    """Return the rows that are fitted and those that are predicted."""
    return [n for n in networks if n.row.fitted], [n for n in networks if not n.row.fitted]


def main() -> None:
    """Fit and print."""
    sample = rows()[::SAMPLED]
    results = []
    for number, row in enumerate(sample, 1):
        print(f"\r{number} of {len(sample)} rows", end="", file=sys.stderr, flush=True)
        results.append(recorded(row))
    print(file=sys.stderr)
    report(results)


def report(results: Sequence[Recorded | LeftOut]) -> None:
    """Fit the constants; print them, how good they are and what was left out."""
    fitted, predicted = halves([r for r in results if isinstance(r, Recorded)])
    values = fit(fitted, constants())
    print("in use", {k: round(v, 2) for k, v in constants().items()})
    print("fitted", {k: round(v, 2) for k, v in values.items()})
    sets = {"fitted": fitted, "predicted": predicted}
    for kind in ("convolutions", "dense, streamed", "dense, cached"):
        sets[f"predicted: {kind}"] = [n for n in predicted if kind_of(n) == kind]
    for name, networks in sets.items():
        print(f"{name:26} as fitted", Quality.of(milliseconds(networks, values), measured(networks)))
        print(f"{name:26} in use   ", Quality.of(milliseconds(networks, constants()), measured(networks)))
    worst = sorted(predicted, key=lambda n: -abs(math.log(milliseconds([n], constants())[0] / n.row.milliseconds)))
    for n in worst[:_WORST]:
        print(f"far off: {n.row.network} {milliseconds([n], constants())[0]:.3f} ms, measured {n.row.milliseconds:.3f} ms")
    for r in results:
        if isinstance(r, LeftOut):
            print(f"left out: {r.row.network} {r.reason}")


def kind_of(network: Recorded) -> str:
    """Name the group that a row is counted in."""
    kind = network.row.network.kind
    return kind if kind == "convolutions" else f"{kind}, {'streamed' if network.streamed else 'cached'}"


__all__ = ["LeftOut", "Quality", "Recorded", "constants", "fit", "halves", "measured", "milliseconds", "recorded", "report"]

if __name__ == "__main__":
    main()

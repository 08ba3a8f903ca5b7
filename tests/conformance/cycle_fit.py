"""The fit of the cycle model's constants to measured latencies, and how good its predictions are.

Run as a program (``PYTHONPATH=.:tests python tests/conformance/cycle_fit.py``) it rebuilds every fourth network of the
published series and those of the official tables, fits the constants to every second row of these and prints them with the
figures of both halves, which rows were left out and why, and official executables against their measured latencies.
``docs/cycle-model.md`` states what came out, and how long it takes.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from measured_latencies import MIB, SAMPLED, Row, corpus_rows, rows, table_rows

from compiler.beagle.simulator import Machine
from compiler.beagle.timing import BUSES, Bus, Costs, Trace, estimate, record, schedule
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
WIDEST_RECORDED = {1: 560, 4: 302}
"""Filters of the widest convolutions that are recorded, by layers behind the first one."""
ACTS_ON = {
    "pcie": {"compute", "fence", "to_chip", "to_host", "overhead_us"},
    "usb3": {"compute", "fence", "to_host", "overhead_us"},
    "usb2": {"compute", "fence"},
}
"""Fitted constants that decide about the time on a bus."""


@dataclass(frozen=True, eq=False)
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


def recorded(row: Row, known: Sequence[Recorded | LeftOut] = ()) -> Recorded | LeftOut:
    """Compile a row's network and record its program, unless another program was measured.

    That is where an operator stays on the CPU here, or other layers are streamed than in the measured program. A network
    that is known from another bus is not recorded again.
    """
    same = next((r for r in known if r.row.network == row.network), None)
    if same is not None:
        return replace(same, row=row)
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
    if row.network.kind == "convolutions" and row.network.width > WIDEST_RECORDED[row.network.layers]:
        return LeftOut(row, "takes minutes to record")
    inputs = {layer.name: bytes(layer.size) for layer in program.inputs}
    return Recorded(row, record(Machine(computes=False), program, inputs), streamed)


def constants() -> dict[str, float]:
    """Return the constants in use that are fitted."""
    costs, bus = Costs().per_element, BUSES["pcie"]
    return {"compute": costs[Work.COMPUTE], "fence": costs[Work.FENCE], "to_chip": bus.to_chip, "to_host": bus.to_host,
            "overhead_us": bus.overhead_us}


def model_of(values: Mapping[str, float]) -> tuple[Costs, dict[str, Bus]]:
    """Return costs and buses with given constants; USB 3 has PCIe's rate to the host and its overhead."""
    fitted = {Work.COMPUTE: values["compute"], Work.FENCE: values["fence"]}
    costs = replace(Costs(), per_element={**Costs().per_element, **fitted})
    shared = {"to_host": values["to_host"], "overhead_us": values["overhead_us"]}
    return costs, {"pcie": replace(BUSES["pcie"], to_chip=values["to_chip"], **shared),
                   "usb3": replace(BUSES["usb3"], **shared),
                   "usb2": BUSES["usb2"]}


def milliseconds(networks: Sequence[Recorded], values: Mapping[str, float]) -> Floats:
    """Predict latencies with given constants."""
    costs, buses = model_of(values)
    return np.asarray([schedule(n.trace, costs, buses[n.row.bus]).total_us / 1000 for n in networks])


def measured(networks: Sequence[Recorded]) -> Floats:
    """Return the measured latencies."""
    return np.asarray([n.row.milliseconds for n in networks])


def fit(networks: Sequence[Recorded], start: Mapping[str, float], rounds: int = 3) -> dict[str, float]:
    """Fit constants by their logarithms: Gauss and Newton, absolute residuals."""
    values, target = dict(start), measured(networks)

    def residuals(at: Mapping[str, float], chosen: Sequence[int] = range(len(networks))) -> Floats:
        some = list(chosen)
        return np.asarray(np.log(milliseconds([networks[i] for i in some], at) / target[some]))

    def slope(at: Mapping[str, float], now: Floats, constant: str) -> Floats:
        moved = {**at, constant: at[constant] * float(np.exp(_STEP))}
        some = [i for i, n in enumerate(networks) if constant in ACTS_ON[n.row.bus]]
        slopes = np.zeros(len(networks))
        slopes[some] = (residuals(moved, some) - now[some]) / _STEP
        return slopes

    for _ in range(rounds):
        now = residuals(values)
        slopes = np.stack([slope(values, now, k) for k in values], 1)
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
    tables, left_out = table_rows()
    sample = [*rows()[::SAMPLED], *tables]
    gc.disable()
    results: list[Recorded | LeftOut] = []
    for number, row in enumerate(sample, 1):
        print(f"\r{number} of {len(sample)} rows", end="", file=sys.stderr, flush=True)
        results.append(recorded(row, results))
        gc.collect()
        gc.freeze()  # millions of steps stay
    print(file=sys.stderr)
    report(results)
    print_corpus()
    for name, reason in left_out:
        print(f"left out: {name}: {reason}")


def report(results: Sequence[Recorded | LeftOut]) -> None:
    """Fit the constants; print them, how good they are and what was left out."""
    networks = [r for r in results if isinstance(r, Recorded)]
    values = fit(halves(networks)[0], constants())
    print("in use", {k: round(v, 2) for k, v in constants().items()})
    print("fitted", {k: round(v, 2) for k, v in values.items()})
    times = {as_: dict(zip(networks, milliseconds(networks, at), strict=True))
             for as_, at in (("as fitted", values), ("in use", constants()))}
    fitted, predicted = halves(networks)
    sets = {"fitted": fitted, "predicted": predicted}
    for kind in sorted({kind_of(n) for n in networks}):
        sets[f"predicted: {kind}"] = [n for n in predicted if kind_of(n) == kind]
    for name, chosen in sets.items():
        for as_, found in times.items():
            print(f"{name:26} {as_:9}", Quality.of(np.asarray([found[n] for n in chosen]), measured(chosen)))
    found = times["in use"]
    for n in networks:
        if n.row.network.kind == "official tables":
            half = "fitted" if n.row.fitted else "predicted"
            print(f"{n.row.network} {n.row.bus} {half}: {found[n]:.2f} ms, measured {n.row.milliseconds:.2f} ms, "
                  f"{100 * (found[n] / n.row.milliseconds - 1):+.0f} %, streams {n.streamed / MIB:.2f} MiB")
    for n in sorted(predicted, key=lambda n: -abs(math.log(found[n] / n.row.milliseconds)))[:_WORST]:
        print(f"far off: {n.row.network} {n.row.bus} {found[n]:.3f} ms, measured {n.row.milliseconds:.3f} ms")
    for r in results:
        if isinstance(r, LeftOut):
            print(f"left out: {r.row.network} {r.reason}")


def print_corpus() -> None:
    """Print what the model in use says of official executables of the convolution series."""
    for file, time in corpus_rows():
        ((_, package),) = packages_of(parse_model(file.read_bytes()))
        found = estimate(package, "pcie").warm_us / 1000
        print(f"official executable: {file.name} {found:.3f} ms, measured {time:.3f} ms, {100 * (found / time - 1):+.0f} %")


def kind_of(network: Recorded) -> str:
    """Name the group that a row is counted in."""
    kind = network.row.network.kind
    return f"{kind}, {'streamed' if network.streamed else 'cached'}" if kind == "dense" else kind


__all__ = ["LeftOut", "Quality", "Recorded", "constants", "fit", "halves", "measured", "milliseconds", "recorded", "report"]

if __name__ == "__main__":
    main()

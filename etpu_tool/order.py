"""``etpu order``: the best order of models that share an Edge TPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.errors import UsageError

if TYPE_CHECKING:
    from compiler.compile import CompiledModel
    from compiler.graph import Model
    from compiler.memory.order import Arrangement, Candidate, Traffic
    from deploy.inventory import Device
    from profiler.order import TurnLatency

OBJECTIVES = ("latency", "bytes")


@dataclass(frozen=True)
class _Measured:
    """An arrangement on a device: latencies by model, and the expected latency of an invocation."""

    arrangement: Arrangement
    turns: tuple[TurnLatency, ...]
    cost: float
    simulated: bool


def order_command(
    models: Annotated[list[str], typer.Argument(help="Two or more quantized .tflite files.")],
    weights: Annotated[str, typer.Option(help="How often each is invoked, relative to the others: 10,1,1.")] = "",
    objective: Annotated[str, typer.Option(help="latency: expected time of an invocation; bytes: parameters that are "
                                                "streamed, switching not counted.")] = OBJECTIVES[0],
    stickiness: Annotated[float, typer.Option(help="Probability that the next invocation is of the same model, besides "
                                                   "chance.")] = 0.0,
    bus: Annotated[str, typer.Option(help="Bus of the prediction: usb2, usb3 or pcie.")] = "",
    seconds: Annotated[float, typer.Option(help="Time limit of the search for more than 8 models.")] = 6.0,
    device: Annotated[str, typer.Option("--device", "-d", help="Measure the best candidates on this device.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find out whether to compile models together, and in which order on the command line."""
    from compiler.beagle.timing.costs import BUSES
    from compiler.graph import read_model
    from compiler.memory.order import Traffic, best_order
    from deploy.inventory import Inventory

    if len(models) < 2 or len(set(models)) < len(models):
        raise UsageError("an order needs two or more different models.")
    if objective not in OBJECTIVES or not 0 <= stickiness < 1:
        raise UsageError(f"objective is one of {', '.join(OBJECTIVES)}, stickiness from 0 to below 1.")
    frequencies = _weights(weights, len(models))
    found = Inventory().get(device) if device else None
    chosen = bus or getattr(found, "bus", "") or "usb3"
    if chosen not in BUSES:
        raise UsageError(f"unknown bus {chosen!r}.", advice=f"Choose one of {', '.join(BUSES)}.")
    traffic = Traffic(1 / BUSES[chosen].to_chip, stickiness, objective)
    read = [read_model(model) for model in models]
    candidates = [_candidate(model, frequency, chosen) for model, frequency in zip(read, frequencies, strict=True)]
    best = best_order(candidates, traffic, seconds=seconds)
    measured = _measure(found, read, candidates, traffic, best) if found is not None else []
    report = _report(models, best, measured)
    print(json.dumps(report, indent=2)) if as_json else _print(report)


def _weights(text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")] if text else [1.0] * count
    except ValueError:
        raise UsageError(f"weights {text!r} are not numbers separated by commas.") from None
    if len(values) != count or not all(0 < value < float("inf") for value in values):
        raise UsageError(f"weights {text!r}: {count} positive numbers are needed, one per model.")
    return values


def _candidate(model: Model, frequency: float, bus: str) -> Candidate:
    """Compile a model alone and estimate what it takes with all its parameters on the chip."""
    from compiler.beagle.timing import estimate
    from compiler.compile import compile_model
    from compiler.facts import WIDE_ROWS
    from compiler.graph import parse_model
    from compiler.memory.demand import ModelDemand
    from compiler.memory.order import Candidate
    from compiler.package.container import packages_of

    compiled = compile_model(model)
    demand = compiled.plans[0].demand if compiled.plans else ModelDemand(model.source, (), WIDE_ROWS)
    compute = 0.0
    for _, package in packages_of(parse_model(compiled.data)):
        cost = estimate(package, bus)
        compute += sum(operator.latency_us for operator in cost.operators if not operator.streamed_bytes)
        compute += sum(max(operator.compute_us, operator.moves_us) for operator in cost.operators if operator.streamed_bytes)
    return Candidate(demand, frequency, compute)


def _compile(read: Sequence[Model], arrangement: Arrangement) -> dict[int, CompiledModel]:
    from compiler.compile import compile_models

    together = compile_models([read[i] for i in arrangement.group]) if arrangement.group else ()
    compiled = dict(zip(arrangement.group, together, strict=True))
    return compiled | {i: compile_models([read[i]])[0] for i in arrangement.alone}


def _measure(device: Device, read: Sequence[Model], candidates: Sequence[Candidate], traffic: Traffic, best: Arrangement
             ) -> list[_Measured]:
    """Measure the best arrangement beside the order of the command line and all models alone; the fastest first."""
    from compiler.memory.order import evaluate
    from deploy.session import connect
    from profiler.order import DEFAULT_ROUNDS, measure_turns

    tried = {a.group: a for a in (best, evaluate(candidates, tuple(range(len(read))), traffic),
                                  evaluate(candidates, (), traffic))}
    total = sum(c.frequency for c in candidates)
    results = []
    with connect(device) as session:
        # simulated times do not vary
        rounds = 1 if session.agent.runtime().simulated else DEFAULT_ROUNDS
        for arrangement in tried.values():
            compiled = _compile(read, arrangement)
            turns, simulated = measure_turns(session.agent, [compiled[i].data for i in range(len(read))], rounds=rounds)
            cost = sum(c.frequency / total * (t.cached_us + share.reload_probability * (t.uncached_us - t.cached_us))
                       for c, t, share in zip(candidates, turns, arrangement.shares, strict=True))
            results.append(_Measured(arrangement, turns, cost, simulated))
    return sorted(results, key=lambda result: result.cost)


def _report(models: Sequence[str], best: Arrangement, measured: Sequence[_Measured]) -> dict[str, Any]:
    chosen = measured[0].arrangement if measured else best
    together = [models[i] for i in chosen.group]
    rows = []
    for i in (*chosen.group, *chosen.alone):
        share = chosen.shares[i]
        row: dict[str, Any] = {
            "model": models[i], "co_compiled": i in chosen.group, "on_chip_bytes": share.on_chip,
            "off_chip_bytes": share.off_chip, "reload_probability": share.reload_probability,
            "predicted": {"cached_us": share.cached_us, "uncached_us": share.uncached_us,
                          "switching_us": share.switching_us},
        }
        if measured:
            turn = measured[0].turns[i]
            row["measured"] = {"cached_us": turn.cached_us, "uncached_us": turn.uncached_us,
                               "switching_us": turn.switching_us}
        rows.append(row)
    return {
        "order": together, "alone": [models[i] for i in chosen.alone], "objective_value": chosen.cost,
        "gap": best.gap, "models": rows, "predictions_simulated": True,
        "candidates": [{"order": [models[i] for i in m.arrangement.group], "measured_us": m.cost,
                        "predicted": m.arrangement.cost, "simulated": m.simulated} for m in measured],
    }


def _print(report: dict[str, Any]) -> None:
    from compiler.report.official import size_text

    if report["order"]:
        print("compile together, in this order:", " ".join(report["order"]))
    if report["alone"]:
        print("compile alone:", " ".join(report["alone"]))
    print("proven best" if not report["gap"] else f"no arrangement can be better by more than {100 * report['gap']:.2f} %",
          "(by the memory plan and the cycle model)")
    width = max(len(Path(row["model"]).name) for row in report["models"]) + 2
    print(f"\n{'model':<{width}}{'':<10}{'on chip':>11}{'off chip':>11}   {'cached':>10}{'uncached':>10}{'switching':>10}")
    for row in report["models"]:
        for number, kind in enumerate(k for k in ("predicted", "measured") if k in row):
            place = "together" if row["co_compiled"] else "alone"
            head = (f"{Path(row['model']).name:<{width}}{place:<10}{size_text(row['on_chip_bytes']):>11}"
                    f"{size_text(row['off_chip_bytes']):>11}")
            times = row[kind]
            print(f"{' ' * len(head) if number else head} {kind[0]} " + "".join(
                f"{times[name] / 1000:>10.3f}" for name in ("cached_us", "uncached_us", "switching_us")))
    print("milliseconds: p predicted, m measured; switching: after all other models had their turn")
    for candidate in report["candidates"]:
        order = " ".join(Path(model).name for model in candidate["order"]) or "all alone"
        print(f"measured{' (simulated)' if candidate['simulated'] else ''}: {candidate['measured_us'] / 1000:.3f} ms per "
              f"invocation with {order}")

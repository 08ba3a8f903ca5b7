"""Timing: what a run takes on the chip and on a bus."""

from compiler.beagle.timing.costs import BUSES, Bus, Costs
from compiler.beagle.timing.estimate import Estimate, OperatorCost, estimate, latency_us
from compiler.beagle.timing.recorder import record
from compiler.beagle.timing.report import chrome_trace, engine_times, part_times, timeline
from compiler.beagle.timing.schedule import Schedule, schedule
from compiler.beagle.timing.trace import Trace

__all__ = ["BUSES", "Bus", "Costs", "Estimate", "OperatorCost", "Schedule", "Trace", "chrome_trace", "engine_times",
           "estimate", "latency_us", "part_times", "record", "schedule", "timeline"]

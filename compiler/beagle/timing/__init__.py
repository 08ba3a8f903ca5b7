"""Timing: what a run takes on the chip and on a bus."""

from compiler.beagle.timing.costs import BUSES, Bus, Costs
from compiler.beagle.timing.report import chrome_trace, engine_times, part_times, timeline
from compiler.beagle.timing.schedule import Schedule, schedule
from compiler.beagle.timing.trace import Trace, record

__all__ = ["BUSES", "Bus", "Costs", "Schedule", "Trace", "chrome_trace", "engine_times", "part_times", "record", "schedule",
           "timeline"]

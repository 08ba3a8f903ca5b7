"""A Coral device made of simulated Edge TPUs: the runtime's rules and errors around the chip simulator."""

from compiler.beagle.timing.costs import BUSES, Bus
from deploy.virtual.runtime import VirtualModel, VirtualRuntime
from deploy.virtual.tpu import Counters, Simulator, TpuRun, VirtualTpu

__all__ = ["BUSES", "Bus", "Counters", "Simulator", "TpuRun", "VirtualModel", "VirtualRuntime", "VirtualTpu"]

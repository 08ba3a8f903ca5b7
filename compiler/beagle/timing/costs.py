"""What work costs: cycles of the chip's engines, rates of buses."""

from __future__ import annotations

from dataclasses import dataclass, field

from compiler.beagle.timing.trace import Work


@dataclass(frozen=True)
class Costs:
    """Cycles of the chip.

    Attributes
    ----------
    megahertz:
        Clock: 500 with libedgetpu1-max, 250 with libedgetpu1-std.
    per_element:
        Cycles per element of each kind of work (see :class:`~compiler.beagle.timing.trace.Step`).
    start:
        Cycles before the first element of an instruction.
    """

    megahertz: float = 500.0
    per_element: dict[Work, float] = field(default_factory=lambda: dict(PER_ELEMENT))
    start: dict[Work, float] = field(default_factory=lambda: dict(START))


# Fitted (see docs/cycle-model.md): COMPUTE, FENCE and the buses' rates and overheads. The others are widths of
# the data paths (64 bytes per cycle) and small latencies, which no published measurement resolves.
PER_ELEMENT: dict[Work, float] = {
    Work.SCALAR: 4.0,
    Work.FENCE: 556.0,
    Work.COMPUTE: 1.59,
    Work.RING_SEND: 4.0,
    Work.RING_RECEIVE: 0.0,
    Work.WIDE_TO_NARROW: 1 / 16,
    Work.NARROW_TO_WIDE: 4.0,
    Work.MESH: 1 / 16,
    Work.INFEED: 1 / 64,
    Work.POP: 1 / 64,
    Work.OUTFEED: 1 / 64,
}
START: dict[Work, float] = {Work.COMPUTE: 40.0, Work.RING_SEND: 20.0, Work.RING_RECEIVE: 4.0, Work.WIDE_TO_NARROW: 10.0,
                            Work.NARROW_TO_WIDE: 10.0, Work.MESH: 10.0, Work.POP: 10.0}


@dataclass(frozen=True)
class Bus:
    """A way of attaching an Edge TPU.

    Attributes
    ----------
    to_chip, to_host:
        Sustained rates, bytes per microsecond.
    transfer_us:
        Cost of each host transfer.
    overhead_us:
        Cost of one submission, interrupt included.
    """

    name: str
    to_chip: float
    to_host: float
    transfer_us: float
    overhead_us: float


# PCIe is fitted, USB taken from other published figures: docs/cycle-model.md.
BUSES = {bus.name: bus for bus in (
    Bus("usb2", to_chip=30.0, to_host=30.0, transfer_us=20.0, overhead_us=230.0),
    Bus("usb3", to_chip=440.0, to_host=131.0, transfer_us=2.3, overhead_us=28.5),
    Bus("pcie", to_chip=383.0, to_host=131.0, transfer_us=1.0, overhead_us=28.5),
)}

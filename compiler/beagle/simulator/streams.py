"""Engines of the scalar core: infeed, pop, outfeed, and the FIFOs between host and ring bus."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import ScalarCounter, TileCounter
from compiler.beagle.simulator.errors import SimulationError, UnsupportedInstruction
from compiler.beagle.simulator.moves import tiles_of
from compiler.beagle.simulator.state import Bytes, Chip, PacketQueue, check
from compiler.beagle.simulator.task import Levels, Signal, watch_gates
from compiler.beagle.simulator.walk import walk_of
from compiler.facts import (
    ACTIVATION_FIFO_WORDS,
    ACTIVATION_WORD_BYTES,
    PARAMETER_FIFO_LINES,
    PARAMETER_LINE_BYTES,
    WIDE_ROW_BYTES,
)

SCALAR_FIFO_WORDS = 128
SCALAR_WORD_BYTES = 4
FIFO_BYTES = (PARAMETER_LINE_BYTES, ACTIVATION_WORD_BYTES, SCALAR_WORD_BYTES)
"""Bytes of an entry of the FIFOs that a pop reads, by its ``source``."""
SCALAR_MEMORY_WORDS = 4096
"""Official programs write up to word 4061 and then move what is left to the front."""


class ByteQueue(PacketQueue):
    """A queue of bytes that is taken in pieces."""

    def take(self, count: int) -> Bytes:
        """Take bytes as one array."""
        parts = self.pop(count)
        return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


class HostPort:
    """The streams between host transfers and the scalar engines."""

    def __init__(self) -> None:
        self.fifos = (np.zeros((PARAMETER_FIFO_LINES, PARAMETER_LINE_BYTES), np.uint8),
                      np.zeros((ACTIVATION_FIFO_WORDS, ACTIVATION_WORD_BYTES), np.uint8),
                      np.zeros((SCALAR_FIFO_WORDS, SCALAR_WORD_BYTES), np.uint8))
        self.arriving = (ByteQueue(), ByteQueue())
        self.outputs: deque[Bytes] = deque()
        self.memory = np.zeros(SCALAR_MEMORY_WORDS, np.uint32)
        self.received = 0
        self.sent = 0
        self._waiting: deque[tuple[int, Bytes]] = deque()

    def ask(self, stream: int, data: Bytes) -> None:
        """Begin a transfer to the chip; what the chip still writes there (scratch memory) comes first."""
        self._waiting.append((stream, data))
        self._begin_transfers()

    def _begin_transfers(self) -> None:
        while self._waiting:
            stream, data = self._waiting[0]
            if any(np.may_share_memory(data, output) for output in self.outputs):
                return
            self.arriving[stream].push(data)
            self._waiting.popleft()

    def send_out(self, data: Bytes) -> None:
        """Write bytes to the output transfers, in order."""
        self.sent += len(data)
        while len(data):
            if not self.outputs:
                raise SimulationError(f"{len(data)} bytes of output without a host transfer to take them")
            part = min(len(data), len(self.outputs[0]))
            self.outputs[0][:part] = data[:part]
            if part == len(self.outputs[0]):
                self.outputs.popleft()
            else:
                self.outputs[0] = self.outputs[0][part:]
            data = data[part:]
        self._begin_transfers()


class ScalarTask:
    """One infeed, pop or outfeed. Positions are elements of its FIFO walk."""

    def __init__(self, ins: Instruction) -> None:
        self.ins = ins
        self.done = 0
        self.to_host = bool(ins.values.get("to_host"))
        walk = walk_of(ins, ins.form.generators[0])
        self.addresses = walk.addresses
        self.size = walk.size
        self.levels = Levels(walk.nest)
        self.gates = watch_gates(ins, {0: self.levels}, len(ScalarCounter))
        self.signals: list[Signal] = []
        self.nest = walk.nest

    def add_signal(self, name: str, counter: int) -> None:
        """Register a signal of the scalar core."""
        if self.ins[f"{name}.valid"]:
            self.signals.append(Signal(counter, self.nest.block_ends(self.ins[f"{name}.level"])))

    def limit(self, chip: Chip) -> int:
        """Position up to which the watches allow to run."""
        allowed = self.size
        for gate in self.gates:
            allowed = min(allowed, gate.allowed(self.done, int(chip.scalar_counters[gate.counter])))
        return allowed

    def advance(self, chip: Chip, port: HostPort) -> bool:
        """Run as far as possible."""
        stop = min(self.limit(chip), self.done + self.available(chip, port))
        if stop <= self.done:
            return False
        start, self.done = self.done, stop
        self.move(chip, port, start, stop)
        if chip.observer is not None:
            chip.observer.ran_scalar(self, start, stop)
        for signal in self.signals:
            chip.scalar_counters[signal.counter] += signal.count(start, stop)
        return True

    def available(self, chip: Chip, port: HostPort) -> int:
        """Elements that could move now for reasons other than watches."""
        raise NotImplementedError

    def move(self, chip: Chip, port: HostPort, start: int, stop: int) -> None:
        """Move elements start..stop."""
        raise NotImplementedError

    @property
    def finished(self) -> bool:
        """True when all elements have moved."""
        return self.done >= self.size


class Infeed(ScalarTask):
    """S05: host data into the parameter FIFO (stream 0) or the activation FIFO (stream 1)."""

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        self.stream = ins["stream"]
        self.add_signal("filled", ScalarCounter.AVDATA_POP if self.stream else ScalarCounter.PARAMETER_POP)

    def available(self, chip: Chip, port: HostPort) -> int:
        """Elements that the host has sent."""
        return port.arriving[self.stream].length // port.fifos[self.stream].shape[1]

    def move(self, chip: Chip, port: HostPort, start: int, stop: int) -> None:
        """Write FIFO entries."""
        fifo = port.fifos[self.stream]
        at = self.addresses[start:stop] % len(fifo)
        for a in range(0, stop - start, len(fifo)):
            b = min(a + len(fifo), stop - start)
            fifo[at[a:b]] = port.arriving[self.stream].take((b - a) * fifo.shape[1]).reshape(-1, fifo.shape[1])


class Pop(ScalarTask):
    """S06: FIFO entries onto the ring bus in packets."""

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        self.source = ins["source"]
        if self.source >= len(FIFO_BYTES):
            raise UnsupportedInstruction(f"pop at {ins.offset:#x} names FIFO {self.source}, there are {len(FIFO_BYTES)}")
        self.packet = (ins["lanes_m1"] + 1) * 4
        self.receivers = tiles_of(ins["receivers"])
        self.rest = np.zeros(0, np.uint8)
        credit = (ScalarCounter.PARAMETER_INFEED, ScalarCounter.AVDATA_INFEED, ScalarCounter.SCALAR_INFEED)[self.source]
        self.add_signal("credit", credit)
        self.producer: Signal | None = None
        if ins["producer.valid"]:
            counter = TileCounter.RING_PRODUCER_B if ins["ring"] else TileCounter.RING_PRODUCER_A
            self.producer = Signal(counter, self.nest.block_ends(ins["producer.level"]), True)

    def packets(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the positions at which packets have been sent between two positions, short ones included."""
        entry = FIFO_BYTES[self.source]
        count = -(-self.size * entry // self.packet)
        ends = np.minimum(-(-np.arange(1, count + 1) * self.packet // entry), self.size)
        return ends[(ends > start) & (ends <= stop)]

    def available(self, chip: Chip, port: HostPort) -> int:
        """Watches tell what is in the FIFO."""
        return self.size

    def limit(self, chip: Chip) -> int:
        """At most one turn of the FIFO at a time, so that credits are seen."""
        return min(super().limit(chip), self.done + ACTIVATION_FIFO_WORDS)

    def move(self, chip: Chip, port: HostPort, start: int, stop: int) -> None:
        """Send complete packets; the last one may be short."""
        fifo = port.fifos[self.source]
        data = np.concatenate((self.rest, fifo[self.addresses[start:stop] % len(fifo)].reshape(-1)))
        whole = len(data) // self.packet * self.packet
        self._send(chip, data[:whole].reshape(-1, self.packet))
        self.rest = data[whole:]
        if self.finished and len(self.rest):
            self._send(chip, self.rest.reshape(1, -1))
        if self.producer is not None:
            events = self.producer.count(start, stop)
            if events:
                chip.count_everywhere(self.producer.counter, events)

    def _send(self, chip: Chip, packets: npt.NDArray[np.uint8]) -> None:
        for tile in self.receivers:
            chip.ring[self.ins["ring"]][tile].push(packets)


class Outfeed(ScalarTask):
    """S07: ring packets to the host, to the scalar FIFO, or word by word to scalar registers."""

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        self.unit = ACTIVATION_WORD_BYTES if self.to_host else SCALAR_WORD_BYTES
        self.to_fifo = not self.to_host and bool(self.gates)
        self.add_signal("credit", ScalarCounter.RING_OUTFEED)
        self.bytes = ByteQueue()

    def available(self, chip: Chip, port: HostPort) -> int:
        """Whole units that have arrived; packets are taken as needed."""
        wanted = (self.size - self.done) * self.unit
        while self.bytes.length < wanted and chip.to_scalar.length:
            for part in chip.to_scalar.pop(1):
                self.bytes.push(part.reshape(-1))
        return min(self.bytes.length // self.unit, self.size - self.done)

    def move(self, chip: Chip, port: HostPort, start: int, stop: int) -> None:
        """Pass units on; what is left of the last packet is dropped with the instruction."""
        data = self.bytes.take((stop - start) * self.unit)
        if self.to_host:
            port.send_out(data)
        elif self.to_fifo:
            fifo = port.fifos[2]
            fifo[self.addresses[start:stop] % len(fifo)] = data.reshape(-1, SCALAR_WORD_BYTES)
        else:
            at = check(self.addresses[start:stop], SCALAR_MEMORY_WORDS, "scalar memory word")
            port.memory[at] = data.view(np.uint32)


__all__ = ["WIDE_ROW_BYTES", "HostPort", "Infeed", "Outfeed", "Pop", "ScalarTask"]

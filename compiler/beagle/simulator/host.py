"""Host memory as the chip sees it: buffers at addresses, transfers by descriptor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import WORD_BYTES
from compiler.beagle.simulator.errors import BudgetError, SimulationError
from compiler.package.model import BaseAddress, Executable, InstructionChunk, Position

MAX_HOST_BYTES = 1 << 28
"""Size of all buffers of an executable together; those of official executables stay below 2**24."""
BUFFER_SPACING = 1 << 36
"""Buffers lie so far apart that an address that runs out of one never lands in another."""
_GUARD = 0x1234000
"""Buffers begin in the middle of their range, so that both halves of addresses matter."""


@dataclass
class Buffer:
    """One host buffer."""

    name: str
    address: int
    data: npt.NDArray[np.uint8]


class HostMemory:
    """The buffers of one executable run."""

    def __init__(self, executable: Executable, inputs: Mapping[str, bytes]) -> None:
        self.buffers: dict[tuple[BaseAddress, str], Buffer] = {}
        size = len(executable.parameters) + executable.scratch_size + sum(
            layer.size * layer.executions for layer in (*executable.inputs, *executable.outputs))
        if size > MAX_HOST_BYTES:
            raise BudgetError(f"the executable takes buffers of {size} bytes, the limit is {MAX_HOST_BYTES}")
        self._add(BaseAddress.PARAMETER, "", np.frombuffer(executable.parameters, np.uint8))
        self._add(BaseAddress.SCRATCH, "", np.zeros(executable.scratch_size, np.uint8))
        for layer in executable.inputs:
            if layer.name not in inputs:
                raise SimulationError(f"no data for the input {layer.name}")
            data = np.frombuffer(inputs[layer.name], np.uint8)
            if len(data) != layer.size * layer.executions:
                raise SimulationError(f"input {layer.name} has {len(data)} bytes, the executable takes {layer.size}")
            self._add(BaseAddress.INPUT, layer.name, data)
        for layer in executable.outputs:
            self._add(BaseAddress.OUTPUT, layer.name, np.zeros(layer.size * layer.executions, np.uint8))

    def _add(self, base: BaseAddress, name: str, data: npt.NDArray[np.uint8]) -> None:
        address = (len(self.buffers) + 1) * BUFFER_SPACING + _GUARD
        self.buffers[(base, name)] = Buffer(f"{base.name.lower()} {name}".strip(), address, data)

    def patch(self, chunk: InstructionChunk) -> bytes:
        """Write buffer addresses into a stream, as the runtime does."""
        if not chunk.field_offsets:
            return chunk.data
        data = bytearray(chunk.data)
        for offset in chunk.field_offsets:
            buffer = self.buffers.get((offset.meta.base, offset.meta.name))
            if buffer is None:
                raise SimulationError(f"an address field names the unknown buffer {offset.meta.base.name.lower()} "
                                      f"{offset.meta.name}".rstrip())
            address = buffer.address
            value = address & 0xFFFFFFFF if offset.meta.position is Position.LOWER else address >> 32
            _write_bits(data, offset.offset_bit, value)
        return bytes(data)

    def find(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of a transfer as a view; only scratch memory and outputs can be written.

        Raises
        ------
        SimulationError
            When the range is not inside one buffer.
        """
        for buffer in self.buffers.values():
            offset = address - buffer.address
            if 0 <= offset < BUFFER_SPACING // 2:
                if offset + size > len(buffer.data):
                    raise SimulationError(f"a transfer of {size} bytes at {offset} leaves the buffer {buffer.name} of "
                                          f"{len(buffer.data)} bytes")
                return buffer.data[offset:offset + size]
        raise SimulationError(f"a transfer of {size} bytes at {address:#x} hits no buffer")

    def outputs(self) -> dict[str, bytes]:
        """Return the output buffers by layer name."""
        return {name: b.data.tobytes() for (base, name), b in self.buffers.items() if base is BaseAddress.OUTPUT}


def _write_bits(data: bytearray, bit: int, value: int) -> None:
    word = bit // (8 * WORD_BYTES) * WORD_BYTES
    if word + 2 * WORD_BYTES > len(data):
        raise SimulationError(f"an address field at bit {bit} lies outside the instruction stream")
    low = bit - 8 * word
    whole = int.from_bytes(data[word:word + 2 * WORD_BYTES], "little")
    whole = whole & ~(0xFFFFFFFF << low) | value << low
    data[word:word + 2 * WORD_BYTES] = whole.to_bytes(2 * WORD_BYTES, "little")

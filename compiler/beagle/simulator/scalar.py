"""The scalar core's own state: registers, predicates, scalar memory, the descriptor of host transfers.

A scalar instruction does up to three things at once: a load, a move beside the ALU, and the ALU's own operation.
Fields are looked up once per instruction of the program, however often its loop comes round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import (
    IMMEDIATE,
    LOAD_FIXED,
    STORE_FIXED,
    STORES,
    AluOperation,
    DmaTag,
    SpecialFunction,
)
from compiler.beagle.simulator.errors import MemoryBoundsError, SimulationError, UnsupportedInstruction
from compiler.beagle.simulator.host import HostMemory
from compiler.beagle.simulator.observer import Observer
from compiler.beagle.simulator.streams import HostPort

_U32 = 0xFFFFFFFF
_REGISTER = 31
POST_INCREMENT = 32
_SET_DESCRIPTOR, _TRANSFER, _SEND = 10, 12, 8


@dataclass(frozen=True, slots=True)
class ScalarStep:
    """A scalar instruction, ready to execute.

    Attributes
    ----------
    predicate, sense:
        Executes when this predicate is so; predicate -1: always.
    port:
        Loads a word: 0 (no), or the way its address is given.
    vector:
        What the move beside the ALU does; 0: nothing.
    compute, compare:
        The ALU's function, by what it gives: a value or a predicate. Both None: it rests.
    operand:
        Second operand, a register's number unless ``immediate``.
    """

    ins: Instruction
    predicate: int
    sense: int
    port: int
    port_address: int
    port_register: int
    vector: int
    vector_source: int
    vector_offset: int
    compute: Callable[[int, int], int] | None
    compare: Callable[[int, int], bool] | None
    source: int
    operand: int
    immediate: bool
    destination: int
    special: int
    special_source: int
    special_destination: int


def scalar_step(ins: Instruction) -> ScalarStep:
    """Look up what a scalar instruction does.

    Raises
    ------
    UnsupportedInstruction
        When the ALU's operation is unknown.
    """
    code = ins["operation"]
    operation = code & ~IMMEDIATE
    compare = _COMPARES.get(operation) if code else None
    compute = (_ARITHMETIC.get(operation) or _FLOATS.get(operation)) if code else None
    if code and compare is None and compute is None:
        raise UnsupportedInstruction(f"scalar operation {operation:#x} at {ins.offset:#x}")
    immediate = bool(code & IMMEDIATE)
    return ScalarStep(
        ins=ins, predicate=ins["predicate"] if ins["predicated"] else -1, sense=ins["sense"],
        port=ins["port"], port_address=ins["port_operation"], port_register=ins["port_register"],
        vector=ins["vector_operation"], vector_source=ins["vector_source"], vector_offset=ins["vector_offset"],
        compute=compute, compare=compare, source=ins["source"],
        operand=ins["immediate"] if immediate else ins["immediate"] & _REGISTER, immediate=immediate,
        destination=ins["destination"],
        special=ins["special"], special_source=ins["special_source"], special_destination=ins["special_destination"])


class ScalarCore:
    """Registers and memory of the scalar core, and the host transfers that it starts.

    Attributes
    ----------
    registers, predicates, descriptor:
        32 words, 8 flags, and the words of the next host transfer.
    interrupts:
        Interrupts raised.
    """

    def __init__(self, host: HostMemory, port: HostPort, observer: Observer | None) -> None:
        self.host, self.port, self.observer = host, port, observer
        self.registers = [0] * 32
        self.predicates = [0] * 8
        self.descriptor = [0] * 8
        self.interrupts: list[int] = []

    def execute(self, step: ScalarStep) -> None:
        """Execute one instruction: load and move see registers from before the ALU."""
        registers = self.registers
        loaded = self._load(step) if step.port else 0
        if step.vector:
            self._move(step)
        if step.compute is not None:
            operand = step.operand if step.immediate else registers[step.operand]
            registers[step.destination] = step.compute(registers[step.source], operand) & _U32
        elif step.compare is not None:
            operand = step.operand if step.immediate else registers[step.operand]
            self.predicates[step.destination & 7] = int(step.compare(_signed(registers[step.source]), _signed(operand)))
        if step.special:
            registers[step.special_destination] = special(step.special, registers[step.special_source])
        if step.port:
            registers[step.port_register] = loaded

    def _load(self, step: ScalarStep) -> int:
        return int(self.port.memory[self._address(step.port_address, fixed=step.port == LOAD_FIXED)])

    def _address(self, code: int, *, fixed: bool) -> int:
        """Word address from a port field: itself, or a register number; bit 5 steps the register afterwards."""
        register = code & _REGISTER
        value = code if fixed else self.registers[register]
        if value >= len(self.port.memory):
            raise MemoryBoundsError(f"scalar memory word {value} lies outside 0..{len(self.port.memory) - 1}")
        if code & POST_INCREMENT and not fixed:
            self.registers[register] = value + 1
        return value

    def _move(self, step: ScalarStep) -> None:
        """The move beside the ALU: descriptor words, host transfers, words to the host."""
        operation = step.vector
        value = self.registers[step.vector_source]
        if operation == _SET_DESCRIPTOR:
            self.descriptor[step.vector_offset & 7] = value
        elif operation == _TRANSFER:
            self._transfer()
        elif operation in STORES:
            self.port.memory[self._address(step.vector_offset, fixed=operation == STORE_FIXED)] = value
        elif operation == _SEND:
            self.port.send_out(np.asarray([value], np.uint32).view(np.uint8))
        else:
            raise UnsupportedInstruction(f"scalar vector operation {operation} at {step.ins.offset:#x}")

    def _transfer(self) -> None:
        """Start the host transfer that the descriptor words describe."""
        low, high, size, tag = self.descriptor[:4]
        if self.observer is not None:
            self.observer.transferred(tag, size)
        if tag >= DmaTag.INTERRUPT:
            self.interrupts.append(tag - DmaTag.INTERRUPT)
            return
        data = self.host.find(low | high << 32, size)
        if tag == DmaTag.OUTPUT:
            if not data.flags.writeable:
                raise SimulationError(f"a host transfer of {size} bytes overwrites parameters or an input")
            self.port.outputs.append(data)
        elif tag in (DmaTag.INPUT, DmaTag.PARAMETERS):
            self.port.ask(1 if tag == DmaTag.INPUT else 0, data)
        else:
            raise SimulationError(f"host transfer with tag {tag}")


def special(function: int, operand: int) -> int:
    """Reciprocal or power of two of a float32 bit pattern.

    How exactly the chip evaluates them is not known; results are rounded to float32 here.
    """
    x = np.float64(_float(operand))
    with np.errstate(all="ignore"):
        if function == SpecialFunction.RECIPROCAL:
            return _bits(np.float32(1.0 / x))
        if function == SpecialFunction.EXP2:
            return _bits(np.float32(np.exp2(x)))
    raise UnsupportedInstruction(f"special function {function}")


def _float(bits: int) -> np.float32:
    return np.uint32(bits & _U32).view(np.float32)


def _bits(value: np.float32) -> int:
    return int(np.float32(value).view(np.uint32))


def _to_integer(bits: int) -> int:
    value = float(_float(bits))
    return int(np.clip(np.rint(value), -(1 << 31), (1 << 31) - 1)) & _U32 if np.isfinite(value) else 0


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x80000000 else value


_ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    AluOperation.ADD: lambda a, b: a + b,
    AluOperation.SUB: lambda a, b: a - b,
    AluOperation.AND: lambda a, b: a & b,
    AluOperation.OR: lambda a, b: a | b,
    AluOperation.XOR: lambda a, b: a ^ b,
    AluOperation.SHL: lambda a, b: a << (b & 31),
    AluOperation.SHR: lambda a, b: a >> (b & 31),
    AluOperation.ASR: lambda a, b: _signed(a) >> (b & 31),
    AluOperation.MOVE: lambda a, b: b,
}
_FLOATS: dict[int, Callable[[int, int], int]] = {
    AluOperation.TO_FLOAT: lambda a, b: _bits(np.float32(_signed(b))),
    AluOperation.TO_INTEGER: lambda a, b: _to_integer(b),
    AluOperation.FLOAT_ADD: lambda a, b: _bits(_float(a) + _float(b)),
    AluOperation.FLOAT_SUB: lambda a, b: _bits(_float(a) - _float(b)),
    AluOperation.FLOAT_MULTIPLY: lambda a, b: _bits(_float(a) * _float(b)),
    AluOperation.FLOAT_MAXIMUM: lambda a, b: _bits(max(_float(a), _float(b))),
    AluOperation.FLOAT_MINIMUM: lambda a, b: _bits(min(_float(a), _float(b))),
}
_COMPARES: dict[int, Callable[[int, int], bool]] = {
    AluOperation.EQUAL: lambda a, b: a == b,
    AluOperation.NOT_EQUAL: lambda a, b: a != b,
    AluOperation.GREATER: lambda a, b: a > b,
    AluOperation.LESS: lambda a, b: a < b,
    AluOperation.NOT_LESS: lambda a, b: a >= b,
}

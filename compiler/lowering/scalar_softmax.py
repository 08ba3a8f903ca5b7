"""SOFTMAX on the scalar core, on the way of a vector to the host, as compilers 1.0 to 2.1 have it.

The tiles send their parts into the end of the scalar memory. One class after the other the scalar core finds the
largest value, sums up the powers of two of the differences, and replaces every class by its share in steps of 1/256.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.beagle.isa.counters import IMMEDIATE, AluOperation, DmaTag, ScalarCounter, SpecialFunction
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import ProgramBuilder, address_pair, walk
from compiler.lowering.dense import collect_vector, finish_rings, issue_transfer, send_vector
from compiler.lowering.pieces import Slice
from compiler.lowering.scalar_memory import SCALAR_WORDS, push_words, push_zero
from compiler.lowering.softmax_layer import Probabilities
from compiler.package.model import BaseAddress
from compiler.records import record

_LOG2_E = bits(np.float32(np.log2(np.e)))
_MINUS_INFINITY = 0xFF800000
_STEPS, _LARGEST = bits(np.float32(256)), bits(np.float32(255))
_ADDRESS = (18, 19)
"""Registers that hold the address of the output meanwhile: high, low."""
_READ, _WRITE, _FIRST, _TARGET = 4, 5, 6, 7
"""Byte addresses: of the vector as it is read and as it is written, and copies of them."""
_LOAD, _STORE = 2, 4
"""Port and vector operation with a word address in a register."""


@record
class ScalarSoftmax(Probabilities):
    """A softmax on the scalar core, ready for code generation.

    Attributes
    ----------
    clears:
        Bytes behind the last class become zero.
    """

    clears: bool


def emit_scalar_softmax(b: ProgramBuilder, layer: ScalarSoftmax, slices: Sequence[Slice], name: str, size: int) -> None:
    """Bring a vector to the host by way of its softmax; all rings have finished afterwards."""
    b.barrier()
    low, high = address_pair(BaseAddress.OUTPUT, name)
    b.load(_ADDRESS[0], address=high)
    b.load(_ADDRESS[1], address=low)
    collect_vector(b, slices)
    first = at = SCALAR_WORDS - layer.words
    for s in slices:
        send_vector(b, s)
        b.emit("outfeed", walk("fifo", at, [(s.words, 1)], total_dims=3), constant222=63)
        at += s.words
    b.scalar_fence(reset=1 << ScalarCounter.RING_OUTFEED, tiles=False)
    finish_rings(b)
    _Code(b, layer).write(4 * first)
    b.copy(4, _ADDRESS[0])
    b.copy(5, _ADDRESS[1])
    issue_transfer(b, BaseAddress.OUTPUT, name, size, DmaTag.OUTPUT)
    push_words(b, first, layer.words)
    if layer.words % 2:
        push_zero(b)


class _Code:
    """Writes the loops over the classes."""

    def __init__(self, b: ProgramBuilder, layer: ScalarSoftmax) -> None:
        self.b, self.layer = b, layer

    def write(self, first: int) -> None:
        """Replace the vector at a byte address by its softmax."""
        b, op = self.b, AluOperation
        b.load(_READ, first)
        b.load(_WRITE, first)
        b.copy(_FIRST, _READ)
        b.copy(_TARGET, _WRITE)
        words = self._largest() + self._sum() + self._shares() + self._clear()
        size = 4 * self.layer.words
        self._constant(op.ADD, _READ, _READ, size)
        self._constant(op.ADD, _WRITE, _WRITE, size)
        self._constant(op.LESS, 0, _WRITE, 4 * SCALAR_WORDS)
        # Vectors that follow each other would be next; the memory ends behind the last.
        b.scalar_instruction("branch", conditional=1, condition_sense=1, offset=-(words + 5), constant33=1)

    def _largest(self) -> int:
        """Find the largest value, real, in register 8."""
        b, op = self.b, AluOperation
        b.load(8, _MINUS_INFINITY)
        b.copy(10, _FIRST)
        body = 13 - self._shift
        self._loop(body)
        self._word(9, 10, 11)
        self._byte(9, 10, 12, 13)
        self._real(9)
        self._alu(op.FLOAT_MAXIMUM, 8, 8, 9)
        self._constant(op.ADD, 10, 10, 1)
        return body + 3

    def _sum(self) -> int:
        """Sum up the powers in register 9."""
        b, op = self.b, AluOperation
        b.load(9, 0)
        b.copy(11, _FIRST)
        body = 17 - self._shift
        self._loop(body)
        self._word(10, 11, 12)
        self._byte(10, 11, 13, 14)
        self._power()
        self._constant(op.ADD, 11, 11, 1)
        b.scalar_instruction("scalar")
        self._alu(op.FLOAT_ADD, 9, 9, 10)
        return body + 3

    def _shares(self) -> int:
        """Replace every class by its share; what else is in its word stays."""
        b, op = self.b, AluOperation
        b.copy(17, _FIRST)
        b.copy(13, _TARGET)
        self._special(SpecialFunction.RECIPROCAL, 9)
        body = 27 - self._shift
        self._loop(body)
        self._word(10, 17, 14)
        self._mask(17, 15, 16)
        b.copy(11, 10)
        self._alu(op.AND, 10, 10, 16)
        self._alu(op.XOR, 11, 11, 10)
        self._alu(op.SHR, 10, 10, 15)
        self._power()
        self._constant(op.ADD, 17, 17, 1)
        self._constant(op.SHR, 14, 13, 2)
        self._alu(op.FLOAT_MULTIPLY, 10, 10, 9)
        self._constant(op.FLOAT_MULTIPLY, 10, 10, _STEPS)
        self._constant(op.FLOAT_MINIMUM, 10, 10, _LARGEST)
        self._constant(op.FLOAT_MAXIMUM, 10, 10, 0)
        self._alu(op.TO_INTEGER, 10, 0, 10)
        self._alu(op.SHL, 10, 10, 15)
        self._alu(op.OR, 11, 11, 10)
        b.scalar_instruction("scalar", vector_operation=_STORE, vector_offset=14, vector_source=11)
        self._constant(op.ADD, 13, 13, 1)
        return body + 4

    def _clear(self) -> int:
        """Clear the bytes behind the last class, if there are any."""
        if not self.layer.clears:
            return 0
        b, op = self.b, AluOperation
        self._constant(op.AND, 15, 13, 3)
        self._constant(op.EQUAL, 1, 15, 0)
        self._constant(op.SHL, 15, 15, 3)
        b.load(12, 32)
        self._alu(op.SUB, 15, 12, 15)
        self._alu(op.SHL, 11, 11, 15)
        self._alu(op.SHR, 11, 11, 15)
        b.scalar_instruction("scalar", predicated=1, predicate=1, vector_operation=_STORE, vector_offset=14,
                             vector_source=11)
        return 8

    # -- parts of the loops ---------------------------------------------------------------------------

    @property
    def _shift(self) -> int:
        """Instructions that a zero point of zero saves."""
        return int(self.layer.zero_point == 0)

    def _loop(self, body: int) -> None:
        self.b.scalar_instruction("loop", iterations=self.layer.classes, body=body)

    def _alu(self, operation: AluOperation, register: int, a: int, c: int) -> None:
        self.b.scalar_instruction("scalar", operation=operation, destination=register, source=a, immediate=c)

    def _constant(self, operation: AluOperation, register: int, a: int, value: int) -> None:
        self.b.scalar_instruction("scalar", operation=operation | IMMEDIATE, destination=register, source=a,
                                  immediate=value)

    def _special(self, function: SpecialFunction, register: int) -> None:
        self.b.scalar_instruction("scalar", special=function, special_source=register, special_destination=register)

    def _word(self, register: int, at: int, scratch: int) -> None:
        """Load the word around a byte address."""
        self._constant(AluOperation.SHR, scratch, at, 2)
        self.b.scalar_instruction("scalar", port=_LOAD, port_register=register, port_operation=scratch)

    def _mask(self, at: int, shift: int, mask: int) -> None:
        """Find where the byte stands in its word."""
        op = AluOperation
        self._constant(op.AND, shift, at, 3)
        self._constant(op.SHL, shift, shift, 3)
        self.b.load(mask, 0xFF)
        self._alu(op.SHL, mask, mask, shift)

    def _byte(self, register: int, at: int, shift: int, mask: int) -> None:
        """Take the byte out of its word."""
        self._mask(at, shift, mask)
        self._alu(AluOperation.AND, register, register, mask)
        self._alu(AluOperation.SHR, register, register, shift)

    def _real(self, register: int) -> None:
        """Turn a byte into its value."""
        op = AluOperation
        if self.layer.zero_point:
            self._constant(op.SUB, register, register, self.layer.zero_point)
        self._alu(op.TO_FLOAT, register, 0, register)
        self._constant(op.FLOAT_MULTIPLY, register, register, bits(self.layer.scale))

    def _power(self) -> None:
        """Turn the byte in register 10 into e to the power of its distance from the largest value."""
        op = AluOperation
        self._real(10)
        self._alu(op.FLOAT_SUB, 10, 10, 8)
        self._constant(op.FLOAT_MULTIPLY, 10, 10, _LOG2_E)
        self._special(SpecialFunction.EXP2, 10)

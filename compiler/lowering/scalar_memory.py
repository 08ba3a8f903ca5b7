"""The scalar memory, and the way of its words to the host."""

from __future__ import annotations

from compiler.lowering.builder import ProgramBuilder

SCALAR_WORDS = 4096
"""Words of the scalar memory that official programs use."""
_LOAD = {"port": 3, "port_operation": 0x26}
"""Load a register from the scalar memory and step the pointer."""
_PUSH = 8
"""Vector operation that passes a register to the host."""
_POINTER, _PAIR = 6, (7, 8)
"""Registers of the copy loop."""


def push_words(b: ProgramBuilder, first: int, words: int) -> None:
    """Pass words of the scalar memory to the host, a pair always being on its way."""
    pairs = words // 2
    b.load(_POINTER, first)
    if pairs:
        for register in _PAIR:
            b.scalar_instruction("scalar", port_register=register, **_LOAD)
        if pairs > 1:
            b.scalar_instruction("loop", iterations=pairs - 1, body=2)
            for register in _PAIR:
                b.scalar_instruction("scalar", port_register=register, vector_operation=_PUSH, vector_source=register,
                                     **_LOAD)
        for register in _PAIR:
            b.scalar_instruction("scalar", vector_operation=_PUSH, vector_source=register)
    if words % 2:
        b.scalar_instruction("scalar", port_register=_PAIR[0], **_LOAD)
        b.scalar_instruction("scalar")
        b.scalar_instruction("scalar", vector_operation=_PUSH, vector_source=_PAIR[0])


def push_zero(b: ProgramBuilder) -> None:
    """Pass one word of zeros to the host: a transfer is a multiple of 8 bytes."""
    b.load(_POINTER)
    b.scalar_instruction("scalar", vector_operation=_PUSH, vector_source=_POINTER)

"""Instruction streams as text, and text as instruction streams."""

from compiler.beagle.assembly.text import assemble, disassemble

__all__ = ["assemble", "disassemble"]

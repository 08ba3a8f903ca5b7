"""Instruction streams as text, and text as instruction streams."""

from compiler.beagle.assembly.sections import sections
from compiler.beagle.assembly.text import assemble, disassemble, line

__all__ = ["assemble", "disassemble", "line", "sections"]

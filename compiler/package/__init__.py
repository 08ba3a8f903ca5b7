"""The executable container inside the custom operator: read and write."""

from compiler.package.host import decode_output, dtype_of, encode_input, row_starts, tensor_name
from compiler.package.model import (
    BaseAddress,
    DataType,
    DescriptorHint,
    Direction,
    DmaHints,
    Executable,
    ExecutableType,
    FenceHint,
    FieldOffset,
    InstructionChunk,
    InstructionHint,
    InterruptHint,
    Layer,
    Meta,
    OutputLayout,
    Package,
    Position,
)
from compiler.package.options import CustomOptions, read_custom_options, write_custom_options
from compiler.package.reader import read_package
from compiler.package.writer import write_executable, write_package

__all__ = [
    "BaseAddress",
    "CustomOptions",
    "DataType",
    "DescriptorHint",
    "Direction",
    "DmaHints",
    "Executable",
    "ExecutableType",
    "FenceHint",
    "FieldOffset",
    "InstructionChunk",
    "InstructionHint",
    "InterruptHint",
    "Layer",
    "Meta",
    "OutputLayout",
    "Package",
    "Position",
    "decode_output",
    "dtype_of",
    "encode_input",
    "read_custom_options",
    "read_package",
    "row_starts",
    "tensor_name",
    "write_custom_options",
    "write_executable",
    "write_package",
]

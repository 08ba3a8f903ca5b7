"""Which generation of the official compiler made a file."""

from __future__ import annotations

import numpy as np

from compiler.beagle.isa import Instruction, decode_stream
from compiler.generation import COMPILER_1_0, COMPILER_2, COMPILER_14, COMPILER_16, Generation
from compiler.graph import Operator
from compiler.package import Package
from compiler.package.options import CHIP_NAME, CHIPS, read_custom_options


def generation_of(operator: Operator, package: Package) -> Generation:
    """Tell the generation of a custom operator.

    Its options tell the first generation, which names the chip, and the last, which lists chips by number. Programs
    of 2.0 and 2.1 begin with a fence of the scalar core, or show one of two habits that changed together.
    """
    options = b"" if operator.custom_options is None else operator.custom_options.tobytes()
    keys = {key for key, _ in read_custom_options(options).entries}
    if CHIP_NAME in keys:
        return COMPILER_1_0
    if CHIPS in keys:
        return COMPILER_16
    program = [ins for chunk in package.execution.chunks for ins in decode_stream(chunk.data)]
    old = program[1].name == "scalar_fence" or any(_scalar_function(ins) or _pool_without_clamp(ins) for ins in program)
    return COMPILER_2 if old else COMPILER_14


def _scalar_function(ins: Instruction) -> bool:
    return ins.name == "scalar" and bool(ins["special"])


def _pool_without_clamp(ins: Instruction) -> bool:
    """Tell whether an instruction sums 16-bit pixels, scales the sum and clamps nothing."""
    if ins.name != "tensor_op" or not ins["in_16bit"] or ins["nonlinear"] or ins["out_zero_point"]:
        return False
    low, high = np.array([ins["clamp_low"], ins["clamp_high"]], np.uint32).view(np.float32)
    return bool(np.isneginf(low) and np.isposinf(high) and ins["weights_zero_point"] == 0)

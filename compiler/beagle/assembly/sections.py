"""Which part of a program serves which layer, as far as the program itself tells.

An instruction stream names no layers. But a layer's arithmetic - zero points, multiplier, clamps,
bias, table - stays the same over all instructions that compute it, and changes with the next layer.
A section begins at the first fence after the computing instructions of the section before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compiler.beagle.assembly.operands import LOOPS
from compiler.beagle.assembly.values import float_of
from compiler.beagle.isa import Instruction

_COMPUTE = {"tensor_op": "multiply-accumulate", "tensor_max": "maximum", "tensor_sum": "sum",
            "tensor_resize": "bilinear interpolation"}
_ARITHMETIC = ("weights_zero_point", "in_zero_point", "out_zero_point", "zero_points_per_channel", "multiplier",
               "clamp_high", "clamp_low", "constant", "nonlinear", "use_bias", "use_multiplier", "in_16bit",
               "weights_16bit", "odd_symmetry", "slot1_off")
_FENCES = ("tile_fence", "scalar_fence")
_ONE = 0x3F800000


def sections(program: Sequence[Instruction]) -> dict[int, str]:
    """Return headings of the parts of a program.

    Returns
    -------
    dict
        Word offset of the first instruction of a part to its heading.
    """
    return {program[start].offset: heading for start, heading in headings(program)}


def headings(program: Sequence[Instruction]) -> list[tuple[int, str]]:
    """Return (index of the first instruction, heading) of the parts of a program."""
    return [(start, f"work {number}: {_describe(compute)}") for number, (start, compute) in enumerate(_parts(program), 1)]


def _parts(program: Sequence[Instruction]) -> Iterator[tuple[int, Instruction]]:
    """Yield (index of the first instruction, first computing instruction) of every part."""
    fence: int | None = None
    last: tuple[object, ...] | None = None
    for index, ins in enumerate(program):
        if ins.name in _FENCES and fence is None:
            fence = index
        if ins.name not in _COMPUTE:
            continue
        signature = (ins.name, *(ins.values.get(name, 0) for name in _ARITHMETIC))
        if signature != last:
            yield (index if fence is None else fence), ins
        last, fence = signature, None


def _describe(ins: Instruction) -> str:
    mask = ins["reduction"]
    inner = [str(ins[loop] + 1) for i, loop in enumerate(LOOPS) if mask >> i & 1]
    parts = [f"{_COMPUTE[ins.name]} over {' x '.join(inner) or '1'} steps for {ins['lanes_m1'] + 1} lanes"]
    values = ins.values
    if values.get("use_bias"):
        parts.append("bias")
    if values.get("use_multiplier"):
        parts.append("multiplier per channel")
    if ins["multiplier"] != _ONE:
        parts.append(f"scale {float_of(ins['multiplier']):.6g}")
    if ins["nonlinear"] & 1:
        parts.append("reciprocal square root" if ins["nonlinear"] & 2 else "table")
    if "clamp_low" in ins.form.by_name:
        parts.append(f"clamp {float_of(ins['clamp_low']):.6g}..{float_of(ins['clamp_high']):.6g}")
    if values.get("out_zero_point"):
        parts.append(f"zero point {ins['out_zero_point']}")
    return ", ".join(parts)

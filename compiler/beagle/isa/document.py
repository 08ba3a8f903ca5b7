"""Writes docs/isa.md: the instruction tables and what is known of how the chip executes them."""

from __future__ import annotations

from compiler.beagle.isa.fields import Field, Form
from compiler.beagle.isa.forms import FORMS

_SEMANTICS = """\
## How programs run
**Stream.** 128-bit little-endian words, framed by `begin` and `end`. The first word of an instruction tells its form
(class bit 11, opcode bits 6..10), the form its length. Programs longer than 262,144 bytes are cut into several streams at
tile fences. Bits that no field covers are zero in every known program.

**Chip.** Sixteen tiles in a 4x4 mesh and one scalar core. A tile has narrow memory (196,608 bytes of activations, addressed
by byte in compute operations and by 4-byte word in moves), wide memory (2,080 rows of 64 lanes x 4 bytes), scaling registers
(128 entries of 8 bytes: float32 multipliers, then int32 biases) and engines that run side by side. All data are unsigned;
int8 tensors are stored with 128 added.

**Address generators.** `start`, then per dimension an incremental `delta` (it contains the rewind of the inner dimensions) and
a `limit` (count - 1). *Level L* always means: one event per completion of the L innermost dimensions; 0 means every element,
all dimensions means once. With a `slot`, the address moves by `slot` in every second block of `level` dimensions, counted from
the start of the instruction. In the last iteration of `epilogue_dim`, dimension 0 runs `epilogue_limit` + 1 elements.

**Watches and signals.** Block i of a watch starts when `counter - (count + step * i) >= 0`, in signed 16-bit arithmetic. A
signal raises its counter once per completed block. Watches of compute operations count loops, their signals count the
dimensions of the operand. Gates stand in front of prefix rows and words.

**Moves.** `pop` sends packets of whole lanes over a ring bus to tiles; `ring_receive` writes one packet per wide row and leaves
missing lanes alone. `narrow_to_wide` closes a row after 64 words and after every block of `flush_level` dimensions,
`wide_to_narrow` drops the rest of a row after every block of `drop_level` dimensions. Prefix rows come before every block of
`prefix.level` + 1 dimensions; the pointer steps and wraps to its start when it passes the last row. The same holds for rows of
weight zero points, which step once per group of output channels.

**Mesh.** Both halves of a mesh instruction run independently; with `fill` a tile writes a constant instead of receiving.

**Compute.** A run of steps adds up to one result. In the unit it spans the leading reduction loops and loops of one iteration;
if the partial-sum walk has a level or slot, it spans that many of its dimensions. Partial sums in wide memory are int32 rows.
Output: `float32(sum + constant + bias) * scale * multiplier`, clamp, table, round to nearest even, zero point, saturate. The
clamp comes before the rounding.

**Scalar core.** 32 registers of 32 bits, 8 predicates, 4,096 words of scalar memory that outfeeds without a watch fill and
`scalar` instructions load and store through address registers with post-increment. Operations from 16 on work on float32;
the special function unit gives reciprocals and powers of two. `branch` is relative in words.

**The timing rule.** In all-gathers official programs let a ring packet be written into a staging row that `wide_to_narrow` has
not yet read: the counters alone do not order the two. They are right if a ready wide-to-narrow transfer finishes before the
next ring packet is written. The simulator does so.

## Facts found by executing official programs
| fact | evidence |
|---|---|
| the second word of `scalar.port_operation`, `vector_offset` is an address register with post-increment (bit 5) | zero-padding and unaligned outputs of 300x300 and 500x500 images come out exact |
| scalar operations 16..22 are float conversions, add, subtract, multiply, maximum, minimum; bits 102..114 hold reciprocal and power of two | complete MobileNet v1 with softmax on the scalar core: 1001 of 1001 outputs equal to TensorFlow Lite |
| `branch`: condition in bits 12..16, signed word offset in bits 17..31 | the softmax loops of runtime-10 and early runtime-12 programs end where they should |
| `tile_fence` bits 89..104: counter value awaited before the reset | present in runtime-10 programs only, equal to their number of ring producer operations |
| runs of sums inside the unit continue through loops of one iteration | dense chains of 101 and 201 layers (runtime 10) are exact, 783,360 outputs of a depthwise network too |
| weight zero-point rows step and wrap like prefixes | multi-group streamed layers agree with TensorFlow Lite only so |
| ring_send raises RING_PRODUCER_A or B by its `ring` bit alone; pop raises it by its own | final scalar fences of all programs wait for exactly these counts |
"""


def document() -> str:
    """Return the text of docs/isa.md."""
    parts = ["# The instruction set of the Edge TPU (beagle)", "",
             "Generated from `compiler/beagle/isa/forms.py`; do not edit. Positions and values were read off published compiled",
             "models. Evidence: A = exact results depend on it, B = consistent everywhere, C = a guess.", "",
             _SEMANTICS, "## Instructions"]
    for form in FORMS:
        parts += ["", *_form(form)]
    return "\n".join(parts) + "\n"


def _form(form: Form) -> list[str]:
    rows = [f"### {form.name} ({form.label}, {form.words} word{'s' if form.words > 1 else ''})", "", form.summary + ".", "",
            "| bits | field | meaning | evidence |", "|---|---|---|---|"]
    return rows + [_row(f) for f in form.fields]


def _row(f: Field) -> str:
    bits = f"{f.low}..{f.high}" if f.width > 1 else str(f.low)
    sign = ", signed" if f.signed else ""
    return f"| {bits} | `{f.name}` | {f.meaning}{sign} | {f.evidence.value} |"


if __name__ == "__main__":
    print(document(), end="")

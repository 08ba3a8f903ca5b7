"""Assembly text: notations, refusals, sections."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.beagle.assembly import assemble, disassemble, line, sections
from compiler.beagle.isa import (
    FORM_BY_NAME,
    FORMS,
    Form,
    Instruction,
    decode_stream,
    encode,
    encode_stream,
    instruction,
)
from compiler.errors import ProgramError

OPERANDS = st.sampled_from([f for f in FORMS if f.generators])


def text_of(name: str, **values: int) -> str:
    return line(instruction(name, {k.replace("__", "."): v for k, v in values.items()}, offset=0))


def bits_of(text: str) -> dict[str, int]:
    (ins,) = decode_stream(assemble(text))
    return dict(ins.values)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(FORMS))
def test_naive_and_vectorised_decoding_agree(data: st.DataObject, form: Form) -> None:
    header = form.code << 6 | int(form.scalar) << 11
    rows = [(data.draw(st.integers(0, (1 << form.words * 128) - 1)) & ~(0x3F << 6)) | header for _ in range(3)]
    decoded = decode_stream(b"".join(r.to_bytes(form.words * 16, "little") for r in rows))
    for bits, ins in zip(rows, decoded, strict=True):
        for f in form.fields:
            value = bits >> f.low & ((1 << f.width) - 1)
            if f.signed and value >> (f.width - 1):
                value -= 1 << f.width
            assert ins[f.name] == value, f.name
        assert ins.unexplained == bits & ~form.covered


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(FORMS))
def test_any_bits_survive_the_way_through_text(data: st.DataObject, form: Form) -> None:
    header = form.code << 6 | int(form.scalar) << 11
    bits = (data.draw(st.integers(0, (1 << form.words * 128) - 1)) & ~(0x3F << 6)) | header
    stream = bits.to_bytes(form.words * 16, "little")
    assert assemble(disassemble(stream)) == stream
    assert assemble(disassemble(stream, raw=True)) == stream


def test_generators_read_as_counts_and_strides() -> None:
    text = text_of("ring_receive_a", dst__start=2076, dst__delta0=1, dst__limit0=1, dst__delta1=-1, dst__limit1=23,
                   dst__delta2=-1, dst__delta3=-1, dst__mask=1, dst__level=1, dst__slot=2)
    assert "dst=2076[2x1 24x0]m1/1+2" in text


def test_watches_name_counters() -> None:
    text = text_of("ring_receive_a", watch0__valid=1, watch0__counter=11, watch0__count=-128, watch0__step=128,
                   watch0__level=1, watch0__side=1)
    assert text.endswith("watch0=WIDE_TO_NARROW>=-128+128/1@dst")


def test_loops_show_iterations() -> None:
    text = text_of("tensor_op", loop0=2, loop1=31, loop_epilogue_dim=1, loop_epilogue_limit=0)
    assert "loops=3.32~1:1" in text
    assert bits_of(text) == {"loop0": 2, "loop1": 31, "loop_epilogue_dim": 1, "opcode": 1}


@pytest.mark.parametrize(("bits", "text"), [(0x3F800000, "1.0"), (0xFF800000, "-inf"), (0x80000000, "-0.0"),
                                            (0x7FC00001, "0x7fc00001"), (0x3B4149F7, "0.002949355")])
def test_multipliers_are_numbers(bits: int, text: str) -> None:
    row = text_of("tensor_op", multiplier=bits)
    assert row.split()[2] == f"multiplier={text}"
    assert bits_of(row)["multiplier"] == bits


def test_sets_of_engines_and_counters() -> None:
    row = text_of("tile_fence", engines=0x21, reset=0x7FFFF ^ 1)
    assert row.split()[2:] == ["engines=OP|NARROW_TO_WIDE", "reset=all^AVDATA"]
    assert bits_of(row) == {"engines": 0x21, "reset": 0x7FFFE, "opcode": 0x1A}


@pytest.mark.parametrize(("values", "remark"), [
    ({"operation": 33, "destination": 4, "source": 11, "immediate": 1, "predicated": 1, "sense": 1, "predicate": 1},
     "s4 = s11 + 1 if p1"),
    ({"operation": 47, "destination": 8, "immediate": 0xC000}, "s8 = 0xc000"),
    ({"operation": 10, "destination": 1, "source": 2, "immediate": 3}, "p1 = s2 != s3"),
    ({"vector_operation": 12}, "start transfer"),
    ({"vector_operation": 10, "vector_offset": 3, "vector_source": 9}, "transfer tag = s9"),
    ({"port": 3, "port_register": 7, "port_operation": 0x26}, "s7 = memory[s6++]"),
])
def test_scalar_instructions_are_explained(values: dict[str, int], remark: str) -> None:
    assert text_of("scalar", **values).split("; ")[1] == remark


def test_branches_name_their_target() -> None:
    program = [instruction("scalar", {}), instruction("branch", {"offset": -1, "conditional": 1, "condition": 2})]
    assert disassemble(encode_stream(program)).endswith("; to 00000 if not p2")


@pytest.mark.parametrize("row", [
    "halt code=16 code=4", "halt code=999", "scalar operation=TELEPORT", "ring_send src=1[1]m0", "tensor_op loops=1..2",
    "tensor_op loops=1.1.1.1.1.1.1.1.1", "infeed fifo=0[1x1 1x1 1x1 1x1]m0", "ring_send watch0=AVDATA>1", "halt bits?=0x1",
    "table done=/1", "halt code=", "ring_send write=1", "tile_fence engines=WARP",
])
def test_unreadable_lines_are_refused_by_number(row: str) -> None:
    with pytest.raises(ProgramError, match="line 2"):
        assemble(f"; a comment\n{row}")


def compute(**values: int) -> Instruction:
    return instruction("tensor_op", {"lanes_m1": 63, "reduction": 1, "loop0": 8, **values})


def test_sections_begin_at_the_fence_before_other_arithmetic() -> None:
    fence = instruction("tile_fence", {})
    program = decode_stream(b"".join(map(encode, [
        fence, compute(multiplier=5), compute(multiplier=5), fence, fence, compute(multiplier=6, use_bias=1)])))
    found = sections(program)
    assert [program.index(i) for i in program if i.offset in found] == [0, 3]
    assert found[0].startswith("work 1: multiply-accumulate over 9 steps for 64 lanes, scale")
    assert "bias" in found[program[3].offset]
    stream = encode_stream(program)
    assert disassemble(stream).count("; ---- work") == 2
    assert disassemble(stream, layers={0: "conv"}).startswith("; ---- conv\n")


def test_every_form_has_a_line() -> None:
    for name in FORM_BY_NAME:
        assert bits_of(text_of(name)) == dict(instruction(name, {}).values)

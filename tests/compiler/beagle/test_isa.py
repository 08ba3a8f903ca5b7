"""Instruction tables, codec and assembly."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.beagle.assembly import assemble, disassemble
from compiler.beagle.isa import FORM_BY_NAME, FORMS, Instruction, decode_stream, encode, encode_stream, instruction
from compiler.errors import ProgramError


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    form = FORM_BY_NAME[draw(st.sampled_from(sorted(FORM_BY_NAME)))]
    fields = [f for f in form.fields if f.name not in ("opcode", "scalar")]
    chosen = draw(st.lists(st.sampled_from(fields), unique_by=lambda f: f.name, max_size=12)) if fields else []
    return instruction(form.name, {f.name: draw(st.integers(f.minimum, f.maximum)) for f in chosen})


@settings(max_examples=200, deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=8))
def test_encoded_instructions_decode_to_the_same_values(program: list[Instruction]) -> None:
    decoded = decode_stream(encode_stream(program))
    assert [(i.name, dict(i.values)) for i in decoded] == [(i.name, dict(i.values)) for i in program]
    assert all(i.unexplained == 0 for i in decoded)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 2176), st.sampled_from(FORMS))
def test_any_bits_survive_decoding(bits: int, form: object) -> None:
    from compiler.beagle.isa import Form

    assert isinstance(form, Form)
    mask = (1 << form.words * 128) - 1
    header = form.code << 6 | int(form.scalar) << 11
    value = (bits & mask & ~(0x3F << 6)) | header
    data = value.to_bytes(form.words * 16, "little")
    assert encode_stream(decode_stream(data)) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_frame_or_are_refused(data: bytes) -> None:
    with suppress(ProgramError):
        assert encode_stream(decode_stream(data)) == data


@settings(max_examples=150, deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=5), st.booleans())
def test_assembly_turns_back_into_the_same_bytes(program: list[Instruction], raw: bool) -> None:
    data = encode_stream(program)
    assert assemble(disassemble(data, raw=raw)) == data


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_values_that_do_not_fit_are_refused(form: object) -> None:
    from compiler.beagle.isa import Form

    assert isinstance(form, Form)
    for f in form.fields:
        if f.name not in ("opcode", "scalar"):
            with pytest.raises(ProgramError, match="does not fit"):
                instruction(form.name, {f.name: f.maximum + 1})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ProgramError, match="no instruction"):
        instruction("teleport", {})
    with pytest.raises(ProgramError, match="no field"):
        instruction("halt", {"speed": 1})
    with pytest.raises(ProgramError, match="line 1"):
        assemble("halt speed")
    assert encode(instruction("halt", {"code": 16})) == encode_stream(decode_stream(assemble("halt code=16")))

"""The instruction set as declarative tables, and the codec derived from them."""

from compiler.beagle.isa.codec import (
    WORD_BYTES,
    Instruction,
    decode_stream,
    encode,
    encode_stream,
    encode_values,
    frame,
    instruction,
)
from compiler.beagle.isa.fields import AddressGenerator, Evidence, Field, Form
from compiler.beagle.isa.forms import FORM_BY_KEY, FORM_BY_NAME, FORMS

__all__ = [
    "FORMS",
    "FORM_BY_KEY",
    "FORM_BY_NAME",
    "WORD_BYTES",
    "AddressGenerator",
    "Evidence",
    "Field",
    "Form",
    "Instruction",
    "decode_stream",
    "encode",
    "encode_stream",
    "encode_values",
    "frame",
    "instruction",
]

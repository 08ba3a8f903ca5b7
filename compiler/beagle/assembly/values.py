"""How the value of a single field is written: numbers, float32, names of operations, sets of bits."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import cache

import numpy as np

from compiler.beagle.isa import Form
from compiler.beagle.isa.counters import (
    IMMEDIATE,
    AluOperation,
    ScalarCounter,
    ScalarEngine,
    SpecialFunction,
    TileCounter,
    TileEngine,
)

_HEXADECIMAL = frozenset({"tiles", "receivers", "engines", "reset", "notified", "reduction", "fill_value", "immediate"})
_FLOAT = re.compile(r"multiplier|clamp_high|clamp_low|breakpoint\d|c\d\.\d")
_SETS: dict[tuple[str, str], type[IntEnum]] = {
    ("tile_fence", "engines"): TileEngine,
    ("tile_fence", "reset"): TileCounter,
    ("scalar_fence", "engines"): ScalarEngine,
    ("scalar_fence", "reset"): ScalarCounter,
}
_EVERYTHING = "all"
_IMMEDIATE_SUFFIX = "_IMMEDIATE"


def value_text(form: Form, name: str, value: int, *, raw: bool) -> str:
    """Return the text of a field value."""
    if is_float(name):
        return f"{value:#010x}" if raw else _float_text(value)
    if not raw:
        if (form.name, name) in _SETS:
            return _set_text(_SETS[form.name, name], form.by_name[name].maximum, value)
        if form.name == "scalar" and name == "operation":
            return _operation_text(value)
        if form.name == "scalar" and name == "special" and value in set(SpecialFunction):
            return SpecialFunction(value).name
    return f"{value:#x}" if name in _HEXADECIMAL else str(value)


def value_of(form: Form, name: str, text: str) -> int:
    """Return the field value that a text stands for.

    Raises
    ------
    ValueError, KeyError
        When it stands for none.
    """
    if is_float(name) and not text.startswith("0x"):
        return int(np.float32(text).view(np.uint32))
    if (form.name, name) in _SETS:
        return _set_of(_SETS[form.name, name], form.by_name[name].maximum, text)
    if form.name == "scalar" and text[0].isalpha():
        return _operation_of(text) if name == "operation" else SpecialFunction[text].value
    return int(text, 0)


@cache
def is_float(name: str) -> bool:
    """Tell whether a field holds the bits of a float32."""
    return _FLOAT.fullmatch(name) is not None


def float_of(bits: int) -> float:
    """Return the number that the bits of a float32 stand for."""
    return float(np.uint32(bits).view(np.float32))


def _float_text(bits: int) -> str:
    """Shortest decimal of a float32; bits where decimals would lose the payload of a NaN."""
    value = np.uint32(bits).view(np.float32)
    if np.isnan(value):
        return f"{bits:#010x}"
    return np.format_float_scientific(value, trim="-", exp_digits=1) if 0 < abs(value) < 1e-3 else str(value)


def _operation_text(value: int) -> str:
    try:
        name = AluOperation(value & ~IMMEDIATE).name
    except ValueError:
        return str(value)
    return name + (_IMMEDIATE_SUFFIX if value & IMMEDIATE else "")


def _operation_of(text: str) -> int:
    name = text.removesuffix(_IMMEDIATE_SUFFIX)
    return AluOperation[name].value | (IMMEDIATE if name != text else 0)


def _set_text(kind: type[IntEnum], everything: int, value: int) -> str:
    if value == everything:
        return _EVERYTHING
    if value.bit_count() > everything.bit_count() // 2:
        return f"{_EVERYTHING}^{_set_text(kind, everything, value ^ everything)}"
    names = [member.name for member in kind if value >> member & 1]
    rest = value & ~sum(1 << member for member in kind)
    return "|".join([*names, hex(rest)] if rest or not names else names)


def _set_of(kind: type[IntEnum], everything: int, text: str) -> int:
    if text == _EVERYTHING:
        return everything
    if text.startswith(f"{_EVERYTHING}^"):
        return everything ^ _set_of(kind, everything, text.removeprefix(f"{_EVERYTHING}^"))
    value = 0
    for part in text.split("|"):
        value |= int(part, 0) if part[0].isdigit() else 1 << kind[part]
    return value

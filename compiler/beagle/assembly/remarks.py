"""Remarks behind instructions: what a scalar instruction does, written as an assignment."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import IMMEDIATE, LOAD_FIXED, STORE_FIXED, STORES, AluOperation, SpecialFunction

_SYMBOLS = {
    AluOperation.ADD: "+", AluOperation.SUB: "-", AluOperation.AND: "&", AluOperation.OR: "|", AluOperation.XOR: "^",
    AluOperation.SHL: "<<", AluOperation.SHR: ">>", AluOperation.ASR: ">>>", AluOperation.EQUAL: "==",
    AluOperation.NOT_EQUAL: "!=", AluOperation.GREATER: ">", AluOperation.LESS: "<", AluOperation.NOT_LESS: ">=",
    AluOperation.FLOAT_ADD: "+.", AluOperation.FLOAT_SUB: "-.", AluOperation.FLOAT_MULTIPLY: "*.",
}
_COMPARES = (AluOperation.EQUAL, AluOperation.NOT_EQUAL, AluOperation.GREATER, AluOperation.LESS, AluOperation.NOT_LESS)
_CONVERSIONS = (AluOperation.TO_FLOAT, AluOperation.TO_INTEGER)
_DESCRIPTOR = ("address low", "address high", "bytes", "tag")
_TO_HOST, _DESCRIBE, _TRANSFER = 8, 10, 12
_STEP = 32
_SMALL = 1024


def remark(ins: Instruction) -> str:
    """Return what a scalar instruction does; empty for instructions that say it themselves."""
    if ins.name == "branch":
        return f"to {ins.offset + ins['offset']:05x}{_condition(ins, 'conditional', 'condition', 'condition_sense')}"
    if ins.name != "scalar":
        return ""
    text = ", ".join(_effects(ins))
    return text + _condition(ins, "predicated", "predicate", "sense") if text else ""


def _condition(ins: Instruction, valid: str, register: str, sense: str) -> str:
    if not ins[valid]:
        return ""
    return f" if {'' if ins[sense] else 'not '}p{ins[register]}"


def _effects(ins: Instruction) -> Iterator[str]:
    """What the parts of one instruction do, side by side."""
    if ins["port"]:
        yield f"s{ins['port_register']} = memory[{_pointer(ins['port_operation'], ins['port'] == LOAD_FIXED)}]"
    operation, source = ins["vector_operation"], f"s{ins['vector_source']}"
    if operation in STORES:
        yield f"memory[{_pointer(ins['vector_offset'], operation == STORE_FIXED)}] = {source}"
    elif operation == _TO_HOST:
        yield f"host output <- {source}"
    elif operation == _DESCRIBE and ins["vector_offset"] < len(_DESCRIPTOR):
        yield f"transfer {_DESCRIPTOR[ins['vector_offset']]} = {source}"
    elif operation == _TRANSFER:
        yield "start transfer"
    if ins["operation"] & ~IMMEDIATE in set(AluOperation):
        yield _alu(ins)
    if ins["special"] in set(SpecialFunction):
        name = SpecialFunction(ins["special"]).name.lower()
        yield f"s{ins['special_destination']} = {name} s{ins['special_source']}"


def _pointer(code: int, fixed: bool) -> str:
    if fixed:
        return str(code)
    return f"s{code & ~_STEP}{'++' if code & _STEP else ''}"


def _alu(ins: Instruction) -> str:
    operation = AluOperation(ins["operation"] & ~IMMEDIATE)
    number = ins["immediate"]
    second = (str(number) if number < _SMALL else hex(number)) if ins["operation"] & IMMEDIATE else f"s{number & 31}"
    target = f"{'p' if operation in _COMPARES else 's'}{ins['destination']}"
    if operation is AluOperation.MOVE:
        return f"{target} = {second}"
    if operation in _CONVERSIONS:
        return f"{target} = {operation.name.lower()} {second}"
    symbol = _SYMBOLS.get(operation, operation.name.lower())
    return f"{target} = s{ins['source']} {symbol} {second}"

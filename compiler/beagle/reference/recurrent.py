"""UNIDIRECTIONAL_SEQUENCE_LSTM.

Official programs bring the input and the recurrent share of every gate to the 8-bit quantization of
the output before they add them - TensorFlow Lite keeps 16 bits there - so that gates saturate where
the output would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.beagle.isa.tables import LOGISTIC, LOGISTIC_LIMIT, TANH, TANH_LIMIT
from compiler.beagle.reference.output import requantised
from compiler.beagle.reference.step import Array, Integers, NoReferenceError, Reals, Step, centred
from compiler.beagle.sums import weights_of_sum
from compiler.graph import TensorType

_BYTE = 255.0
_HALF_BYTE = 127.5
_WORD = 16383.5
"""The tables give 255 times the logistic function, 127.5 or 16383.5 times the hyperbolic tangent."""
_ONE = np.float32(1)
_INT16 = 32767
_GATES = 4
_WEIGHTS, _RECURRENT, _BIASES, _HIDDEN, _CELL = 1, 5, 12, 18, 19
_UNSUPPORTED = {1: "a coupled input gate", 9: "peepholes", 10: "peepholes", 11: "peepholes", 16: "a projection",
                20: "normalisation", 21: "normalisation", 22: "normalisation", 23: "normalisation"}


@dataclass(frozen=True)
class _State:
    """Hidden and cell state between steps, centred, in the scales of their tensors."""

    hidden: Integers
    cell: Integers


def unidirectional_sequence_lstm(step: Step) -> list[Array]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM of int8 with a 16-bit cell, without peepholes and projection."""
    _check(step)
    sequence = step.centred(0)
    if not step.option("timeMajor"):
        sequence = sequence.swapaxes(0, 1)
    state = _State(step.centred(_HIDDEN), step.array(_CELL).astype(np.int32))
    outputs = []
    for x in sequence:
        state = _advance(step, x, state)
        outputs.append(state.hidden)
    hidden = np.stack(outputs, 0 if step.option("timeMajor") else 1)
    step.next_values[step.tensor(_HIDDEN).index] = state.hidden + step.quantization(_HIDDEN).zero_point
    step.next_values[step.tensor(_CELL).index] = state.cell
    return [requantised(step, hidden, _ONE, "NONE")]


def _check(step: Step) -> None:
    for position, feature in _UNSUPPORTED.items():
        if step.has(position) != (position == 1):
            raise NoReferenceError(f"{step.op.title}: the chip's arithmetic with {feature} is not known.")
    cell = step.tensor(_CELL)
    if cell.type is not TensorType.INT16 or cell.quantization is None:
        raise NoReferenceError(f"{step.op.title}: the cell {cell.name} is not of 16 bits.")
    if not step.quantization(_HIDDEN).same_as(step.out.quantization):
        raise NoReferenceError(f"{step.op.title}: state and output have different quantizations.")


def _advance(step: Step, x: Integers, state: _State) -> _State:
    """One step in time."""
    entry, forget, candidate, exit_ = (_gate(step, gate, x, state.hidden) for gate in range(_GATES))
    unit = _cell_scale(step)
    entered = _to_word(_rounded(entry * candidate, _product(1 / _BYTE, 1 / _HALF_BYTE, 1 / _WORD)))
    kept = _to_word(_rounded(forget * state.cell, _product(1 / _BYTE, unit, unit)))
    weights = weights_of_sum(float(np.float32(1 / _WORD)), float(unit))
    total = (weights[0] * entered.astype(np.int64) + weights[1] * kept).astype(np.float32)
    real = np.float32(unit / np.float32(weights[1]))
    cell = _to_word(np.rint(total * np.float32(real * (_ONE / unit))))
    squashed = np.rint(_tanh(total * real, _WORD)).astype(np.int64)
    scale = _product(1 / _BYTE, 1 / _WORD, step.out_scale)
    hidden = centred(requantised(step, exit_ * squashed, scale, "NONE"), step.quantization(_HIDDEN))
    return _State(hidden, cell)


def _gate(step: Step, gate: int, x: Integers, hidden: Integers) -> Array:
    """Return a gate, centred: logistic in steps of 1/255, or (the candidate) tanh in steps of 1/127.5."""
    q = step.quantization(_HIDDEN)
    shares = []
    for operand, scale, position, bias in ((x, step.scale(0), _WEIGHTS + gate, step.array(_BIASES + gate)),
                                           (hidden, step.out_scale, _RECURRENT + gate, 0)):
        sums = operand.astype(np.int64) @ step.centred(position).T.astype(np.int64) + bias
        shares.append(centred(requantised(step, sums, _product(scale, step.scale(position), step.out_scale), "NONE"), q))
    y = (shares[0] + shares[1]).astype(np.float32) * step.out_scale
    if gate == 2:
        return np.clip(np.rint(_tanh(y, _HALF_BYTE)), -128, 127).astype(np.int64)
    limited = np.clip(y, -LOGISTIC_LIMIT, LOGISTIC_LIMIT)
    return np.clip(np.rint(LOGISTIC.scaled(_BYTE)(limited)), 0, 255).astype(np.int64)


def _tanh(y: Reals, scale: float) -> Reals:
    limited = np.clip(y, -TANH_LIMIT, TANH_LIMIT)
    return np.asarray(np.sign(limited) * TANH.scaled(scale)(np.abs(limited)), np.float32)


def _product(a: float | np.float32, b: float | np.float32, out: float | np.float32) -> np.float32:
    """Return f32(f32(a * b) * f32(1 / out))."""
    return np.float32(np.float32(a) * np.float32(b) * (_ONE / np.float32(out)))


def _rounded(sums: Array, scale: np.float32) -> Reals:
    return np.asarray(np.rint(sums.astype(np.float32) * scale), np.float32)


def _to_word(values: Reals) -> Integers:
    return np.clip(values, -_INT16 - 1, _INT16).astype(np.int32)


def _cell_scale(step: Step) -> np.float32:
    q = step.tensor(_CELL).quantization
    return np.float32(q.scales[0]) if q is not None else _ONE

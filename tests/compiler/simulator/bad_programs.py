"""Spoils programs: what a simulator may be given that no compiler wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random

from compiler.beagle.isa import WORD_BYTES, Instruction, decode_stream, encode_stream
from compiler.package import Executable

ALIGNED, CUT = WORD_BYTES, 1


def noise(data: bytes, random: Random) -> bytes:
    return random.randbytes(random.randrange(0, 2000))


def words_of_noise(data: bytes, random: Random) -> bytes:
    """Noise with opcodes that exist."""
    words = bytearray()
    program = decode_stream(data)
    for _ in range(random.randint(1, 30)):
        ins = random.choice(program)
        bits = int.from_bytes(random.randbytes(ins.form.words * WORD_BYTES), "little")
        bits = bits & ~0xFC0 | (ins["opcode"] << 6) | (ins["scalar"] << 11)
        words += bits.to_bytes(ins.form.words * WORD_BYTES, "little")
    return bytes(words)


def truncated(data: bytes, random: Random) -> bytes:
    return data[:random.randrange(len(data)) // (unit := random.choice((ALIGNED, CUT))) * unit]


def flipped(data: bytes, random: Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 50))):
        spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
    return bytes(spoiled)


def absurd(data: bytes, random: Random) -> bytes:
    """Counts, limits, strides and addresses at the ends of their ranges."""
    program = list(decode_stream(data))
    for _ in range(random.choice((1, 1, 3, 20))):
        at = random.randrange(len(program))
        ins = program[at]
        # The opcode and the class stay: what follows must still be an instruction.
        name = random.choice([f.name for f in ins.form.fields if f.name not in ("opcode", "scalar")])
        field = ins.form.by_name[name]
        values = (field.minimum, field.maximum, field.maximum // 2, random.randint(field.minimum, field.maximum))
        program[at] = ins.with_values({name: random.choice(values)})
    return encode_stream(program)


def loops(data: bytes, random: Random) -> bytes:
    """Huge loop nests and scalar loops."""
    program = list(decode_stream(data))
    candidates = [i for i, ins in enumerate(program) if _limits(ins)]
    for at in random.choices(candidates, k=random.choice((1, 2, 8))) if candidates else ():
        names = _limits(program[at])
        chosen = random.sample(names, random.randint(1, len(names)))
        program[at] = program[at].with_values({n: program[at].form.by_name[n].maximum for n in chosen})
    return encode_stream(program)


def _limits(ins: Instruction) -> list[str]:
    return [f.name for f in ins.form.fields if ".limit" in f.name or f.name.startswith("loop") or f.name in (
        "iterations", "body", "offset")]


def shuffled(data: bytes, random: Random) -> bytes:
    """Instructions dropped, repeated, exchanged."""
    program = list(decode_stream(data))
    for _ in range(random.randint(1, 4)):
        a, b = random.randrange(len(program)), random.randrange(len(program))
        kind = random.randrange(3)
        if kind == 0 and len(program) > 1:
            del program[a]
        elif kind == 1:
            program[a:a] = [program[b]] * random.choice((1, 10, 1000))
        else:
            program[a], program[min(b, len(program) - 1)] = program[min(b, len(program) - 1)], program[a]
        program = program or [*decode_stream(data)]
    return encode_stream(program)


SPOILERS: tuple[Callable[[bytes, Random], bytes], ...] = (noise, words_of_noise, truncated, flipped, absurd, loops, shuffled)


def spoil(executable: Executable, random: Random) -> tuple[str, Executable]:
    """Return what was done, and the executable with a bad stream or bad surroundings."""
    kind = random.choice((*SPOILERS, *SPOILERS, surroundings))
    if kind is surroundings:
        return "surroundings", surroundings(executable, random)
    chunks = list(executable.chunks)
    at = random.randrange(len(chunks))
    chunks[at] = dataclasses.replace(chunks[at], data=kind(chunks[at].data, random))
    return kind.__name__, dataclasses.replace(executable, chunks=tuple(chunks))


def surroundings(executable: Executable, random: Random) -> Executable:
    """Parameters cut, huge scratch memory, address fields elsewhere, layers of absurd size."""
    which = random.randrange(4)
    if which == 0:
        return dataclasses.replace(executable, parameters=executable.parameters[:random.randrange(64)])
    if which == 1:
        return dataclasses.replace(executable, scratch_size=random.choice((1 << 31, 1 << 44)))
    if which == 2:
        chunks = [dataclasses.replace(chunk, field_offsets=tuple(
            dataclasses.replace(offset, offset_bit=random.randrange(1 << 20)) for offset in chunk.field_offsets))
            for chunk in executable.chunks]
        return dataclasses.replace(executable, chunks=tuple(chunks))
    layers = tuple(dataclasses.replace(layer, size=random.choice((0, 3, 1 << 31)), executions=random.choice((1, 4000)))
                   for layer in executable.outputs)
    return dataclasses.replace(executable, outputs=layers)

"""Programs of official models as text, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compiler.beagle.assembly import assemble, disassemble
from compiler.beagle.isa import decode_stream
from compiler.graph import read_model
from compiler.package.container import packages_of

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus


def test_text_turns_back_into_the_same_bytes_and_nothing_is_unexplained(pairs: list[Pair]) -> None:
    seen: set[bytes] = set()
    for pair in pairs:
        for _, package in packages_of(read_model(pair.compiled)):
            for executable in package.executables:
                for chunk in executable.chunks:
                    stream = bytes(chunk.data)
                    if stream in seen:
                        continue
                    seen.add(stream)
                    assert not any(ins.unexplained for ins in decode_stream(stream)), pair.name
                    assert assemble(disassemble(stream)) == stream, pair.name
    assert len(seen) > 100

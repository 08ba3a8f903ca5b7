"""Records behave as frozen dataclasses."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import ClassVar

import pytest

from compiler.records import record


@record
class Point:
    x: int
    y: int = 0


@record
class Named(Point):
    tags: list[str] = field(default_factory=list, repr=False)


@record
class Checked(Named):
    kind: ClassVar[str] = "checked"
    z: int = field(default=7)

    def __post_init__(self) -> None:
        if self.z < 0:
            raise ValueError("z")


@record
class Empty:
    pass


@dataclass(frozen=True)
class Plain:
    x: int
    y: int = 0


def test_compares_and_hashes_by_fields() -> None:
    assert Point(1) == Point(1, 0) != Point(0, 1)
    assert len({Point(1), Point(1, 0), Point(2)}) == 2
    assert Empty() == Empty()
    assert Point(1) != Plain(1)
    assert Point(1) != Named(1)
    assert Named(1, tags=["a"]) != Named(1)


def test_shows_and_replaces_as_dataclasses_do() -> None:
    assert repr(Point(1)) == repr(Plain(1)).replace("Plain", "Point")
    assert repr(Named(1)) == "Named(x=1, y=0)"
    assert replace(Named(1, 2), y=5) == Named(1, 5)
    with pytest.raises(TypeError):
        replace(Point(1), z=1)


def test_defaults_are_those_of_dataclasses() -> None:
    first, second = Named(1), Named(1)
    assert first.tags == second.tags == []
    assert first.tags is not second.tags
    assert Checked(1, 2).z == 7
    assert asdict(Checked(1)) == {"x": 1, "y": 0, "tags": [], "z": 7}
    assert [f.name for f in fields(Checked)] == ["x", "y", "tags", "z"]
    assert repr(Checked(1)) == "Checked(x=1, y=0, z=7)"
    with pytest.raises(ValueError, match="z"):
        Checked(1, z=-1)
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]


def test_own_methods_are_kept() -> None:
    @record
    class Loose:
        x: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Loose)

        __hash__ = None  # type: ignore[assignment]

    assert Loose(1) == Loose(2)
    with pytest.raises(TypeError):
        hash(Loose(1))

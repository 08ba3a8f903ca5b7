"""The options map of the custom operator."""

from __future__ import annotations

import pytest
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.errors import PackageError
from compiler.package import CustomOptions, read_custom_options, write_custom_options

INT = st.integers(-(2**63), 2**63 - 1)
ENTRIES = st.fixed_dictionaries({}, optional={"1": INT, "2": st.text(max_size=9), "5": INT,
                                              "6": st.lists(INT, max_size=3).map(tuple), "7": st.just(())})


@settings(deadline=None)
@given(st.binary(max_size=3000), ENTRIES)
def test_what_is_written_is_read_back(package: bytes, entries: dict[str, object]) -> None:
    options = CustomOptions(package, tuple(sorted(entries.items())))
    assert read_custom_options(write_custom_options(options)) == options


def test_map_as_the_current_compiler_writes_it() -> None:
    # flexbuffers.Loads wants text, which an ASCII package is.
    loaded = flexbuffers.Loads(write_custom_options(CustomOptions(b"package")))
    assert loaded == {"1": 0, "4": "package", "5": -1, "6": [18], "7": []}
    assert list(loaded) == ["1", "4", "5", "6", "7"]


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    damaged = bytearray(write_custom_options(CustomOptions(b"package" * 40)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(len(damaged) - 40, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        read_custom_options(bytes(damaged[:data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]))
    except PackageError as error:
        assert "custom operator" in str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PackageError):
        read_custom_options(data)


def test_truncated_packages_are_named() -> None:
    data = bytearray(write_custom_options(CustomOptions(b"package" * 40)))
    at = data.index(b"package") - 2
    assert int.from_bytes(data[at:at + 2], "little") == 280
    data[at:at + 2] = b"\xff\xff"
    with pytest.raises(PackageError, match="net is truncated: it ends"):
        read_custom_options(bytes(data), "net")


def test_maps_without_a_package_are_refused() -> None:
    with pytest.raises(PackageError, match="net carries no executable package"):
        read_custom_options(bytes(flexbuffers.Dumps({"1": 0})), "net")

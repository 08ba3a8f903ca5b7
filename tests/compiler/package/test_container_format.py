"""The container: what is written is read back; what is damaged is refused by name."""

from __future__ import annotations

import struct
from dataclasses import replace

import flatbuffers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packages import packages, small_package

from compiler.errors import PackageError
from compiler.package import Package, read_package, write_executable, write_package
from compiler.package.schema import ExecutableSlot, MultiExecutableSlot, PackageSlot

PAGE = 4096
SMALL = write_package(small_package())
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(packages)
def test_what_is_written_is_read_back(package: Package) -> None:
    data = write_package(package)
    assert read_package(data) == package
    assert write_package(read_package(data)) == data


def test_flatbuffers_library_reads_the_same_fields() -> None:
    # The library's own reader, driven by slot numbers alone, finds what the writer put there.
    package = small_package()
    data = write_package(package)
    root = table(data)
    multi = blob(root, PackageSlot.SERIALIZED_MULTI_EXECUTABLE)
    (first, second) = strings(table(multi), MultiExecutableSlot.SERIALIZED_EXECUTABLES)
    assert first == write_executable(package.executables[0])
    assert second == write_executable(package.executables[1])
    run = table(first)
    assert blob(run, ExecutableSlot.PARAMETERS) == b"parameters"
    token = run.Offset(4 + 2 * ExecutableSlot.PARAMETER_CACHING_TOKEN)
    assert run.Get(flatbuffers.number_types.Uint64Flags, run.Pos + token) == package.execution.token


def table(data: bytes) -> flatbuffers.table.Table:
    return flatbuffers.table.Table(data, struct.unpack_from("<I", data)[0])


def blob(t: flatbuffers.table.Table, slot: int) -> bytes:
    field = t.Offset(4 + 2 * slot)
    return bytes(t.Bytes[t.Vector(field):t.Vector(field) + t.VectorLen(field)])


def strings(t: flatbuffers.table.Table, slot: int) -> list[bytes]:
    field = t.Offset(4 + 2 * slot)
    return [t.String(t.Vector(field) + 4 * i) for i in range(t.VectorLen(field))]


def test_pages_are_aligned() -> None:
    package = small_package()
    data = write_package(package)
    executables = [write_executable(e) for e in package.executables]
    # The runtime maps the file: parameters lie on pages of an executable, executables on pages of the container.
    assert all(len(e) % PAGE == 0 and e.index(p) % PAGE == 0
               for e, p in zip(executables, (b"parameters", b"cached"), strict=True))
    assert all(data.index(e) % PAGE == 0 for e in executables)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    damaged = bytearray(SMALL)
    written = [i for i, b in enumerate(SMALL) if b]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(written) | st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    refused_or_fine(bytes(damaged[:data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_are_refused(data: bytes, identified: bool) -> None:
    with pytest.raises(PackageError):
        read_package(data[:4] + b"DWN1" + data[8:] if identified else data)


@pytest.mark.parametrize("size", [0, 3, 7, 8, 11, 100, PAGE, len(SMALL) - 1])
def test_truncated_containers_are_refused(size: int) -> None:
    with pytest.raises(PackageError):
        read_package(SMALL[:size], "net.tflite")


def refused_or_fine(data: bytes) -> None:
    try:
        package = read_package(data)
    except PackageError as error:
        assert "executable package" in str(error)
        assert "\n" not in str(error)
    else:
        assert package.execution is not None


def test_messages_name_file_table_and_field() -> None:
    package = small_package()
    name = SMALL.index(b"parameters") - 4
    damaged = bytearray(SMALL)
    damaged[name:name + 4] = b"\xff\xff\xff\x7f"
    with pytest.raises(PackageError, match=r"executable 0 of net\.tflite is damaged: field parameters of Executable has"):
        read_package(bytes(damaged), "net.tflite")
    with pytest.raises(PackageError, match=r"net\.tflite does not begin with the identifier DWN1"):
        read_package(SMALL.replace(b"DWN1", b"DWN2"), "net.tflite")
    with pytest.raises(PackageError, match="holds no executable that runs an inference"):
        read_package(write_package(replace(package, executables=package.executables[1:])))


def test_unknown_numbers_are_named() -> None:
    package = small_package()
    fill = write_executable(package.executables[1])
    t = table(fill)
    at = SMALL.index(fill) + t.Pos + t.Offset(4 + 2 * ExecutableSlot.TYPE)
    damaged = bytearray(SMALL)
    damaged[at:at + 2] = b"\x09\x00"
    with pytest.raises(PackageError, match="field type of Executable has the unknown value 9"):
        read_package(bytes(damaged))


def test_work_on_hostile_buffers_is_bounded() -> None:
    # One executable, referred to 50,000 times, in a buffer of a few hundred kilobytes.
    b = flatbuffers.Builder(1 << 20)
    one = b.CreateString(write_executable(small_package().executables[0]))
    count = 50_000
    b.StartVector(4, count, 4)
    for _ in range(count):
        b.PrependUOffsetTRelative(one)
    vector = b.EndVector()
    b.StartObject(1)
    b.PrependUOffsetTRelativeSlot(0, vector, 0)
    b.Finish(b.EndObject())
    multi = bytes(b.Output())
    b = flatbuffers.Builder(len(multi) + PAGE)
    serialized = b.CreateByteVector(multi)
    b.StartObject(8)
    b.PrependUOffsetTRelativeSlot(PackageSlot.SERIALIZED_MULTI_EXECUTABLE, serialized, 0)
    b.Finish(b.EndObject(), b"DWN1")
    with pytest.raises(PackageError, match="repeats content many times over"):
        read_package(bytes(b.Output()))


def test_packages_for_several_chips_are_refused() -> None:
    b = flatbuffers.Builder(64)
    b.StartVector(4, 0, 4)
    nothing = b.EndVector()
    b.StartObject(8)
    b.PrependUOffsetTRelativeSlot(PackageSlot.MULTI_CHIP_PACKAGE, nothing, 0)
    b.Finish(b.EndObject(), b"DWN1")
    with pytest.raises(PackageError, match="several chips"):
        read_package(bytes(b.Output()))


def test_content_that_is_not_kept_is_not_written() -> None:
    package = small_package()
    run = package.executables[0]
    sliced = replace(run, outputs=(replace(run.outputs[0], has_slices=True),))
    with pytest.raises(PackageError, match="output out is described by slices"):
        write_package(replace(package, executables=(sliced,)))

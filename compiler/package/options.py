"""The options map of the custom operator (a flexbuffer): it carries the package."""

from __future__ import annotations

from typing import Any

from compiler.errors import PackageError
from compiler.records import record

_VERSION, CHIP_NAME, _PACKAGE, _MODE, CHIPS, _EXTRA = "1", "2", "4", "5", "6", "7"
CHIP_BEAGLE = 18
"""Number of the chip in the list under key 6."""


@record
class CustomOptions:
    """What the custom operator carries beside the package.

    Attributes
    ----------
    package:
        Bytes of the container.
    entries:
        The other keys of the map in order; the official compiler 16.0 writes 1, 5, 6 and 7.
    """

    package: bytes
    entries: tuple[tuple[str, Any], ...] = ((_VERSION, 0), (_MODE, -1), (CHIPS, (CHIP_BEAGLE,)), (_EXTRA, ()))


def read_custom_options(data: bytes | memoryview, what: str = "custom operator") -> CustomOptions:
    """Read the options map.

    Raises
    ------
    PackageError
        When the bytes are no such map.
    """
    from flatbuffers import flexbuffers

    try:
        root = flexbuffers.GetRoot(bytearray(data)).AsMap
        keys = [k.AsKey for k in root.Keys]
        if _PACKAGE not in keys:
            raise PackageError(f"{what} carries no executable package.")
        blob = root[_PACKAGE]
        text = flexbuffers.String(blob._Indirect(), blob._byte_width)
        package = bytes(text.Bytes)
        if len(package) != len(text):
            raise PackageError(f"{what} is truncated: it ends {len(text) - len(package)} bytes before its package.")
        entries = tuple((k, _value(root[k])) for k in keys if k != _PACKAGE)
    except PackageError:
        raise
    except Exception as error:  # the library checks nothing: damage ends in whatever Python raises
        raise PackageError(f"{what} carries damaged options: {error}.") from error
    return CustomOptions(package, entries)


def _value(ref: Any) -> Any:
    if ref.IsInt:
        return ref.AsInt
    if ref.IsString:
        return ref.AsString
    vector = ref.AsTypedVector if ref.IsTypedVector else ref.AsVector
    return tuple(v.AsInt for v in vector)


def write_custom_options(options: CustomOptions) -> bytes:
    """Return the bytes of the options map, as the official compiler writes them."""
    from flatbuffers import flexbuffers

    b = flexbuffers.Builder()
    values = dict(options.entries)
    with b.Map():
        for key in sorted([*values, _PACKAGE]):
            if key == _PACKAGE:
                b.Key(key)
                _add_string(b, options.package)
            elif isinstance(values[key], tuple):
                b.Key(key)
                with b.Vector():
                    for number in values[key]:
                        b.Int(number)
            elif isinstance(values[key], str):
                b.String(key, values[key])
            else:
                b.Int(key, values[key])
    return bytes(b.Finish())


def _add_string(b: Any, data: bytes) -> None:
    """Add a string that is not text: the library would want to encode it."""
    from flatbuffers.flexbuffers import Type

    b._WriteBlob(data, append_zero=True, type_=Type.STRING)

"""Immutable values: what a compilation imports declares them with :func:`record`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:
    def dataclass_transform(**_: object) -> Callable[[T], T]:
        """Mean nothing at run time; Python 3.10 has none."""
        return lambda decorated: decorated


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass, in a quarter of the time that ``@dataclass(frozen=True)`` takes.

    Records compare and hash by their fields. Before Python 3.13 generating methods is most of what importing a module of
    dataclasses costs, so only ``__init__`` is generated here and all records share the other methods. mypy sees to it that
    no field is set later; nothing does so at run time, which makes new records cheaper, too.
    """
    made: Any = dataclass(eq=False, repr=False)(cls)
    names = [f.name for f in fields(made)]
    made._values = attrgetter(*names) if names else type
    for name, method in _SHARED.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


def replaced(own: T, kept: Sequence[str], /, **changes: object) -> T:
    """Return a copy with changes, as ``dataclasses.replace`` does.

    Parameters
    ----------
    kept:
        Names of cached properties that do not depend on what changes: what is known of them is not worked out again.
    """
    copy = replace(own, **changes)  # type: ignore[type-var]
    known = vars(own)
    vars(copy).update({name: known[name] for name in kept if name in known})
    return copy


def _equal(own: Any, other: Any) -> Any:
    return own._values(own) == own._values(other) if own.__class__ is other.__class__ else NotImplemented


def _hash(own: Any) -> int:
    return hash(own._values(own))


def _text(own: Any) -> str:
    return f"{type(own).__qualname__}({', '.join(f'{f.name}={getattr(own, f.name)!r}' for f in fields(own) if f.repr)})"


_SHARED: dict[str, Callable[..., object]] = {"__eq__": _equal, "__hash__": _hash, "__repr__": _text}

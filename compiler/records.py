"""Immutable values: what a compilation imports declares them with :func:`record`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
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
    """Make a class a frozen dataclass, in a tenth of the time that ``@dataclass(frozen=True)`` takes.

    Records compare and hash by their fields. Before Python 3.13 generating methods is most of what importing a module of
    dataclasses costs, so only ``__init__`` is generated, for the first object, and all records share the other methods.
    mypy sees to it that no field is set later; nothing does so at run time, which makes new records cheaper, too.
    """
    made: Any = cls
    defaults = {name: vars(cls).get(name, MISSING) for name, kind in cls.__annotations__.items()
                if "ClassVar" not in str(kind).partition("[")[0]}
    made._defaults = {name: value for base in cls.__mro__[:0:-1] for name, value in vars(base).get("_defaults", {}).items()
                      } | defaults
    made._values = attrgetter(*made._defaults) if made._defaults else type
    made.__dataclass_fields__ = _Fields(cls)
    for name, method in {"__init__": _first_object(cls), **_SHARED}.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


class _Fields:
    """Descriptions of the fields of a record for the module ``dataclasses``, made when they are first asked for."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def __get__(self, instance: object, owner: type) -> dict[str, Any]:
        dataclass(init=False, eq=False, repr=False)(self.cls)  # puts its own in the place of this
        found: dict[str, Any] = self.cls.__dataclass_fields__
        return found


def _first_object(cls: Any) -> Callable[..., None]:
    """Return the ``__init__`` of a record's first object, which makes that of all others."""
    def __init__(own: Any, *arguments: object, **named: object) -> None:  # noqa: N807
        cls.__init__ = _initializer(cls)
        cls.__init__(own, *arguments, **named)

    return __init__


def _initializer(cls: Any) -> Callable[..., None]:
    """Write an ``__init__`` that takes the fields and keeps them."""
    scope: dict[str, Any] = {"MISSING": MISSING}
    arguments, lines = ["self"], []
    for name, default in cls._defaults.items():
        argument, value = name, name
        if isinstance(default, Field):
            if default.default_factory is not MISSING:
                argument, scope[f"make_{name}"] = f"{name}=MISSING", default.default_factory
                value = f"make_{name}() if {name} is MISSING else {name}"
            default = default.default
        if default is not MISSING:
            argument, scope[f"default_{name}"] = f"{name}=default_{name}", default
        arguments.append(argument)
        lines.append(f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    exec(f"def __init__({', '.join(arguments)}):\n " + ("; ".join(lines) or "pass"), scope)
    written: Callable[..., None] = scope["__init__"]
    written.__qualname__ = f"{cls.__qualname__}.__init__"
    return written


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

"""Less garbage collection for commands, which end soon and give all memory back at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS_UNTIL_COLLECTION = 1_000_000
"""Python's 700 cost a tenth of a compilation, whose objects nearly all stay."""


@contextmanager
def little_collection() -> Iterator[None]:
    """Collect garbage seldom, and not once more through all objects when the interpreter ends."""
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION)
    try:
        yield
    finally:
        gc.freeze()

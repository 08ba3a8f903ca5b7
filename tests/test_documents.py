"""Generated pages are current."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.beagle.isa import document as isa
from compiler.lowering.spatial.families import GENERATED
from compiler.mapping import document as mapping

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize(("name", "text"), [("isa.md", isa.document()), ("supported-operators.md", mapping.document())])
def test_page_is_what_the_tables_say(name: str, text: str) -> None:
    assert (DOCS / name).read_text() == text, f"run: python -m compiler... > docs/{name}"


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_everything_that_is_generated_says_its_limits(name: str) -> None:
    assert mapping.generated(name).endswith(".")
    assert name in mapping.SINCE_RUNTIME

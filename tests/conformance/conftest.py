"""Access to the corpus of officially compiled models; its tests skip where it is absent."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# the modules beside this file that its tests use
sys.path.insert(0, str(Path(__file__).parent))

CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "corpus"


@dataclass(frozen=True)
class Pair:
    """A source model and what the official compiler made of it."""

    name: str
    source: Path
    compiled: Path
    facts: dict[str, Any]


def load_pairs() -> list[Pair]:
    index = CORPUS / "index.jsonl"
    if not index.exists():
        return []
    rows = [json.loads(line) for line in index.read_text().splitlines() if line.strip()]
    return [Pair(r["name"], CORPUS / r["source"], CORPUS / r["compiled"], r) for r in rows]


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    found = load_pairs()
    if not found:
        pytest.skip(f"the corpus of officially compiled models is not at {CORPUS}")
    return found

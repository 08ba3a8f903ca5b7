"""A reader of the official compiler's standard output and logs, written from its published grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SIZE = r"\d+\.\d\d(?:B|KiB|MiB)"
ROW = re.compile(r"(.{31})(.{11})(.+)")
HEADER = f"{'Operator':<31}{'Count':<11}Status"
FIELDS = (
    ("Input model", r".+"), ("Input size", SIZE), ("Output model", r".+_edgetpu\.tflite"), ("Output size", SIZE),
    ("On-chip memory used for caching model parameters", SIZE),
    ("On-chip memory remaining for caching model parameters", SIZE),
    ("Off-chip memory used for streaming uncached model parameters", SIZE),
    ("Number of Edge TPU subgraphs", r"\d+"), ("Total number of operations", r"\d+"),
    ("Operation log", r".+_edgetpu\.log"),
)
NOTE = "Model successfully compiled but not all operations are supported by the Edge TPU."


@dataclass
class Block:
    """What is said of one model."""

    fields: dict[str, str] = field(default_factory=dict)
    on_edge_tpu: int | None = None
    on_cpu: int | None = None
    rows: list[tuple[str, int, str]] | None = None


@dataclass
class Compilation:
    """From the timer to the verdict; ``tries`` are the attempts of a search before it."""

    tries: list[int] = field(default_factory=list)
    tensors: list[list[str]] = field(default_factory=list)
    failures: int = 0
    blocks: list[Block] = field(default_factory=list)
    succeeded: bool = False


class Lines:
    """Lines to be consumed one after the other."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        assert self.lines.pop() == ""

    def peek(self) -> str | None:
        return self.lines[0] if self.lines else None

    def take(self, pattern: str) -> re.Match[str]:
        line = self.lines.pop(0)
        found = re.fullmatch(pattern, line)
        assert found, f"{line!r} is not {pattern!r}"
        return found

    def starts(self, text: str) -> bool:
        return bool(self.lines) and self.lines[0].startswith(text)


def parse_output(text: str) -> list[Compilation]:
    """Read everything that one call prints; AssertionError where it leaves the grammar."""
    lines = Lines(text)
    lines.take(r"Edge TPU Compiler version \d+\.\d+\.\d+")
    while lines.starts("Warning: "):
        lines.take(r".+")
    return list(_compilations(lines))


def _compilations(lines: Lines) -> Iterator[Compilation]:
    while lines.peek() is not None:
        run = Compilation()
        search = lines.starts("Searching for valid delegate")
        if search:
            lines.take(r"Searching for valid delegate with step \d+")
        while True:
            if search:
                run.tries.append(int(lines.take(r"Try to compile segment with (\d+) ops").group(1)))
                if len(run.tries) > 1:
                    run.tensors.append(lines.take(r"Intermediate tensors: (.+)").group(1).split(","))
            lines.take(r"Started a compilation timeout timer of \d+ seconds\.")
            run.succeeded = _result(lines, run)
            if run.succeeded or not lines.starts("Try to compile"):
                break
        yield run


def _result(lines: Lines, run: Compilation) -> bool:
    if lines.peek() == "":
        lines.take("")
        several = lines.take(r"Models? compiled successfully in \d+ ms\.").group(0).startswith("Models")
        lines.take("")
        run.blocks.append(_block(lines))
        while lines.peek() == "":
            lines.take("")
            run.blocks.append(_block(lines))
        assert several == (len(run.blocks) > 1)
        lines.take(r"Compilation child process completed within timeout period\.")
        lines.take("Compilation succeeded! ")
        return True
    run.failures += 1
    lines.take(r"Compilation child process completed within timeout period\.|"
               r"Compilation timeout\. This is usually caused by large activations\.")
    lines.take("Compilation failed! ")
    return False


def _block(lines: Lines) -> Block:
    block = Block()
    for name, pattern in FIELDS:
        block.fields[name] = lines.take(f"{re.escape(name)}: ({pattern})").group(1)
    if len(lines.lines) > 1 and lines.lines[1].startswith(NOTE):
        lines.take("")
        lines.take(re.escape(NOTE) + ".+")
        block.on_edge_tpu = int(lines.take(r"Number of operations that will run on Edge TPU: (\d+)").group(1))
        block.on_cpu = int(lines.take(r"Number of operations that will run on CPU: (\d+)").group(1))
    if lines.starts("See the operation log"):
        lines.take(r"See the operation log file for individual operation details\.")
    else:
        lines.take("")
        block.rows = _table(lines)
    return block


def _table(lines: Lines) -> list[tuple[str, int, str]]:
    lines.take(HEADER)
    lines.take("")
    rows = []
    while lines.peek() and ROW.fullmatch(lines.peek() or "") and (lines.peek() or "")[31:42].strip().isdigit():
        name, count, status = ROW.fullmatch(lines.lines.pop(0)).groups()  # type: ignore[union-attr]
        rows.append((name.rstrip(), int(count), status))
    return rows


def parse_log(text: str) -> list[tuple[str, int, str]]:
    """Read a .log file."""
    lines = Lines(text)
    lines.take(r"Edge TPU Compiler version \d+\.\d+\.\d+")
    lines.take(r"Input: .+")
    lines.take(r"Output: .+")
    lines.take("")
    rows = _table(lines)
    assert lines.peek() is None
    return rows

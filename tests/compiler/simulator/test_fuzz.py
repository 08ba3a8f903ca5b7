"""Bad programs end with a named error, within a budget of steps and memory.

``ETPU_FUZZ_SECONDS`` sets how long it goes on (30 by default), ``ETPU_FUZZ_SEED`` where it begins. With
the corpus of officially compiled models at hand, some of its programs are spoiled, too.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from bad_programs import spoil
from small_networks import Layers

from compiler.beagle.assembly import disassemble
from compiler.beagle.judge import try_executables
from compiler.beagle.simulator import Machine
from compiler.beagle.timing import BUSES, Costs, record, schedule
from compiler.compile import CompileOptions, compile_model
from compiler.errors import EtpuError
from compiler.graph import parse_model, read_model
from compiler.package import Executable
from compiler.package.container import packages_of

SECONDS = float(os.environ.get("ETPU_FUZZ_SECONDS", "30"))
SEED = int(os.environ.get("ETPU_FUZZ_SEED", "1"))
WORK = 1 << 22
"""Positions that a run may take here; those of the whole programs are below 2**20."""
SLOWEST = 30.0
"""Seconds of processor time that a program may take."""
MEMORY = 2 << 30
CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
SMALL = 25_000
Subject = tuple[Executable | None, Executable]


def own_programs() -> list[Subject]:
    dense, image = Layers(1), Layers(2)
    x = image.input(16, 16, 8)
    y = image.conv(image.depthwise(x), 12, stride=2)
    models = [dense.model(dense.dense(dense.dense(dense.input(200), 90, "RELU"), 10)), image.model(image.dense(y, 7))]
    packages = [p for m in models for _, p in packages_of(parse_model(compile_model(m, CompileOptions(token=1)).data))]
    return [(p.caching, p.execution) for p in packages]


def official_programs() -> list[Subject]:
    files = [f for f in sorted(CORPUS.glob("*/*_edgetpu.tflite")) if f.stat().st_size < SMALL]
    return [(p.caching, p.execution) for f in files for _, p in packages_of(read_model(f))]


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [*own_programs(), *official_programs()]


@pytest.mark.timeout(SECONDS + 300)
def test_bad_programs_end_with_a_named_error(subjects: list[Subject], capsys: pytest.CaptureFixture[str]) -> None:
    random = Random(SEED)
    endings: Counter[str] = Counter()
    slowest = 0.0
    until = time.monotonic() + SECONDS
    memory = _peak()
    number = 0
    while time.monotonic() < until:
        number += 1
        caching, execution = random.choice(subjects)
        what, bad = spoil(caching if caching is not None and random.random() < 0.2 else execution, random)
        started = time.process_time()
        for action in (_read, random.choice((_simulate, _judge, _time))):
            ending = "ran to its end"
            try:
                action(bad)
            except EtpuError as error:
                ending = type(error).__name__
                assert str(error)
            except Exception as error:
                raise AssertionError(f"case {number} of seed {SEED} ({what}, {action.__name__}): {error!r}") from error
            endings[ending] += 1
        slowest = max(slowest, time.process_time() - started)
        assert slowest < SLOWEST, f"case {number} of seed {SEED} ({what}) took {slowest:.0f} s"
        assert _peak() - memory < MEMORY, f"case {number} of seed {SEED} ({what}) took {_peak() - memory} bytes"
    with capsys.disabled():
        print(f"\n{number} bad programs of seed {SEED}: {dict(endings.most_common())}; the slowest took {slowest:.1f} s, "
              f"memory grew by {(_peak() - memory) >> 20} MiB")
    assert endings["ran to its end"] < endings.total()


def _peak() -> int:
    """Most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _inputs(executable: Executable) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {layer.name: rng.integers(0, 256, layer.size * layer.executions, np.uint8).tobytes()
            for layer in executable.inputs}


def _read(executable: Executable) -> None:
    for chunk in executable.chunks:
        disassemble(chunk.data)
        disassemble(chunk.data, raw=True)


def _simulate(executable: Executable) -> None:
    Machine(work=WORK).run(executable, _inputs(executable))


def _judge(executable: Executable) -> None:
    report = try_executables([executable], _inputs(executable), work=WORK)
    for finding in report.findings:
        if finding.kind == "stop":
            raise EtpuError(str(finding))


def _time(executable: Executable) -> None:
    schedule(record(Machine(work=WORK), executable, _inputs(executable)), Costs(), BUSES["usb3"])

"""Networks whose latency on a real Edge TPU was published, rebuilt with random weights.

Only the folder ``../shared/reference/latency`` holds measured data; what is written here says which of its rows
belong to networks that can be rebuilt. One network is one row: the median of its repeats. The series' author does
not name the bus; its rate, 384 bytes per microsecond, is that of the Dev Board's PCIe and not that of USB 3 (440), both
from the official page's VGG networks.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from small_networks import Layers

from compiler.graph import Model

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "latency"
MIB = 1 << 20
SAMPLED = 2
"""One row in so many is rebuilt: neighbours in size hardly differ, and recording all of them takes an hour."""
_CONVOLUTIONS = "villarrubia_conv_macs_measurements.csv"
_DENSE = "villarrubia_fc_macs_measurements.csv"
_SIDE, _COLOURS, _CLASSES, _KERNEL = 64, 3, 10, 9


@dataclass(frozen=True)
class Network:
    """A network of a published series.

    Attributes
    ----------
    kind:
        ``dense`` or ``convolutions`` (64 x 64 x 3, 3 x 3).
    inputs:
        Of the first dense layer.
    layers:
        Layers of ``width`` x ``width`` behind the first one.
    """

    kind: str
    inputs: int
    layers: int
    width: int

    def build(self) -> Model:
        """Return it with random weights."""
        b = Layers(seed=1)
        if self.kind == "dense":
            x = b.input(self.inputs)
            for _ in range(self.layers + 1):
                x = b.dense(x, self.width, "RELU")
            return b.model(b.dense(x, _CLASSES))
        x = b.input(_SIDE, _SIDE, _COLOURS)
        for _ in range(self.layers + 1):
            x = b.conv(x, self.width)
        return b.model(x)


@dataclass(frozen=True)
class Row:
    """A measured latency.

    Attributes
    ----------
    number:
        Place among all rows.
    off_chip:
        Bytes that the official compiler's program streams; None where nobody wrote it down.
    """

    number: int
    network: Network
    milliseconds: float
    off_chip: int | None

    @property
    def fitted(self) -> bool:
        """Every second row of the sample of even numbers is fitted; no constant depends on any other."""
        return self.number % (2 * SAMPLED) == 0


def rows() -> list[Row]:
    """Return all rows, networks of a series in the order of their size."""
    found: dict[Network, list[tuple[float, str]]] = defaultdict(list)
    for row in _read(_CONVOLUTIONS):
        width, macs = int(row["size"]), int(row["macs"])
        layers, rest = divmod(macs // (_SIDE * _SIDE * _KERNEL) - _COLOURS * width, width * width)
        if not rest:
            found[Network("convolutions", 0, layers, width)].append((float(row["inference_ms"]), row["off_chip_MiB"]))
    for row in _read(_DENSE):
        width, macs = int(row["size"]), int(row["macs"])
        for inputs in (64, 6912):
            layers, rest = divmod(macs - (inputs + _CLASSES) * width, width * width)
            if not rest and 0 <= layers < 10:
                found[Network("dense", inputs, layers, width)].append((float(row["inference_ms"]), row["off_chip_MiB"]))
                break
    ordered = sorted(found, key=lambda n: (n.kind, n.inputs, n.layers, n.width))
    return [Row(number, network, median(ms for ms, _ in found[network]), _bytes([off for _, off in found[network]]))
            for number, network in enumerate(ordered)]


def _read(name: str) -> Iterator[dict[str, str]]:
    """Yield rows of one Edge TPU alone; the number of layers behind an L in a file's name is not in its figures."""
    with (REFERENCE / name).open() as lines:
        for row in csv.DictReader(line for line in lines if not line.startswith("#")):
            whole = row["size"] and row["macs"] and row["inference_ms"]
            if whole and not any(part in row["file"] for part in ("cpu", "seg", "L30", "L10")):
                yield row


def _bytes(mebibytes: list[str]) -> int | None:
    known = [float(text) for text in mebibytes if text]
    return round(median(known) * MIB) if known else None

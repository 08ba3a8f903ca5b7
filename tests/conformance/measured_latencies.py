"""Networks whose latency on a real Edge TPU was published, rebuilt with random weights.

Only the folder ``../shared/reference/latency`` holds measured data; what is written here says which of its rows
belong to networks that can be rebuilt. One network on one bus is one row: the median of its repeats. The series' author
does not name the bus; its rate, 384 bytes per microsecond, is that of the Dev Board's PCIe and not that of USB 3 (440),
both from the official page's VGG networks.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from published_networks import NETWORKS
from small_networks import Layers

from compiler.graph import Model

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "latency"
CORPUS = REFERENCE.parents[1] / "corpus"
MIB = 1 << 20
SAMPLED = 4
"""One row of a series in so many is rebuilt: neighbours in size hardly differ, and recording all takes an hour."""
_CONVOLUTIONS = "villarrubia_conv_macs_measurements.csv"
_DENSE = "villarrubia_fc_macs_measurements.csv"
_SIDE, _COLOURS, _CLASSES, _KERNEL = 64, 3, 10, 9
_LAYERS_IN_NAME = re.compile(r"L([45])\b")
"""Hidden layers of a dense series. Where it differs from the multiplications and additions, those of L5, the bytes on and
off the chip are those of the name: 8.15 MiB for five layers of 822 behind 6912 inputs, six take 8.84."""
_PAGE = "coral_ai_benchmarks_page.csv"
_PAGE_BUSES = {"dev_board_ms": "pcie", "usb_accelerator_usb3_ms": "usb3"}
_TABLES = ("official_reference_latency_tidy.csv", "first_vs_warm_latency.csv", "nobuotsukamoto_edgetpu_latency.csv")
_HOSTS = {"aarch64": "pcie", "x86_64": "usb3", "rp3b": "usb2", "rp3b+": "usb2", "Dev Board Mini (Edge TPU on USB2)": "usb2"}
_MODELS = {
    "mobilenet_v1_1.0_224_quant_edgetpu.tflite": "MobileNet v1",
    "mobilenet_v2_1.0_224_quant_edgetpu.tflite": "MobileNet v2",
    "inception_v1_224_quant_edgetpu.tflite": "Inception v1",
    "inception_v4_299_quant_edgetpu.tflite": "Inception v4",
    "mobilenet_v2_1.0_224_inat_bird_quant": "MobileNet v2, 965 classes",
}
_HOST_PART = "a part of it runs on the host's processor, and its share of the time is not told"
_NOT_REBUILT = {
    "DenseNet": "the page does not say which DenseNet", "Unet Mv2": "its layers behind MobileNet v2 are not described",
    "rp4b": "a host whose own part, not the Edge TPU's, decides: the same files take half as long on USB 3 of a desktop",
    **dict.fromkeys((f"SpaghettiNet {size} (no postproc)" for size in "SML"), "its layers are not described"),
    "RasPi + USB": "which Raspberry Pi, so which bus, is not told",
}


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
class Published:
    """A network of the official tables, by its name there."""

    name: str
    kind: str = "official tables"

    def build(self) -> Model:
        """Return it with random weights."""
        return NETWORKS[self.name]()


@dataclass(frozen=True)
class Row:
    """A measured latency.

    Attributes
    ----------
    number:
        Place among all rows of its source.
    off_chip:
        Bytes that the official compiler's program streams; None where nobody wrote it down.
    """

    number: int
    network: Network | Published
    milliseconds: float
    off_chip: int | None = None
    bus: str = "pcie"

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
                named = _LAYERS_IN_NAME.search(row["file"])
                layers = int(named[1]) - 1 if named else layers
                found[Network("dense", inputs, layers, width)].append((float(row["inference_ms"]), row["off_chip_MiB"]))
                break
    ordered = sorted(found, key=lambda n: (n.kind, n.inputs, n.layers, n.width))
    return [Row(number, network, median(ms for ms, _ in found[network]), _bytes([off for _, off in found[network]]))
            for number, network in enumerate(ordered)]


def table_rows() -> tuple[list[Row], list[tuple[str, str]]]:
    """Return rows of the official tables, by bus and network, and what is left out of them with its reason.

    Every second network is fitted, on all of its buses.
    """
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    left_out: dict[str, str] = {}
    for model, place, milliseconds in _table_entries():
        name, bus = _MODELS.get(model, model), {**_PAGE_BUSES, **_HOSTS}.get(place, "")
        if name in NETWORKS and bus:
            found[bus, name].append(milliseconds)
        else:
            left_out[f"{model}, {place}"] = _NOT_REBUILT.get(place if name in NETWORKS else model, _HOST_PART)
    names = list(NETWORKS)
    return ([Row(SAMPLED * names.index(name), Published(name), median(times), bus=bus)
             for (bus, name), times in sorted(found.items(), key=lambda item: names.index(item[0][1]))],
            list(left_out.items()))


def _table_entries() -> Iterator[tuple[str, str, float]]:
    """Yield model, host and warm latency."""
    for row in _lines(_PAGE):
        for column in _PAGE_BUSES:
            yield row["model"], column, float(row[column])
    for table in _TABLES:
        for row in _lines(table):
            yield row["model"], row["host"], float(row.get("latency_ms") or row["warm_ms"])


def corpus_rows() -> list[tuple[Path, float]]:
    """Return official executables of the corpus that are networks of the convolution series, and their measured latencies.

    The series' author names models and rows after the filters and the multiplications and additions.
    """
    times = defaultdict(list)
    for row in _read(_CONVOLUTIONS):
        times[f"N{row['size']}-nMACs{row['macs']}_quant_edgetpu.tflite"].append(float(row["inference_ms"]))
    files = sorted(CORPUS.glob("*/N*_quant_edgetpu.tflite"))
    return [(file, median(times[file.name])) for file in files if file.name in times]


def _read(name: str) -> Iterator[dict[str, str]]:
    """Yield rows of one Edge TPU alone; the number of layers behind an L in a file's name is not in its figures."""
    for row in _lines(name):
        whole = row["size"] and row["macs"] and row["inference_ms"]
        if whole and not any(part in row["file"] for part in ("cpu", "seg", "L30", "L10")):
            yield row


def _lines(name: str) -> Iterator[dict[str, str]]:
    with (REFERENCE / name).open() as lines:
        yield from csv.DictReader(line for line in lines if not line.startswith("#"))


def _bytes(mebibytes: list[str]) -> int | None:
    known = [float(text) for text in mebibytes if text]
    return round(median(known) * MIB) if known else None

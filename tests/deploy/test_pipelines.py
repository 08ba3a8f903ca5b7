"""Segments of networks of five kinds: the balanced cut against all cuts, pipelines against the whole model."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from small_networks import EVERYTHING, Layers, random_inputs

from compiler.compile import compile_model
from compiler.errors import CompilationError
from compiler.graph import Model
from compiler.segments.balance import Cut, cut_at
from compiler.segments.compile import Segmenter, Segments
from deploy.virtual import VirtualRuntime

KINDS = ("dense", "images", "residual", "branches", "heads")
NETWORKS = [(kind, seed) for kind in KINDS for seed in range(10 if EVERYTHING else 2)]
"""Fifty with ETPU_TEST_EVERYTHING set."""
MOST_CUTS = 60
"""Every cut is tried where there are no more."""


def network(kind: str, seed: int) -> Model:
    """A chain of dense or image layers, residual blocks, joined branches, or two results with a tail on the CPU."""
    net = Layers(seed)
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(1, 5, 6)]
    if kind == "dense":
        x = net.input(400 * sizes[0])
        for size in sizes[1:]:
            x = net.dense(x, 400 * size, "RELU")
        return net.model(net.dense(x, 10), name=f"{kind}.tflite")
    x = net.conv(net.input(12, 12, 4), 8 * sizes[0], stride=1 + seed % 2)
    for size in sizes[1:4]:
        if kind == "residual":
            x = net.add(x, net.conv(net.conv(x, 8 * size), net.b.shape(x)[-1], 1, activation="NONE"))
        elif kind == "branches":
            x = net.b.concatenation([net.conv(x, 8 * size), net.conv(x, 4, 1)])
        else:
            x = net.conv(net.depthwise(x), 16 * size, 1)
    if kind == "heads":
        return net.model(net.conv(x, 4, 1), net.cpu(net.conv(x, 8)), name=f"{kind}.tflite")
    return net.model(net.dense(x, 10) if kind == "images" else net.conv(x, 6), name=f"{kind}.tflite")


def run_pipeline(segments: Segments, model: Model, inputs: list[bytes]) -> list[bytes]:
    """Run segments on virtual Edge TPUs of their own; tensors go by name."""
    device = VirtualRuntime(len(segments.models))
    known = {model.main.tensors[t].name: blob for t, blob in zip(model.main.inputs, inputs, strict=True)}
    for tpu, segment in enumerate(segments.models):
        loaded = device.load(segment.data, tpu)
        outputs, _ = loaded.run([known[t["name"]] for t in loaded.inputs])
        known.update(zip((t["name"] for t in loaded.outputs), outputs, strict=True))
    return [known[model.main.tensors[t].name] for t in model.main.outputs]


def best_of_all(segmenter: Segmenter, count: int) -> float | None:
    """Slowest segment of the best of all cuts that keep everything on the Edge TPU; None when there are too many."""
    operators = len(segmenter.order)
    cuts = [(*ends, operators) for ends in combinations(range(1, segmenter.possible + 1), count - 1)]
    if len(cuts) > MOST_CUTS:
        return None
    for ends in cuts:
        for stretch in pairwise((0, *ends)):
            segmenter.look(*stretch)
    return min(cut_at(segmenter.matrix, ends).slowest for ends in cuts)


def on_edge_tpu(segmenter: Segmenter, cut: Cut) -> int:
    """Operators of all segments that run on the Edge TPU."""
    return sum(len(segmenter.costs.on_tpu(*stretch)) for stretch in pairwise((0, *cut.ends)))


@pytest.mark.parametrize(("kind", "seed"), NETWORKS, ids=[f"{kind} {seed}" for kind, seed in NETWORKS])
def test_balanced_segments(kind: str, seed: int) -> None:
    model = network(kind, seed)
    segmenter = Segmenter(model)
    whole = compile_model(model)
    inputs = [v.tobytes() for v in random_inputs(model.main, seed)]
    expected = VirtualRuntime().run_model(whole.data, inputs)
    for count in (2, 3):
        official = segmenter.by_parameters(count)
        try:
            cut = segmenter.by_latency(count)
        except CompilationError:
            assert best_of_all(segmenter, count) in (None, float("inf"))
            continue
        assert cut.slowest <= official.slowest
        best = best_of_all(segmenter, count)
        assert best is None or cut.slowest == best
        fallen = whole.on_edge_tpu - on_edge_tpu(segmenter, official)
        print(f"{kind} {seed}: {count} segments, gain over the parameter-count cut {official.slowest / cut.slowest:.2f}"
              + (f", which leaves {fallen} more operators on the CPU" if fallen else ""))
        if count == 2 + seed % 2:
            segments = segmenter.compile(cut)
            assert sum(c.on_edge_tpu for c in segments.models) == whole.on_edge_tpu
            assert run_pipeline(segments, model, inputs) == expected

"""Train the handwritten-digits example and write it as a quantized TensorFlow Lite model.

    python examples/digits/train.py          # writes digits_mlp.tflite and digits_test.npz beside itself

The data are the 1,797 8x8 images that scikit-learn ships. Training is plain numpy; quantization
to int8 uses the training images for calibration; the file is written by etpu's own graph writer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from network import Array, Conv2d, Dense, Flatten, Layer, MaxPool, Network, Relu

from compiler.graph import Model, parse_model, serialize_model, write_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel

HELD_OUT = 450
PIXEL_SCALE = 16 / 255
"""Pixels 0..16 become int8 -128..127."""


def layers(kind: str, rng: np.random.Generator) -> list[Layer]:
    """Return the layers of a network: a multi-layer perceptron or a small convolutional one."""
    if kind == "mlp":
        return [Flatten(), Dense(64, 96, rng), Relu(), Dense(96, 48, rng), Relu(), Dense(48, 10, rng)]
    return [Conv2d(1, 16, 3, rng), Relu(), Conv2d(16, 32, 3, rng), Relu(), MaxPool(), Flatten(), Dense(512, 10, rng)]


def scale_of(values: Array) -> tuple[float, int]:
    """Return (scale, zero point) of an int8 tensor that holds these values."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = (high - low) / 255
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def quantize(network: Network, calibration: Array, flat_input: bool) -> Model:
    """Turn a trained network into an int8 graph; activation ranges come from the calibration images."""
    b = GraphBuilder("digits")
    shape = (1, 64) if flat_input else (1, *calibration.shape[1:])
    x = b.add_input(shape, scale=PIXEL_SCALE, zero_point=-128, name="image")
    values = calibration
    pending = list(network.layers)
    while pending:
        layer = pending.pop(0)
        values = layer.forward(values)
        if isinstance(layer, Flatten):
            if not flat_input:
                x = b.reshape(x, (1, values.shape[1]))
            continue
        if isinstance(layer, MaxPool):
            x = b.pool("MAX_POOL_2D", x, 2)
            continue
        fused = bool(pending) and isinstance(pending[0], Relu)
        if fused:
            values = pending.pop(0).forward(values)
        scale, zero = scale_of(values)
        w = b.quantized_weights(layer.weights["w"], per_channel=True)
        bias = b.bias(layer.weights["b"], x, w)
        emit = b.conv2d if isinstance(layer, Conv2d) else b.fully_connected
        x = emit(x, w, bias, scale=scale, zero_point=zero, activation="RELU" if fused else "NONE")
    return b.build(x, description="handwritten digits, trained on scikit-learn's data")


def accuracy(model: Model, images: npt.NDArray[np.int8], labels: npt.NDArray[np.int64]) -> float:
    """Return the share of images that the quantized model recognises in TensorFlow Lite."""
    interpreter = TfliteModel(serialize_model(model))
    shape = interpreter.inputs[0].shape
    predicted = [int(interpreter.run([image.reshape(shape)])[0].argmax()) for image in images]
    return float(np.mean(np.asarray(predicted) == labels))


def main() -> None:
    """Train, quantize, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("mlp", "conv"), default="mlp")
    parser.add_argument("--out-dir", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.float32)[..., None], digits.target.astype(np.int64)
    rng = np.random.default_rng(1)
    order = rng.permutation(len(images))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    network = Network(layers(options.kind, rng))
    network.fit(images[train] / 16, labels[train], epochs=60, batch=32, rate=3e-3, rng=rng)
    # Pixels enter the quantized graph as 0..16: fold the division into the first weights.
    first = next(layer for layer in network.layers if layer.weights)
    first.weights["w"] /= 16
    model = parse_model(serialize_model(quantize(network, images[train], options.kind == "mlp")), "digits")
    pixels = np.rint(images[test] / PIXEL_SCALE - 128).astype(np.int8)
    score = accuracy(model, pixels, labels[test])
    print(f"{options.kind}: {100 * score:.2f} % of {len(test)} held-out digits recognised after quantization to int8")
    path = options.out_dir / f"digits_{options.kind}.tflite"
    write_model(model, path)
    np.savez_compressed(options.out_dir / "digits_test.npz", inputs=pixels.reshape(len(test), -1), labels=labels[test])
    print(f"wrote {path} and digits_test.npz")


if __name__ == "__main__":
    main()

"""A few trainable layers in plain numpy: enough for small image classifiers.

Activations are float32 arrays of shape (batch, height, width, channels) or (batch, features).
Every layer has ``forward`` and ``backward``; parameters live in ``weights`` and ``gradients``,
dictionaries with the same keys, so that one optimiser serves all layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass
class Layer:
    """Base of all layers."""

    weights: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)

    def forward(self, x: Array) -> Array:
        """Return the layer's output and remember what ``backward`` needs."""
        raise NotImplementedError

    def backward(self, grad: Array) -> Array:
        """Set the gradients of the weights, return the gradient of the input."""
        raise NotImplementedError


class Dense(Layer):
    """Fully connected, weights of shape (outputs, inputs) as TensorFlow Lite has them."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        scale = np.sqrt(2 / inputs)
        super().__init__({"w": rng.normal(0, scale, (outputs, inputs)).astype(np.float32),
                          "b": np.zeros(outputs, np.float32)})

    def forward(self, x: Array) -> Array:
        """Multiply."""
        self.x = x
        return x @ self.weights["w"].T + self.weights["b"]

    def backward(self, grad: Array) -> Array:
        """Differentiate."""
        self.gradients = {"w": grad.T @ self.x, "b": grad.sum(0)}
        return grad @ self.weights["w"]


class Conv2d(Layer):
    """Convolution with SAME padding and stride 1, weights of shape (outputs, size, size, inputs)."""

    def __init__(self, inputs: int, outputs: int, size: int, rng: np.random.Generator) -> None:
        scale = np.sqrt(2 / (inputs * size * size))
        super().__init__({"w": rng.normal(0, scale, (outputs, size, size, inputs)).astype(np.float32),
                          "b": np.zeros(outputs, np.float32)})
        self.size = size

    def _patches(self, x: Array) -> Array:
        pad = self.size // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.size, self.size), (1, 2))
        return np.moveaxis(windows, 3, 5)  # batch, y, x, ky, kx, channel

    def forward(self, x: Array) -> Array:
        """Convolve."""
        self.patches = self._patches(x)
        return np.tensordot(self.patches, self.weights["w"], ([3, 4, 5], [1, 2, 3])) + self.weights["b"]

    def backward(self, grad: Array) -> Array:
        """Differentiate: the input's gradient is a convolution with the turned kernel."""
        self.gradients = {"w": np.tensordot(grad, self.patches, ([0, 1, 2], [0, 1, 2])), "b": grad.sum((0, 1, 2))}
        turned = self.weights["w"][:, ::-1, ::-1, :]
        return np.tensordot(self._patches(grad), turned, ([3, 4, 5], [1, 2, 0]))


class MaxPool(Layer):
    """Maximum of 2x2 windows."""

    def forward(self, x: Array) -> Array:
        """Pool."""
        n, h, w, c = x.shape
        windows = x.reshape(n, h // 2, 2, w // 2, 2, c)
        out: Array = windows.max((2, 4))
        self.winners = windows == out[:, :, None, :, None, :]
        return out

    def backward(self, grad: Array) -> Array:
        """Send the gradient to the winners."""
        n, h, _, w, _, c = self.winners.shape
        spread = self.winners * grad[:, :, None, :, None, :]
        return spread.reshape(n, 2 * h, 2 * w, c).astype(np.float32)


class Relu(Layer):
    """Rectifier; fused into the layer before it when the network is quantized."""

    def forward(self, x: Array) -> Array:
        """Clip below zero."""
        self.live = x > 0
        return x * self.live

    def backward(self, grad: Array) -> Array:
        """Pass where the input was positive."""
        return grad * self.live


class Flatten(Layer):
    """From images to vectors."""

    def forward(self, x: Array) -> Array:
        """Flatten."""
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad: Array) -> Array:
        """Restore the shape."""
        return grad.reshape(self.shape)


@dataclass
class Network:
    """Layers one after the other, trained with Adam on the softmax cross-entropy."""

    layers: list[Layer]

    def forward(self, x: Array) -> Array:
        """Return the logits, shape (batch, classes)."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def fit(self, x: Array, labels: npt.NDArray[np.int64], *, epochs: int, batch: int, rate: float,
            rng: np.random.Generator) -> None:
        """Train in place; the learning rate falls to zero along a cosine."""
        state = {(i, k): (np.zeros_like(w), np.zeros_like(w))
                 for i, layer in enumerate(self.layers) for k, w in layer.weights.items()}
        steps = epochs * -(-len(x) // batch)
        step = 0
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for at in range(0, len(x), batch):
                pick = order[at:at + batch]
                self._gradients(x[pick], labels[pick])
                step += 1
                self._update(state, step, rate * 0.5 * (1 + np.cos(np.pi * step / steps)))

    def _gradients(self, x: Array, labels: npt.NDArray[np.int64]) -> None:
        logits = self.forward(x)
        grad = np.exp(logits - logits.max(1, keepdims=True))
        grad /= grad.sum(1, keepdims=True)
        grad[np.arange(len(x)), labels] -= 1
        grad = (grad / len(x)).astype(np.float32)
        for layer in reversed(self.layers):
            grad = layer.backward(grad)

    def _update(self, state: dict[tuple[int, str], tuple[Array, Array]], step: int, rate: float) -> None:
        for (i, key), (mean, square) in state.items():
            g = self.layers[i].gradients[key]
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            update = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-7)
            self.layers[i].weights[key] -= (rate * update).astype(np.float32)

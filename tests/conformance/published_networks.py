"""Image networks of the official latency tables, rebuilt from the papers that describe them, with random weights.

Batch normalisation is folded into the convolutions, dropout and auxiliary heads are gone, classifiers end in SOFTMAX. All
activations share one scale: time does not depend on data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from compiler.graph import Model, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder

_SCALE = 0.1
_CLASSES = 1001
Size = int | tuple[int, int]


class Images:
    """Adds layers by tensor index; every method returns the index of its result."""

    def __init__(self, side: int) -> None:
        self._rng = np.random.default_rng(1)
        self._b = GraphBuilder(type=TensorType.UINT8)
        self.image = self._b.add_input((1, side, side, 3), scale=_SCALE, zero_point=128)

    def channels(self, x: int) -> int:
        """Return the number of channels."""
        return self._b.shape(x)[-1]

    def conv(self, x: int, outputs: int, size: Size = 3, stride: int = 1, *, activation: str = "RELU6",
             padding: str = "SAME") -> int:
        """A convolution."""
        kernel = (size, size) if isinstance(size, int) else size
        w = self._weights(outputs, *kernel, self.channels(x))
        return self._b.conv2d(x, w, self._bias(x, w, outputs), stride=stride, activation=activation, padding=padding,
                              scale=_SCALE, zero_point=128)

    def depthwise(self, x: int, size: int = 3, stride: int = 1) -> int:
        """A depthwise convolution."""
        w = self._weights(1, size, size, self.channels(x))
        return self._b.depthwise_conv2d(x, w, self._bias(x, w, self.channels(x)), stride=stride, activation="RELU6",
                                        scale=_SCALE, zero_point=128)

    def dense(self, x: int, outputs: int, activation: str = "NONE") -> int:
        """A dense layer, behind images of all their pixels."""
        inputs = math.prod(self._b.shape(x))
        flat = x if len(self._b.shape(x)) == 2 else self._b.reshape(x, (1, inputs))
        w = self._weights(outputs, inputs)
        return self._b.fully_connected(flat, w, self._bias(flat, w, outputs), activation=activation, scale=_SCALE,
                                       zero_point=128)

    def max_pool(self, x: int, size: int = 3, stride: int = 2, padding: str = "VALID") -> int:
        """Maxima of windows."""
        return self._b.max_pool(x, size, stride=stride, padding=padding)

    def average_pool(self, x: int) -> int:
        """Averages of 3 x 3 windows."""
        return self._b.average_pool(x, 3, stride=1, padding="SAME")

    def add(self, x: int, y: int, activation: str = "NONE") -> int:
        """A sum."""
        return self._b.add(x, y, scale=_SCALE, zero_point=128, activation=activation)

    def normalised(self, x: int) -> int:
        """A batch normalisation in front of a layer, with its activation: a product and a sum per channel."""
        factor, term = (self._b.constant(self._rng.integers(1, 256, self.channels(x), np.uint8), scale=0.01, zero_point=128)
                        for _ in range(2))
        product = self._b.mul(x, factor, scale=_SCALE, zero_point=128)
        return self._b.add(product, term, scale=_SCALE, zero_point=128, activation="RELU")

    def joined(self, *parts: int) -> int:
        """Channels of several images."""
        return self._b.concatenation(parts)

    def classified(self, x: int, classes: int = _CLASSES, *, pixelwise: bool = False) -> Model:
        """Average all pixels, one layer more (as a convolution, or as a dense one) and SOFTMAX."""
        pooled = self._b.average_pool(x, self._b.shape(x)[1:3], stride=1)
        scores = self._b.reshape(self.conv(pooled, classes, 1, activation="NONE"), (1, classes)) if pixelwise else (
            self.dense(pooled, classes))
        return self.finished(scores)

    def averaged(self, x: int) -> Model:
        """Average all pixels of the scores, and SOFTMAX."""
        pooled = self._b.average_pool(x, self._b.shape(x)[1:3], stride=1)
        return self.finished(self._b.reshape(pooled, (1, self.channels(x))))

    def finished(self, scores: int) -> Model:
        """SOFTMAX."""
        return parse_model(serialize_model(self._b.build([self._b.softmax(scores)])), "net.tflite")

    def _weights(self, *shape: int) -> int:
        return self._b.constant(self._rng.integers(1, 256, shape, np.uint8), scale=0.01, zero_point=128)

    def _bias(self, x: int, w: int, outputs: int) -> int:
        return self._b.bias(self._rng.normal(size=outputs), x, w)


def mobilenet_v1() -> Model:
    """Howard et al., arXiv:1704.04861."""
    n = Images(224)
    x = n.conv(n.image, 32, 3, 2)
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2),
                            (1024, 1)):
        x = n.conv(n.depthwise(x, 3, stride), outputs, 1)
    return n.classified(x, pixelwise=True)


def mobilenet_v2(classes: int = _CLASSES) -> Model:
    """Sandler et al., arXiv:1801.04381."""
    n = Images(224)
    x = n.conv(n.image, 32, 3, 2)
    for expansion, outputs, repeats, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                                (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(repeats):
            wide = x if expansion == 1 else n.conv(x, expansion * n.channels(x), 1)
            y = n.conv(n.depthwise(wide, 3, 1 if i else stride), outputs, 1, activation="NONE")
            x = n.add(x, y) if i else y
    return n.classified(n.conv(x, 1280, 1), classes, pixelwise=True)


def efficientnet_edgetpu(side: int, depth: float) -> Model:
    """EfficientNet-EdgeTPU: the first three groups expand with full convolutions."""
    n = Images(side)
    x = n.conv(n.image, 32, 3, 2, activation="RELU")
    for full, size, expansion, outputs, repeats, stride in (
            (True, 3, 4, 24, 1, 1), (True, 3, 8, 32, 2, 2), (True, 3, 8, 48, 4, 2), (False, 5, 8, 96, 5, 2),
            (False, 5, 8, 144, 4, 1), (False, 5, 8, 192, 2, 2)):
        for i in range(math.ceil(depth * repeats)):
            step, wide = 1 if i else stride, expansion * n.channels(x)
            y = n.conv(x, wide, size, step) if full else n.depthwise(n.conv(x, wide, 1), size, step)
            y = n.conv(y, outputs, 1, activation="NONE")
            x = n.add(x, y) if i else y
    return n.classified(n.conv(x, 1280, 1))


def vgg(repeats: Sequence[int]) -> Model:
    """Simonyan and Zisserman, arXiv:1409.1556."""
    n = Images(224)
    x = n.image
    for outputs, times in zip((64, 128, 256, 512, 512), repeats, strict=True):
        for _ in range(times):
            x = n.conv(x, outputs, activation="RELU")
        x = n.max_pool(x, 2)
    return n.finished(n.dense(n.dense(n.dense(x, 4096, "RELU"), 4096, "RELU"), _CLASSES - 1))


def squeezenet() -> Model:
    """Iandola et al., arXiv:1602.07360, version 1.0."""
    n = Images(224)

    def fire(x: int, squeezed: int, expanded: int) -> int:
        y = n.conv(x, squeezed, 1)
        return n.joined(n.conv(y, expanded, 1), n.conv(y, expanded, 3))

    x = n.max_pool(n.conv(n.image, 96, 7, 2))
    for squeezed, expanded in ((16, 64), (16, 64), (32, 128)):
        x = fire(x, squeezed, expanded)
    x = n.max_pool(x)
    for squeezed, expanded in ((32, 128), (48, 192), (48, 192), (64, 256)):
        x = fire(x, squeezed, expanded)
    return n.averaged(n.conv(fire(n.max_pool(x), 64, 256), _CLASSES, 1))


def inception_v1() -> Model:
    """Szegedy et al., arXiv:1409.4842, 3 x 3 in place of 5 x 5 as in its TensorFlow version."""
    n = Images(224)
    x = n.max_pool(n.conv(n.image, 64, 7, 2), padding="SAME")
    x = n.max_pool(n.conv(n.conv(x, 64, 1), 192), padding="SAME")
    blocks = ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None, (192, 96, 208, 16, 48, 64),
              (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
              (256, 160, 320, 32, 128, 128), None, (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128))
    for block in blocks:
        if block is None:
            x = n.max_pool(x, 2 if n.channels(x) > 500 else 3, padding="SAME")
            continue
        one, first, three, second, other, pooled = block
        x = n.joined(n.conv(x, one, 1), n.conv(n.conv(x, first, 1), three), n.conv(n.conv(x, second, 1), other),
                     n.conv(n.max_pool(x, 3, 1, "SAME"), pooled, 1))
    return n.classified(x, pixelwise=True)


def _chain(n: Images, x: int, *layers: tuple[int, Size] | tuple[int, Size, int]) -> int:
    """Convolutions one behind the other: outputs, size; a stride of 2 goes without padding."""
    for outputs, size, *stride in layers:
        x = n.conv(x, outputs, size, *stride, padding="VALID" if stride else "SAME")
    return x


def _stem(n: Images) -> int:
    """What Inception v4 begins with."""
    x = n.conv(_chain(n, n.image, (32, 3, 2), (32, 3, 1)), 64)
    x = n.joined(n.max_pool(x), _chain(n, x, (96, 3, 2)))
    x = n.joined(_chain(n, x, (64, 1), (96, 3, 1)), _chain(n, x, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1)))
    return n.joined(_chain(n, x, (192, 3, 2)), n.max_pool(x))


def inception_v4() -> Model:
    """Szegedy et al., arXiv:1602.07261."""
    n = Images(299)
    x = _stem(n)
    for _ in range(4):
        x = n.joined(n.conv(x, 96, 1), _chain(n, x, (64, 1), (96, 3)), _chain(n, x, (64, 1), (96, 3), (96, 3)),
                     n.conv(n.average_pool(x), 96, 1))
    x = n.joined(_chain(n, x, (384, 3, 2)), _chain(n, x, (192, 1), (224, 3), (256, 3, 2)), n.max_pool(x))
    for _ in range(7):
        x = n.joined(n.conv(x, 384, 1), _chain(n, x, (192, 1), (224, (1, 7)), (256, (7, 1))),
                     _chain(n, x, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
                     n.conv(n.average_pool(x), 128, 1))
    x = n.joined(_chain(n, x, (192, 1), (192, 3, 2)), _chain(n, x, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)),
                 n.max_pool(x))
    for _ in range(3):
        short, long = n.conv(x, 384, 1), _chain(n, x, (384, 1), (448, (3, 1)), (512, (1, 3)))
        x = n.joined(n.conv(x, 256, 1), n.conv(short, 256, (1, 3)), n.conv(short, 256, (3, 1)), n.conv(long, 256, (1, 3)),
                     n.conv(long, 256, (3, 1)), n.conv(n.average_pool(x), 256, 1))
    return n.classified(x)


def inception_resnet_v2() -> Model:
    """Szegedy et al., arXiv:1602.07261, as in its TensorFlow version; the scale of a residual is in its weights."""
    n = Images(299)

    def residual(x: int, *branches: int, activation: str = "RELU") -> int:
        return n.add(x, n.conv(n.joined(*branches), n.channels(x), 1, activation="NONE"), activation)

    x = n.max_pool(n.conv(_chain(n, n.image, (32, 3, 2), (32, 3, 1)), 64))
    x = n.max_pool(_chain(n, x, (80, 1), (192, 3, 1)))
    x = n.joined(n.conv(x, 96, 1), _chain(n, x, (48, 1), (64, 5)), _chain(n, x, (64, 1), (96, 3), (96, 3)),
                 n.conv(n.average_pool(x), 64, 1))
    for _ in range(10):
        x = residual(x, n.conv(x, 32, 1), _chain(n, x, (32, 1), (32, 3)), _chain(n, x, (32, 1), (48, 3), (64, 3)))
    x = n.joined(_chain(n, x, (384, 3, 2)), _chain(n, x, (256, 1), (256, 3), (384, 3, 2)), n.max_pool(x))
    for _ in range(20):
        x = residual(x, n.conv(x, 192, 1), _chain(n, x, (128, 1), (160, (1, 7)), (192, (7, 1))))
    x = n.joined(_chain(n, x, (256, 1), (384, 3, 2)), _chain(n, x, (256, 1), (288, 3, 2)),
                 _chain(n, x, (256, 1), (288, 3), (320, 3, 2)), n.max_pool(x))
    for i in range(10):
        x = residual(x, n.conv(x, 192, 1), _chain(n, x, (192, 1), (224, (1, 3)), (256, (3, 1))),
                     activation="NONE" if i == 9 else "RELU")
    return n.classified(n.conv(x, 1536, 1))


def resnet_v1(repeats: Sequence[int]) -> Model:
    """He et al., arXiv:1512.03385; the first convolution of a group has the stride."""
    n = Images(299)
    x = n.max_pool(n.conv(n.image, 64, 7, 2, activation="RELU"), padding="SAME")
    for group, times in enumerate(repeats):
        for i in range(times):
            stride, inner = 1 if i or not group else 2, 64 << group
            y = n.conv(n.conv(x, inner, 1, stride, activation="RELU"), inner, activation="RELU")
            short = x if i else n.conv(x, 4 * inner, 1, stride, activation="NONE")
            x = n.add(short, n.conv(y, 4 * inner, 1, activation="NONE"), "RELU")
    return n.classified(x, _CLASSES - 1)


def resnet_v2(repeats: Sequence[int]) -> Model:
    """He et al., arXiv:1603.05027; the last block of a group has the stride."""
    n = Images(299)
    x = n.max_pool(n.conv(n.image, 64, 7, 2, activation="NONE"), padding="SAME")
    for group, times in enumerate(repeats):
        for i in range(times):
            stride, inner = 2 if i == times - 1 and group < 3 else 1, 64 << group
            before = n.normalised(x)
            y = n.conv(n.conv(before, inner, 1, activation="RELU"), inner, 3, stride, activation="RELU")
            short = n.max_pool(x, 1, 2) if stride == 2 else x
            short = short if i else n.conv(before, 4 * inner, 1, activation="NONE")
            x = n.add(short, n.conv(y, 4 * inner, 1, activation="NONE"))
    return n.classified(n.normalised(x), _CLASSES - 1)


NETWORKS: dict[str, Callable[[], Model]] = {
    "MobileNet v1": mobilenet_v1,
    "MobileNet v2": mobilenet_v2,
    "Inception v1": inception_v1,
    "Inception v4": inception_v4,
    "Inception-ResNet V2": inception_resnet_v2,
    "ResNet-50 V1": lambda: resnet_v1((3, 4, 6, 3)),
    "ResNet-50 V2": lambda: resnet_v2((3, 4, 6, 3)),
    "ResNet-152 V2": lambda: resnet_v2((3, 8, 36, 3)),
    "SqueezeNet": squeezenet,
    "VGG16": lambda: vgg((2, 2, 3, 3, 3)),
    "VGG19": lambda: vgg((2, 2, 4, 4, 4)),
    "EfficientNet-EdgeTpu-S": lambda: efficientnet_edgetpu(224, 1.0),
    "EfficientNet-EdgeTpu-M": lambda: efficientnet_edgetpu(240, 1.1),
    "MobileNet v2, 965 classes": lambda: mobilenet_v2(965),
}
"""By their names in the official tables."""

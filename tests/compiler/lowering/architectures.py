"""Miniatures of the networks that people run on Edge TPUs, with seeded random weights."""

from __future__ import annotations

import numpy as np
from flatbuffers import flexbuffers
from networks import Net

from compiler.graph import Model, TensorType


def _silu(net: Net) -> Net:
    """x * sigmoid(x)."""
    x = net.x
    net.x = net.b.mul(x, net.b.logistic(x), scale=0.05, zero_point=-100)
    return net


def yolo(size: int = 64, classes: int = 3) -> Model:
    """A YOLO: convolutions with SiLU, a feature pyramid with nearest-neighbour upsampling, decoded heads of two scales."""
    net = Net((size, size, 3))
    b = net.b
    for channels in (8, 16, 24):
        _silu(net.conv(channels, 3, stride=2, activation="NONE"))
    fine = net.x
    _silu(net.conv(32, 3, stride=2, activation="NONE"))
    left, right = (_silu(net.at(net.x).conv(16, 1, activation="NONE")).x for _ in range(2))
    net.x = b.concatenation([left, right])
    coarse = _silu(net.conv(24, 1, activation="NONE")).x
    rows, columns = b.shape(fine)[1:3]
    net.x = b.concatenation([b.resize_nearest(coarse, rows, columns), fine], scale=0.05, zero_point=-100)
    _silu(net.conv(24, 1, activation="NONE"))
    heads = [_decoded(net.at(x).conv(5 + classes, 1, activation="NONE"), 5 + classes) for x in (net.x, coarse)]
    return net.finish([b.concatenation(heads, axis=1, scale=1 / 128, zero_point=-128)])


def _decoded(net: Net, values: int) -> int:
    """Boxes of a head: sigmoid, then centre, extent and scores apart."""
    b = net.b
    y = b.logistic(net.x)
    _, rows, columns, _ = b.shape(y)
    whole = [1, rows, columns]

    def part(start: int, stop: int) -> int:
        return b.strided_slice(y, [0, 0, 0, start], [*whole, stop])

    two = b.constant(np.full(2, 127, np.int8), scale=2 / 127)
    centre = b.mul(part(0, 2), two, scale=1 / 128, zero_point=-128)
    extent = part(2, 4)
    extent = b.mul(extent, extent, scale=1 / 128, zero_point=-128)
    joined = b.concatenation([centre, extent, part(4, values)], scale=1 / 128, zero_point=-128)
    return b.reshape(joined, (1, rows * columns, values))


def u_net(size: int = 32) -> Model:
    """A U-Net: two levels down by max pools, up by transposed convolution and by bilinear resizing, skips joined."""
    net = Net((size, size, 3))
    b = net.b
    first = net.conv(8).conv(8).x
    second = net.pool("MAX_POOL_2D", 2, 2).conv(16).x
    net.pool("MAX_POOL_2D", 2, 2).conv(24)
    net.transpose_conv(16, 2, stride=2)
    net.x = b.concatenation([net.x, second], scale=0.4, zero_point=net.zero)
    net.conv(12)
    net.x = b.resize_bilinear(net.x, size, size, half_pixel_centers=True)
    net.x = b.concatenation([net.x, first], scale=0.4, zero_point=net.zero)
    return net.conv(8).conv(2, 1, activation="NONE").model()


def ssd(size: int = 64, classes: int = 4, anchors: int = 3) -> Model:
    """An SSD on a small MobileNet v2: boxes and scores of two scales, joined; detection postprocessing on the CPU."""
    net = Net((size, size, 3))
    b = net.b
    net.conv(8, stride=2).depthwise(stride=2).conv(16, 1).residual().depthwise(stride=2).conv(24, 1)
    features = [net.x, net.depthwise(stride=2).conv(32, 1).x]
    boxes, scores = [], []
    for x in features:
        _, rows, columns, _ = b.shape(x)
        boxes.append(b.reshape(net.at(x).depthwise().conv(4 * anchors, 1, activation="NONE").x,
                               (1, rows * columns * anchors, 4)))
        scores.append(b.reshape(net.at(x).depthwise().conv((classes + 1) * anchors, 1, activation="NONE").x,
                                (1, rows * columns * anchors, classes + 1)))
    joined = [b.concatenation(parts, axis=1, scale=0.5, zero_point=net.zero) for parts in (boxes, scores)]
    floats = [b.dequantize(joined[0]), b.dequantize(b.logistic(joined[1]))]
    return net.finish(_detections(net, floats, classes))


def _detections(net: Net, floats: list[int], classes: int) -> list[int]:
    """TensorFlow Lite's custom operator for non-maximum suppression."""
    b, most = net.b, 10
    count = b.shape(floats[0])[1]
    anchors = b.constant(net.rng.uniform(0.1, 0.9, (count, 4)).astype(np.float32), type=TensorType.FLOAT32)
    outputs = [b.tensor(shape, type=TensorType.FLOAT32) for shape in ((1, most, 4), (1, most), (1, most), (1,))]
    options = flexbuffers.Dumps({
        "max_detections": most, "max_classes_per_detection": 1, "detections_per_class": 100, "use_regular_nms": False,
        "nms_score_threshold": 0.3, "nms_iou_threshold": 0.6, "num_classes": classes, "y_scale": 10.0, "x_scale": 10.0,
        "h_scale": 5.0, "w_scale": 5.0})
    b.custom("TFLite_Detection_PostProcess", (*floats, anchors), outputs, bytes(options))
    return outputs


def efficientnet_lite(size: int = 64, classes: int = 10) -> Model:
    """An EfficientNet-Lite: inverted bottlenecks with RELU6 and kernels of 3 and 5, residual where shapes agree."""
    net = Net((size, size, 3)).conv(16, stride=2)
    for outputs, kernel, stride, expansion in ((8, 3, 1, 1), (12, 3, 2, 6), (12, 3, 1, 6), (20, 5, 2, 6), (20, 5, 1, 6),
                                               (32, 3, 2, 6), (32, 3, 1, 6)):
        before, channels = net.x, net.b.shape(net.x)[-1]
        if expansion > 1:
            net.conv(channels * expansion, 1)
        net.depthwise(kernel, stride=stride, activation="RELU6").conv(outputs, 1, activation="NONE")
        if stride == 1 and channels == outputs:
            net.x = net.b.add(before, net.x, scale=0.5, zero_point=net.zero)
    return net.conv(64, 1).mean(keep=False).dense(classes).softmax().model()


def squeeze_excite(size: int = 32) -> Model:
    """A MobileNet v3 block: the mean of each channel decides how much of it passes."""
    net = Net((size, size, 8)).conv(16)
    b, x = net.b, net.x
    net.mean(keep=True).conv(8, 1, activation="RELU").conv(16, 1, activation="NONE")
    net.x = b.mul(x, b.logistic(net.x), scale=0.4, zero_point=net.zero)
    return net.conv(8, 1).model()


__all__ = ["efficientnet_lite", "squeeze_excite", "ssd", "u_net", "yolo"]

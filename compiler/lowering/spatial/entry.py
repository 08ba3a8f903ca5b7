"""An image that comes from the host some rows at a time, as the first layer of a strip in bands.

An official DeepLab v3 brings its image of 513 x 513 in two transfers, each followed by the layers that
shrink it, because image and results do not fit narrow memory together.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.geometry import Activation
from compiler.lowering.spatial.infeed import emit_infeed, identity_bytes, infeed_at, slots_bytes, wide_rows
from compiler.lowering.spatial.layer import Activations, Effort, Layer
from compiler.records import record


@record
class Entry(Layer):
    """The way of an image into narrow memory, ready for code generation.

    Attributes
    ----------
    port:
        Name of the host's buffer.
    size:
        Bytes of it.
    """

    name: str
    target: int
    port: str
    size: int

    @property
    def sources(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    def effort(self, target: Activation) -> Effort:
        """Return a step per byte, and about as much for its way over the ring."""
        image = target.image
        return Effort(2 * image.channels, fixed=slots_bytes(image) + identity_bytes(image))

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the identity matrix and of the lines that arrive."""
        del top
        return min(wide_rows(scenes[0][self.target].image))

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the two slots, and those in which the identity matrix is built."""
        image = scenes[0][self.target].image
        return slots_bytes(image) + identity_bytes(image)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Bring every tile what it needs."""
        target, slots = activations[self.target], emission.constants[self.name]
        emission.b.barrier()
        buffers = infeed_at(target.image, slots, slots + slots_bytes(target.image))
        emit_infeed(emission.b, buffers, target, self.port, self.size)
        emission.settled()

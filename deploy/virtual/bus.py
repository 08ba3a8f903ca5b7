"""How long transfers between host and a simulated Edge TPU take.

The rates are fits to published measurements, not specifications:

- usb3, pcie: VGG16 and VGG19 stream about 130 and 136 MB of parameters per inference; the official benchmark page gives
  296 and 308 ms on USB 3 and 343 and 357 ms on the Dev Board (PCIe), which is 440 and 380 MB/s for both networks.
- usb2: first minus warm latency over the cached parameters: 202 ms for 6.5 MB (Raspberry Pi 3), 146 ms for 4 MB
  (Dev Board Mini).
- overhead: networks of a few cached layers take 0.11 ms and more whatever their size.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_MEGAHERTZ = 500.0
"""Clock of the chip with libedgetpu1-max, cycles per microsecond."""


@dataclass(frozen=True)
class Bus:
    """A way of attaching an Edge TPU.

    Attributes
    ----------
    bytes_per_us:
        Sustained rate in either direction.
    overhead_us:
        Cost of one submission to the chip, its interrupt included.
    """

    name: str
    bytes_per_us: float
    overhead_us: float

    def transfer_us(self, size: int) -> float:
        """Return the microseconds that `size` bytes take."""
        return size / self.bytes_per_us


BUSES = {
    bus.name: bus
    for bus in (
        Bus("usb2", bytes_per_us=30.0, overhead_us=250.0),
        Bus("usb3", bytes_per_us=440.0, overhead_us=110.0),
        Bus("pcie", bytes_per_us=380.0, overhead_us=60.0),
    )
}

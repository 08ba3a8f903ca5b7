"""Timing: what a run takes on the chip and on a bus."""

"""The chip inside an Edge TPU (code name beagle): instruction set, simulator, cycle model."""

"""The compiler floor: TensorFlow Lite models in, Edge TPU executables out."""

"""Read and write TensorFlow Lite files; the immutable graph that passes work on."""

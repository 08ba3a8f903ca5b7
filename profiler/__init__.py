"""The profiler floor: what is measured on devices and how it is reported."""

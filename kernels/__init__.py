"""Triton kernels, one file an op, imported on first launch. `define` in the package's `_library` finds them by name."""

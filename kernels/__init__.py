"""Triton kernels, one file an op, imported on first launch."""

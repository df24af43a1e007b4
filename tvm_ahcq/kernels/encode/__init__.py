"""Kernels that quantize float32 activations to codes."""

"""Quantization of weights, and changes of weights that precede it."""

"""Vector expressions, dot products and fixed-point arithmetic that kernels share."""

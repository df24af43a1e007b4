"""Grouped-scale integer GEMM kernels."""

"""Kernels of operators that stay in float32."""

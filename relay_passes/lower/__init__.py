"""Passes that lower a realised module to kernels."""

"""Quantizers of activations."""

"""Tuning of accelerator programs by simulated cycles."""

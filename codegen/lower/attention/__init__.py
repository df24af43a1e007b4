"""Lowering of attention to accelerator programs."""

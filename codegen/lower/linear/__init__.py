"""Lowering of linear layers to accelerator programs."""

"""Lowering of linear layers to accelerator programs."""

from tvm_ahcq._deprecated import moved_attributes

__getattr__ = moved_attributes(__name__, "program")

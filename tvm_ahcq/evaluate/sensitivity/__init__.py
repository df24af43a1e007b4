"""Sensitivity analysis: errors by site, layer and weight."""

from tvm_ahcq._deprecated import moved_attributes

__getattr__ = moved_attributes(__name__, "measure")

"""HTML and SVG reports."""

from tvm_ahcq._deprecated import moved_attributes

__getattr__ = moved_attributes(__name__, "report")

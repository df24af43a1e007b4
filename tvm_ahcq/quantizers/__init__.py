"""Mathematics of the quantizers, without TVM: parameters, calibration, codes, tables; see docs/quantizers.md.

numpy, and torch where a matrix is decomposed. :mod:`tvm_ahcq.calibrate` runs it on models.
"""

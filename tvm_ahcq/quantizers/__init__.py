"""Pure mathematics of the quantizers, in numpy: parameters, calibration, tables. Knows nothing of TVM or torch."""

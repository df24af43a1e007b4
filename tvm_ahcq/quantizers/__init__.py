"""Pure mathematics of the quantizers, parameters, calibration, tables, in numpy; learned and
error-compensated rounding and conditioning, in torch. Knows nothing of TVM."""

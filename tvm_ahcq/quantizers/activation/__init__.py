"""Activation quantizers: parameters, encoding and calibration of each."""

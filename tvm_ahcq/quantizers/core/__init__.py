"""Codebooks, quantizer parameters, the integer reference, recipes and the quantization table."""

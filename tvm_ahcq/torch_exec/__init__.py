"""Execution of Relax functions in torch: float, simulated quantization, and quantization with gradients."""

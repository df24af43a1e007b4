"""Accelerator devices: simulators and boards, their checks."""

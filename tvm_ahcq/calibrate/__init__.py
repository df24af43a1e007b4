"""Runs Relax functions in torch: for calibration, reconstruction, and as the fake-quant reference."""

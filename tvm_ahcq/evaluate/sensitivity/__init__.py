"""Sensitivity analysis: errors by site, layer and weight."""

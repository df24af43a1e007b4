"""Tuning of kernel schedules for a processor."""

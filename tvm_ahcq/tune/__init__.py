"""Finds the fastest schedules of our kernels on a processor, and keeps them for the compiler."""

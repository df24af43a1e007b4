"""Segment Anything (SAM 1)."""

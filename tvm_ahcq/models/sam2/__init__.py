"""Segment Anything 2 (SAM 2): pictures."""

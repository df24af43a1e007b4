"""SAM 2: sizes of its image encoders."""

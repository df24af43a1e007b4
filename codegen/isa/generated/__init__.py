"""Files that ``generate.py`` makes from ``isa.yaml`` and ``configs.yaml``."""

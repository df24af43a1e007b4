"""Files that ``generate.py`` writes from ``isa.yaml`` and ``configs.yaml``."""

"""From RTL to bitstreams and resource counts with tools from PyPI; see ``build.py``."""

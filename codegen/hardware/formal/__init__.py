"""Formal proofs of the RTL's arithmetic and queues; see ``proofs.py``."""

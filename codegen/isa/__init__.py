"""Instruction set: definition, generated forms, encoding, memory layouts, configurations."""

"""The numpy model: what the accelerator does, defined by a program that can be read."""

"""Work up to which a loop runs on the calling thread, by the kind of its steps.

Waking the threads of the pool costs some microseconds, and very long where the machine is busy. Every limit stands for
about that time, so that a loop below it is done sooner by one thread. Sizes that are not constant (prompts, points) are
compared when the kernel runs; schedules of TVM's own operators count them as 1.
"""

from __future__ import annotations

SERIAL_ELEMENTS = 1 << 14
"""Elements to load, convert and store: encoders, layer norm, element-wise operators of TVM."""

SERIAL_MACS = 1 << 18
"""float32 multiply-adds in vectors."""

SERIAL_LOGITS = 1 << 12
"""Logits of an attention: a dot product, an exponential and an encoding each."""

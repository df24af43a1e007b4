"""What an object's memory holds, and which of it a frame reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .spec import Sam2Spec


@dataclass(eq=False)
class Output:
    """What was found of one object on one frame.

    Attributes
    ----------
    frame : int
        Its number.
    mask : numpy.ndarray
        ``(1, 1, 4h, 4w)`` logits, holes filled; float32, or float16 once the memory was dropped.
    pointer : numpy.ndarray
        ``(1, C)`` float32.
    score : numpy.ndarray
        ``(1, 1)`` float32 logit: the object is there if it is positive.
    prompted : bool
        Whether it answers a prompt.
    memory : numpy.ndarray or None
        ``(1, hw, c)`` in the executor's own dtype; None until it is needed.
    """

    frame: int
    mask: np.ndarray
    pointer: np.ndarray
    score: np.ndarray
    prompted: bool
    memory: np.ndarray | None = None


class Limits(NamedTuple):
    """Bounds of a memory bank.

    Attributes
    ----------
    outputs : int
        Outputs of unprompted frames that are kept, the latest ones.
    memories : int
        How many of these keep their encoded memory.
    conditioning : int or None
        Conditioning frames that are kept, the latest ones; None for all.
    """

    outputs: int
    memories: int
    conditioning: int | None = None


class MemoryBank:
    """Outputs of one object: those of conditioning frames, and the latest of the others.

    Parameters
    ----------
    limits : Limits
        How much is kept.

    Attributes
    ----------
    conditioning : dict of int to Output
        By frame, in the order in which they were prompted.
    others : dict of int to Output
        By frame, the latest last.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.conditioning: dict[int, Output] = {}
        self.others: dict[int, Output] = {}
        self._remembered: dict[int, Output] = {}

    def get(self, frame: int) -> Output | None:
        """Return the output of a frame, whether it is a conditioning frame or not."""
        return self.conditioning.get(frame) or self.others.get(frame)

    def add_conditioning(self, output: Output) -> None:
        """Keep the output of a conditioning frame in place of any other of that frame."""
        self.forget(output.frame)
        self.conditioning[output.frame] = output
        most = self._limits.conditioning
        if most is not None and len(self.conditioning) > most:
            del self.conditioning[next(iter(self.conditioning))]

    def add(self, output: Output) -> None:
        """Keep the output of another frame; what exceeds the limits is dropped, the oldest first."""
        self.forget(output.frame)
        self.others[output.frame] = output
        self.mark_remembered(output)
        while len(self.others) > self._limits.outputs:
            self.forget(next(iter(self.others)))

    def mark_remembered(self, output: Output) -> None:
        """Count an output that has got its memory; when there are too many, the oldest one loses it."""
        if self.others.get(output.frame) is not output:
            return
        self._remembered.pop(output.frame, None)
        self._remembered[output.frame] = output
        while len(self._remembered) > self._limits.memories:
            old = self._remembered.pop(next(iter(self._remembered)))
            old.memory, old.mask = None, old.mask.astype(np.float16)

    def forget(self, frame: int) -> None:
        """Drop what is kept of a frame that is no conditioning frame."""
        self.others.pop(frame, None)
        self._remembered.pop(frame, None)

    def demote(self, frame: int) -> bool:
        """Make a conditioning frame one of the others; False if it is none."""
        output = self.conditioning.pop(frame, None)
        if output is not None:
            self.add(output)
        return output is not None


class Reading(NamedTuple):
    """What a frame reads of one object.

    Attributes
    ----------
    memories : list of (int, Output)
        With the slot of each.
    pointers : list of (float, Output)
        With the distance of each, divided by the greatest one.
    """

    memories: list[tuple[int, Output]]
    pointers: list[tuple[float, Output]]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return memories ``(M, hw, c)``, slots ``(M,)``, pointers ``(P, C)`` and distances ``(P,)``."""
        memories = [output.memory for _, output in self.memories if output.memory is not None]
        slots = np.array([slot for slot, _ in self.memories], np.int64)
        pointers = [output.pointer for _, output in self.pointers]
        channels = self.memories[0][1].pointer.shape[1]
        joined = np.concatenate(pointers) if pointers else np.zeros((0, channels), np.float32)
        return np.concatenate(memories), slots, joined, np.array([far for far, _ in self.pointers], np.float32)


def read(spec: Sam2Spec, bank: MemoryBank, frame: int, frames: int, reverse: bool) -> Reading:
    """Choose the memories and pointers that a frame reads, in upstream's order.

    Upstream's ``_prepare_memory_conditioned_features``: the nearest conditioning frames; the frames just before this
    one, in the direction of travel; pointers of both.

    Parameters
    ----------
    spec : Sam2Spec
        Figures of the model.
    bank : MemoryBank
        Of the object; with a conditioning frame.
    frame : int
        Number of the frame that reads.
    frames : int
        Number of frames of the video.
    reverse : bool
        Whether the video is tracked towards its beginning.
    """
    chosen, rest = nearest(frame, bank.conditioning, spec.max_conditioning)
    spare = {each: bank.conditioning[each] for each in rest}

    def at(number: int) -> Output | None:
        return bank.others.get(number) or spare.get(number)

    memories = [(0, bank.conditioning[each]) for each in chosen]
    for slot in range(1, spec.memories):
        output = at(_frame_of_slot(spec, frame, slot, reverse))
        if output is not None:
            memories.append((slot, output))

    most = min(frames, spec.max_pointers)
    distances = []
    for each in chosen:
        before = each - frame if reverse else frame - each
        if before >= 0 or not spec.past_pointers_only:
            distances.append((before if spec.signed_distances else abs(before), bank.conditioning[each]))
    for back in range(1, most):
        number = frame + back if reverse else frame - back
        output = at(number) if 0 <= number < frames else None
        if output is not None:
            distances.append((back, output))
    return Reading(memories, [(far / max(most - 1, 1), output) for far, output in distances])


def reach(spec: Sam2Spec) -> int:
    """Return how many frames back the furthest memory is that a frame reads, conditioning frames apart."""
    return 1 + spec.memory_stride * (spec.memories - 1)


def nearest(frame: int, conditioning: Iterable[int], most: int) -> tuple[list[int], list[int]]:
    """Return the conditioning frames that a frame reads, and the rest (upstream, ``select_closest_cond_frames``).

    The nearest one before it, the nearest one not before it, then the nearest of the others; all if `most` is -1.
    """
    numbers = list(conditioning)
    if most == -1 or len(numbers) <= most:
        return numbers, []
    before = max((each for each in numbers if each < frame), default=None)
    after = min((each for each in numbers if each >= frame), default=None)
    chosen = [each for each in (before, after) if each is not None]
    others = sorted((each for each in numbers if each not in chosen), key=lambda each: abs(each - frame))
    chosen += others[: most - len(chosen)]
    return chosen, [each for each in numbers if each not in chosen]


def _frame_of_slot(spec: Sam2Spec, frame: int, slot: int, reverse: bool) -> int:
    """Return the frame whose memory has a slot: the last one, and every `memory_stride`-th before it."""
    back, stride = spec.memories - slot, spec.memory_stride
    if back == 1:
        return frame + 1 if reverse else frame - 1
    if reverse:
        return -(-(frame + 2) // stride) * stride + (back - 2) * stride
    return (frame - 2) // stride * stride - (back - 2) * stride

"""Runs one Relax function on many inputs a step at a time, in two streams: float, and as quantized so far.

A layer can so be changed with the inputs of every image at hand, those that it has in the float model and those that
the layers before it leave it, and what follows sees the change: one pass over the graph rounds a whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tvm_ahcq.models.execution import Driver

from .executor import Program, Step, TorchExecutor
from .simulate import Sites, using_sites

LAYERS = ("relax.ahcq.linear", "relax.ahcq.conv2d")
"""Operators that a visitor is called before."""

Inputs = Sequence[Sequence[Any]]
"""Inputs of a function, for each image."""

Visitor = Callable[[str, list[tuple[torch.Tensor, torch.Tensor]]], None]
"""Called with a layer's name and, for each image, its input in the float and in the quantized stream."""


@dataclass(frozen=True)
class Streams:
    """Behaviour of the two streams at quantization sites.

    Attributes
    ----------
    float : Sites
        Leaves everything in float; may record what passes.
    quantized : Sites
        The network as quantized so far.
    """

    float: Sites
    quantized: Sites


class Lockstep:
    """A run of one function on many inputs in two streams.

    Parameters
    ----------
    executor : TorchExecutor
        Of the annotated module.
    function : str
        Relax function to run.
    streams : Streams
        What happens at sites.
    inputs : sequence of (sequence, sequence)
        For each image the function's inputs in the float and in the quantized stream.
    """

    def __init__(self, executor: TorchExecutor, function: str, streams: Streams, inputs: Sequence[tuple]):
        self.program = executor.program(function)
        self.streams = streams
        self.runs = [tuple(executor.start(function, *stream) for stream in pair) for pair in inputs]

    def run(self, visit: Visitor | None = None) -> list[tuple[Any, Any]]:
        """Run to the end; `visit` is called before each layer. Results of each image in both streams."""
        self.advance(0, len(self.program.steps), visit)
        return [tuple(self.program.result(values) for values in pair) for pair in self.runs]

    def advance(self, first: int, last: int, visit: Visitor | None = None) -> None:
        """Run the steps from `first` to before `last` on every image."""
        for step in self.program.steps[first:last]:
            if visit is not None and step.op in LAYERS:
                visit(step.attrs.name, [tuple(step.arguments[0](values) for values in pair) for pair in self.runs])
            for pair in self.runs:
                for values, sites in zip(pair, (self.streams.float, self.streams.quantized), strict=True):
                    with using_sites(sites):
                        step.run(values)


def drive_in_step(
    drivers: Sequence[Sequence[Driver]], execute: Callable[[str, list[tuple[Sequence[Any], ...]]], list[tuple]]
) -> None:
    """Run drivers that make the same calls, all calls of a kind at once.

    Parameters
    ----------
    drivers : sequence of sequence of Driver
        For each sample, a driver for each stream.
    execute : callable
        ``execute(function, inputs) -> outputs``: inputs and outputs of each sample, for each stream. It raises
        :class:`Finished` to end the run.
    """
    try:
        calls = [[next(driver) for driver in streams] for streams in drivers]
        while calls:
            outputs = execute(calls[0][0].function, [tuple(call.inputs for call in each) for each in calls])
            calls = [
                [driver.send(output) for driver, output in zip(*pair, strict=True)]
                for pair in zip(drivers, outputs, strict=True)
            ]
    except (StopIteration, Finished):
        return


class Finished(Exception):
    """Ends :func:`drive_in_step` before its drivers end."""


@dataclass(frozen=True)
class Unit:
    """A part of a function that is reconstructed as one.

    Attributes
    ----------
    name : str
        Of the module that its layers are in.
    layers : tuple of str
        Names.
    first, last : int
        Its steps, from `first` to before `last`.
    outputs : tuple of int
        Slots that its steps fill and later ones read.
    """

    name: str
    layers: tuple[str, ...]
    first: int
    last: int
    outputs: tuple[int, ...]


def units(program: Program, name_of: Callable[[str], str | None]) -> list[Unit]:
    """Cut a function into units where the least is handed on.

    Parameters
    ----------
    program : Program
        Of the function.
    name_of : callable
        Unit that a layer belongs to, by the layer's name; None if it belongs to none. A unit's layers follow one
        another in the graph.
    """
    members: dict[str, list[tuple[int, str]]] = {}
    for layer, place in layer_steps(program.steps).items():
        if (name := name_of(layer)) is not None:
            members.setdefault(name, []).append((place, layer))
    alive = _alive(program)
    found, first = [], 0
    ordered = list(members.items())
    for index, (name, own) in enumerate(ordered):
        after = ordered[index + 1][1][0][0] if index + 1 < len(ordered) else own[-1][0] + 1
        last = min(range(own[-1][0] + 1, after + 1), key=lambda place: (len(alive[place]), place))
        filled = {step.slot for step in program.steps[first:last]}
        outputs = tuple(sorted(alive[last] & filled))
        found.append(Unit(name, tuple(layer for _, layer in own), first, last, outputs))
        first = last
    return found


def _alive(program: Program) -> list[set[int]]:
    """Computed slots that hold a value before each step, and after the last."""
    alive: list[set[int]] = []
    now: set[int] = set()
    for step in program.steps:
        alive.append(set(now))
        now = (now | {step.slot}) - set(step.dead)
    return [*alive, now]


def layer_steps(steps: Sequence[Step]) -> dict[str, int]:
    """Place of each layer's step, by name of the layer, in graph order."""
    return {step.attrs.name: place for place, step in enumerate(steps) if step.op in LAYERS}

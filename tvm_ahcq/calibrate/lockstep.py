"""Runs one Relax function on many inputs a step at a time, in two streams: float, and as quantized so far.

A layer can so be changed with the inputs of every image at hand, those that it has in the float model and those that the
layers before it leave it, and what follows sees the change: one pass over the graph rounds a whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..op.simulate import Sites, using_sites
from .executor import Step, TorchExecutor

LAYERS = ("relax.ahcq.linear", "relax.ahcq.conv2d")
"""Operators that a visitor is called before."""

Inputs = Sequence[Sequence[Any]]
"""Inputs of a function, for each image."""

Visitor = Callable[[str, list[tuple[torch.Tensor, torch.Tensor]]], None]
"""Called with a layer's name and, for each image, its input in the float and in the quantized stream."""


@dataclass(frozen=True)
class Streams:
    """What the two streams do at quantization sites.

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


def layer_steps(steps: Sequence[Step]) -> dict[str, int]:
    """Place of each layer's step, by name of the layer, in graph order."""
    return {step.attrs.name: place for place, step in enumerate(steps) if step.op in LAYERS}

"""The compiled integer module against the numpy reference of the same graph."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.relay_passes.lower.build import generate_code, lower
from tvm_ahcq.runtime.weights import QLinearWeight, expand
from tvm_ahcq.target import resolve_target
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import SimulatedSites, exact_layer_norm, using_sites


class Compiled:
    """A realised model, compiled, and the same graph run by the reference."""

    def __init__(self, quantized: QuantizedModel, target: str):
        host = resolve_target(target)
        realised = quantized.realise(host.layout)
        self.machine = relax.VirtualMachine(generate_code(lower(realised.module, host), host), tvm.cpu())
        flat: dict[str, np.ndarray] = {}
        self.arguments = {}
        for function, names in realised.function_params.items():
            arrays = []
            for name in names:
                value = realised.tensors[name]
                parts = expand(value) if isinstance(value, QLinearWeight) else (value,)
                suffixes = ("_packed", "_multiplier", "_correction") if len(parts) == 3 else ("",)
                flat |= {name + suffix: part for suffix, part in zip(suffixes, parts, strict=True)}
                arrays += parts
            self.arguments[function] = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        self.reference = TorchExecutor(realised.module, flat, {"relax.nn.layer_norm": exact_layer_norm})

    def run(self, function: str, *inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs of the compiled function."""
        result = self.machine[function](*map(tvm.runtime.tensor, inputs), *self.arguments[function])
        return [result.numpy()] if hasattr(result, "numpy") else [part.numpy() for part in result]

    def expect(self, function: str, *inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs of the reference."""
        with using_sites(SimulatedSites({})):  # what stays in float is summed in float64, as it is when compiled
            result = self.reference.run(function, *inputs)
        return [part.numpy() for part in (result if isinstance(result, tuple) else (result,))]


@pytest.fixture(scope="module", params=["native-4", "native-8", "generic-4"])
def compiled(request, quantize_tiny) -> Compiled:
    """Compiled for what the machine can do best at 4 and at 8 bits, and for what every machine can do."""
    target, _, bits = request.param.partition("-")
    return Compiled(quantize_tiny(int(bits)), target)


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to float32 sums, and to what follows from a code or two that lay on their threshold.

    Sines of positions are libm's in one and LLVM's in the other, an ulp apart: which side such a code falls to depends
    on the calibration, and so on the machine. One code of 8 bits moves masks by 0.1 to 0.5 % of their spread.
    """
    assert found.shape == expected.shape
    assert np.sqrt(np.square(found - expected).mean()) <= 0.02 * expected.std() + 1e-4


@pytest.mark.parametrize("function", ["encode_image", "decode", "decode_mask"])
def test_compiled_functions_equal_the_reference(compiled, prompts, function):
    got, expected = (f(function, *prompts[function]) for f in (compiled.run, compiled.expect))
    if function == "encode_image":  # no sines: equal to the last place but for the order of float sums
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-4, atol=1e-5)
    for a, b in zip(got, expected, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize(("batch", "points"), [(1, 1), (1, 2), (5, 1), (2, 9), (1, 0)])
def test_any_number_of_prompts_and_points_runs_without_recompiling(compiled, prompts, batch, points):
    embedding = prompts["decode"][0]
    rng = np.random.default_rng(batch + 10 * points)
    coords = rng.uniform(0, 128, (batch, points, 2)).astype(np.float32)
    labels = rng.integers(-1, 4, (batch, points)).astype(np.float32)
    mask = rng.normal(size=(batch, 1, 32, 32)).astype(np.float32)
    for function, inputs in (
        ("decode", (embedding, coords, labels)),
        ("decode_mask", (embedding, coords, labels, mask)),
    ):
        got, expected = (f(function, *inputs) for f in (compiled.run, compiled.expect))
        assert got[0].shape == (batch, 4, 32, 32) and got[1].shape == (batch, 4)
        for a, b in zip(got, expected, strict=True):
            assert_equal(a, b)

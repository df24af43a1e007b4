"""Linear layers, and results of attentions, for the tests of lowering."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.quantizers.core.reference import grouped_linear
from tvm_ahcq.runtime.weights import QLinearWeight, expand


@pytest.fixture
def layer() -> Callable[..., LinearLayer]:
    """Makes layers with random parameters.

    The least and the greatest weight of `bits` bits occur; the last two channels of each group are padding.
    """

    def make(rng, outputs, sizes, zero_points, bits=4) -> LinearLayer:
        index, columns = [], 0
        for size in sizes:
            index += [*range(columns, columns + size - 2), -1, -1]
            columns += size - 2
        codes = rng.integers(0, 2**bits, (outputs, columns)).astype(np.uint8)
        codes[0], codes[1] = 0, 2**bits - 1
        weight = QLinearWeight(
            codes,
            bits,
            scale=rng.uniform(1e-3, 1e-2, outputs).astype(np.float32),
            zero_point=np.full(outputs, 2 ** (bits - 1), np.uint8),
            index=np.array(index, np.int32),
            group_sizes=tuple(sizes),
            group_scale=rng.uniform(0.1, 1, len(sizes)).astype(np.float32),
            group_zero_point=np.asarray(zero_points, np.int32),
            layout="rows",
        )
        return LinearLayer(weight, rng.normal(size=outputs).astype(np.float32))

    return make


@pytest.fixture
def host_linear() -> Callable[[np.ndarray, LinearLayer], np.ndarray]:
    """Computes a layer as the host's kernels do."""

    def compute(codes: np.ndarray, layer: LinearLayer) -> np.ndarray:
        packed, multiplier, correction = expand(layer.weight)
        return grouped_linear(codes, packed, layer.weight.group_sizes, multiplier, correction, layer.bias)

    return compute


@pytest.fixture
def attention_results() -> Callable[[OffloadedOp, bytes], np.ndarray]:
    """Computes what an attention gives, ``(heads, queries, channels)``, from what its program leaves in memory."""

    def compute(operator: OffloadedOp, memory: bytes) -> np.ndarray:
        output = operator.output
        shape = output.batch, output.blocks, len(output.row_at), output.dim
        words = np.frombuffer(memory, np.int32, int(np.prod(shape)), output.address).reshape(shape)
        order = [list(output.row_at).index(query) for query in range(output.rows)]
        columns = words.swapaxes(1, 2).reshape(output.batch, len(output.row_at), -1)[:, order]
        channels = output.multiplier.shape[1]
        total = output.divisor * columns[..., channels : channels + 1]
        return columns[..., :channels].astype(np.float32) * (output.multiplier / total.astype(np.float32))

    return compute

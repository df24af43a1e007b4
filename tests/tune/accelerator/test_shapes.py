"""The shapes that an accelerator is tuned for without a bundle are those of SAM's encoders."""

from __future__ import annotations

import pytest
from torch import nn

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.models.sam.load import build_module
from tvm_ahcq.runtime.operator_shapes import AttentionShape, LinearShape
from tvm_ahcq.tune.accelerator.shapes import encoder_shapes, tile_encoders


@pytest.mark.parametrize("name", tile_encoders())
def test_encoders_have_these_operators(name: str):
    encoder = build_module(name).image_encoder
    shapes = encoder_shapes(name, named("ecp5_16x16"))
    layers = {(layer.out_features, layer.in_features) for layer in encoder.modules() if isinstance(layer, nn.Linear)}
    layers |= {
        (layer.out_channels, layer.in_channels * layer.kernel_size[0] ** 2)
        for layer in encoder.neck
        if isinstance(layer, nn.Conv2d)
    }
    assert {(shape.outputs, shape.channels) for shape in shapes if isinstance(shape, LinearShape)} == layers
    heads = {(block.attn.num_heads, block.window_size) for block in encoder.blocks}
    attentions = [shape for shape in shapes if isinstance(shape, AttentionShape)]
    # 64 x 64 tokens make 5 x 5 windows of 14 x 14, padded; or one picture
    assert {(shape.heads, shape.sides[0]) for shape in attentions} == {
        (count * (25 if window else 1), window or 64) for count, window in heads
    }
    for shape in attentions:
        (head,) = {block.attn.qkv.in_features // block.attn.num_heads for block in encoder.blocks}
        assert shape.channels == head and shape.queries == shape.keys == shape.sides[0] * shape.sides[1]
    assert {shape.rows for shape in shapes if isinstance(shape, LinearShape)} == {4096, 4900}


def test_channels_are_padded_to_words_of_the_array():
    layer = encoder_shapes("vit_h", named("zu_64x64"))[0]
    assert (layer.channels, layer.group_sizes, layer.words) == (1280, (320,) * 4, (2, 2))
    layer = encoder_shapes("vit_b", named("ecp5_32x32"))[-3]
    assert (layer.outputs, layer.channels, layer.group_sizes, layer.words) == (256, 2304, (2304,), (1,))

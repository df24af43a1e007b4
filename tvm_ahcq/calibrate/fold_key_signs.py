"""BIG, the driver: fold the signs of bimodal keys into their projections, before calibration.

See docs/quantizers.md#big; the mathematics is in :mod:`tvm_ahcq.quantizers.weight.big`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from tvm.ir import IRModule

from tvm_ahcq.quantizers.weight.big import channel_signs, estimate_density
from tvm_ahcq.quantizers.weight.equalise import SIGNS
from tvm_ahcq.relay_passes.annotate import layers

from .recorder import Recorder


def fold_key_signs(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    recorder: Recorder,
    attentions: str,
    zero_erases: bool = False,
) -> dict[str, np.ndarray]:
    """Make the keys of attentions unimodal where they are bimodal.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    recorder : Recorder
        What passes the sites of the float model.
    attentions : str
        Regular expression for the attentions whose signs may be folded
        (:attr:`tvm_ahcq.models.description.ModelFamily.foldable_signs`).
    zero_erases : bool
        The published slip (:func:`tvm_ahcq.quantizers.weight.big.channel_signs`).

    Returns
    -------
    dict of str to numpy.ndarray
        Changes for :func:`tvm_ahcq.quantizers.weight.equalise.apply_equalisation`: signs of query and key channels.
    """
    changes: dict[str, np.ndarray] = {}
    for name, layer in layers(mod).items():
        attention, _, role = name.rpartition(".")
        if role != "k_proj" or not re.fullmatch(attentions, attention) or layer.bias is None:
            continue
        rows = np.concatenate(recorder.rows[layer.site])
        keys = rows @ params[layer.weight].T + params[layer.bias]
        if estimate_density(keys).bimodal:
            changes[f"{attention}.{SIGNS}"] = channel_signs(keys, zero_erases=zero_erases).astype(np.float64)
    return changes

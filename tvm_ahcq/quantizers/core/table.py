"""The quantization table: every site's quantizer, every weight's scales and codes.

Quantizers and scales are JSON that people can read and edit; codes and changed float parameters go to a sidecar
(:mod:`.table_sidecar`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.atomic_file import atomic_file
from tvm_ahcq.errors import QuantTableError, RecipeError
from tvm_ahcq.quantizers.activation import agq, cag, hluq, lnq, row_relative, uniform  # noqa: F401  (they register their kinds)
from tvm_ahcq.quantizers.published import hluq as hluq_published  # noqa: F401  (they register their kinds)
from tvm_ahcq.quantizers.weight.weights import SYMMETRIC_ZERO_POINT, QuantizedWeight, encode_weight

from .params import QuantizerParams, check_bits, check_scales, check_zero_points, params_from_dict, to_float32
from .recipe import Recipe
from .table_sidecar import Sidecar, read_sidecar, record_of, sidecar_path

FORMAT = "tvm-ahcq quantization table"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class WeightRange:
    """Scales and zero points of one weight.

    Attributes
    ----------
    bits : int
        Code width.
    scale : tuple of float
        ``(N,)`` a scale for each output channel, float32.
    zero_point : tuple of int
        ``(N,)``.
    """

    bits: int
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales(self.scale)
        check_zero_points(self.zero_point, self.bits)
        if len(self.scale) != len(self.zero_point) or not self.scale:
            raise ValueError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points; expected as many.")
        if self.bits == 8 and set(self.zero_point) != {SYMMETRIC_ZERO_POINT}:
            raise ValueError(f"8-bit weights take zero point {SYMMETRIC_ZERO_POINT}; some here differ.")
        object.__setattr__(self, "scale", tuple(to_float32(s) for s in self.scale))
        object.__setattr__(self, "zero_point", tuple(int(z) for z in self.zero_point))

    @classmethod
    def of(cls, weight: QuantizedWeight) -> WeightRange:
        """Return the range of a quantized weight."""
        return cls(weight.bits, tuple(weight.scale.tolist()), tuple(weight.zero_point.tolist()))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scale (float32) and zero point (uint8), ``(N,)`` each."""
        return np.asarray(self.scale, np.float32), np.asarray(self.zero_point, np.uint8)


@dataclass(frozen=True)
class QuantTable:
    """Quantizers, weight ranges and weight codes that calibration found for a float model.

    A weight that has codes here keeps them when its scale or zero point is edited: its values follow. Any other weight
    is the float weight rounded to the nearest code (:meth:`with_codes`), so its codes follow from its range.

    Attributes
    ----------
    model : str
        Name of the model it was made for.
    recipe : Recipe
        The choices it was made with.
    sites : mapping of str to QuantizerParams
        Quantizer of each activation site.
    weights : mapping of str to WeightRange
        Ranges of each quantized weight.
    params : mapping of str to numpy.ndarray
        Float parameters that conditioning and rounding changed, float32; the others are the float model's.
    equalisation : mapping of str to numpy.ndarray
        Function-preserving changes of the float model (:func:`.equalise.apply_equalisation`).
    codes : mapping of str to numpy.ndarray
        Codes of the weights that rounding or reconstruction chose, uint8, shape of the weight.
    """

    model: str
    recipe: Recipe
    sites: Mapping[str, QuantizerParams] = field(default_factory=dict)
    weights: Mapping[str, WeightRange] = field(default_factory=dict)
    params: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    equalisation: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    codes: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def weight(self, name: str) -> QuantizedWeight:
        """Return a weight that has codes in this table; QuantTableError if it has no range."""
        ranges = self.weights.get(name)
        if ranges is None:
            raise QuantTableError(
                f"The quantization table has no ranges for the weight {name!r}; calibrate this model again."
            )
        return QuantizedWeight(self.codes[name], *ranges.arrays(), ranges.bits)

    def changed_params(self) -> dict[str, np.ndarray]:
        """Return :attr:`params` and the values of all weights that have codes, float32."""
        return {**self.params, **{name: self.weight(name).dequantize() for name in self.codes}}

    def with_rounded(
        self, weights: Mapping[str, QuantizedWeight], biases: Mapping[str, np.ndarray] | None = None
    ) -> QuantTable:
        """Return the table with codes that rounding chose for some weights, and changed biases.

        Parameters
        ----------
        weights : mapping of str to QuantizedWeight
            Rounded weights, codes in the shape of the weight; a float value in :attr:`params` is dropped.
        biases : mapping of str to numpy.ndarray, optional
            float32.
        """
        params = {name: array for name, array in self.params.items() if name not in weights}
        return replace(
            self,
            weights={**self.weights, **{name: WeightRange.of(weight) for name, weight in weights.items()}},
            params={**params, **(biases or {})},
            codes={**self.codes, **{name: weight.codes for name, weight in weights.items()}},
        )

    def with_codes(self, params: Mapping[str, np.ndarray]) -> QuantTable:
        """Return the table with codes for every weight: those it has, and for the rest the nearest ones.

        Parameters
        ----------
        params : mapping of str to numpy.ndarray
            Parameters of the equalised float model; the table's own :attr:`params` go before them.

        Raises
        ------
        QuantTableError
            If the model has no such weight, or the weight another number of output channels.
        """
        codes = dict(self.codes)
        for name, ranges in self.weights.items():
            weight = self.codes.get(name, self.params.get(name, params.get(name)))
            if weight is None:
                raise QuantTableError(f"The table has a range for {name!r}, which the model lacks; calibrate again.")
            if len(ranges.scale) != len(weight):
                raise QuantTableError(
                    f"The table has {len(ranges.scale)} scales for {name!r}, which has {len(weight)} output channels; "
                    "it belongs to another model."
                )
            if name not in codes:
                codes[name] = encode_weight(weight, *ranges.arrays(), ranges.bits).codes
        return replace(self, codes=codes)

    def summary(self) -> str:
        """Return one line: model, recipe, how many sites of each kind, how many weights."""
        kinds = Counter(params.kind for params in self.sites.values())
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
        bits = f"{self.recipe.bits_weights}-bit weights, {self.recipe.bits_activations}-bit activations"
        sites = f"{len(self.sites)} sites ({counts})"
        return f"{self.model}, recipe {self.recipe.name}, {bits}: {sites}, {len(self.weights)} weights"

    def save(self, path: str | Path) -> None:
        """Write as JSON, one line a site or weight; the file appears complete or not at all.

        Codes, changed parameters and the equalisation go to a file beside it, ``<name>.params.safetensors``.

        Raises
        ------
        QuantTableError
            If the file cannot be written.
        """
        path = Path(path)
        record, arrays = None, Sidecar(self.params, self.codes, self.equalisation)
        if arrays:
            content = arrays.pack()
            record = record_of(path, content)
            _write(sidecar_path(path), content)
        _write(path, self._text(record).encode())

    @classmethod
    def load(cls, path: str | Path) -> QuantTable:
        """Read what :meth:`save` wrote.

        Raises
        ------
        QuantTableError
            If the file is missing, no quantization table, of a newer version, or has values out of range, or if its
            sidecar does not fit.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise QuantTableError(f"The quantization table {path} cannot be read: {error}") from error
        except ValueError as error:
            raise QuantTableError(f"{path} is not a quantization table (not JSON: {error}).") from error
        try:
            table = cls.from_dict(content)
        except QuantTableError as error:
            raise QuantTableError(f"{path}: {error}") from error
        if content.get("params") is None:
            return table
        arrays = read_sidecar(Path(path), content["params"])
        for name, codes in arrays.codes.items():
            _check_codes(name, codes, table.weights.get(name), Path(path))
        return replace(table, params=arrays.params, codes=arrays.codes, equalisation=arrays.equalisation)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the arrays of the sidecar."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model": self.model,
            "recipe": self.recipe.to_dict(),
            "sites": {name: params.to_dict() for name, params in self.sites.items()},
            "weights": {
                name: {"bits": w.bits, "scale": list(w.scale), "zero_point": list(w.zero_point)}
                for name, w in self.weights.items()
            },
        }

    @classmethod
    def from_dict(cls, content: Any) -> QuantTable:
        """Return the inverse of :meth:`to_dict`; a QuantTableError names the entry that does not fit."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise QuantTableError(f'This is not a quantization table; expected JSON with "format": "{FORMAT}".')
        version = content.get("version")
        if version != FORMAT_VERSION:
            raise QuantTableError(
                f"The quantization table has version {version!r}; this tvm-ahcq reads version {FORMAT_VERSION}. "
                "Update tvm-ahcq, or calibrate again."
            )
        if not all(isinstance(content.get(key), dict) for key in ("recipe", "sites", "weights")):
            raise QuantTableError("The quantization table lacks its recipe, sites or weights; calibrate again.")
        try:
            recipe = Recipe.from_dict(content["recipe"])
        except RecipeError as error:
            raise QuantTableError(f"The table's recipe cannot be used: {error}") from error
        sites = {name: _at(name, params_from_dict, values) for name, values in content["sites"].items()}
        weights = {name: _at(name, _weight_range, values) for name, values in content["weights"].items()}
        return cls(str(content.get("model", "")), recipe, sites, weights)

    def _text(self, params: dict[str, str] | None) -> str:
        """Return JSON, one line a top-level value, site and weight; `params` is the record of the sidecar."""
        lines = []
        content = self.to_dict() if params is None else self.to_dict() | {"params": params}
        for key, value in content.items():
            if key in ("sites", "weights"):
                rows = (f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items())
                body = ",\n".join(rows)
                lines.append(f"  {json.dumps(key)}: {{\n{body}\n  }}" if body else f"  {json.dumps(key)}: {{}}")
            else:
                lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
        return "{\n" + ",\n".join(lines) + "\n}\n"


def _weight_range(values: Any) -> WeightRange:
    if not isinstance(values, dict) or set(values) != {"bits", "scale", "zero_point"}:
        raise QuantTableError("a weight has exactly the fields bits, scale and zero_point.")
    try:
        return WeightRange(values["bits"], tuple(values["scale"]), tuple(values["zero_point"]))
    except (TypeError, ValueError, OverflowError) as error:
        raise QuantTableError(str(error)) from error


def _check_codes(name: str, codes: np.ndarray, ranges: WeightRange | None, path: Path) -> None:
    """Raise QuantTableError if the codes in a sidecar do not fit the range in the table."""
    if ranges is None:
        raise QuantTableError(f"{path}: its sidecar has codes of {name!r}, but the table no range; calibrate again.")
    if codes.ndim == 0 or len(codes) != len(ranges.scale):
        raise QuantTableError(
            f"{path}: {len(ranges.scale)} scales for {name!r}, but codes of shape {codes.shape}; expected a scale for "
            "each output channel."
        )
    if codes.size and int(codes.max()) >= 2**ranges.bits:
        raise QuantTableError(
            f"{path}: {name!r} has bits {ranges.bits}, but codes up to {int(codes.max())}; to round it to fewer bits, "
            "calibrate again."
        )


def _at(name: str, read: Any, values: Any) -> Any:
    """Return ``read(values)``; put the entry's name in front of an error."""
    try:
        return read(values)
    except QuantTableError as error:
        raise QuantTableError(f"Entry {name!r}: {error}") from error


def _write(path: Path, content: bytes) -> None:
    """Write a file at once; QuantTableError if that cannot be done."""
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise QuantTableError(f"The quantization table cannot be written to {path}: {error}") from error

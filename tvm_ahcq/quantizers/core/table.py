"""The quantization table: every site's quantizer and every weight's scales, as JSON that people can read and edit."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.errors import QuantTableError, RecipeError
from tvm_ahcq.quantizers.activation import agq, cag, hluq, lnq, uniform  # noqa: F401  (they register their kinds)
from tvm_ahcq.quantizers.published import hluq as hluq_published  # noqa: F401  (they register their kinds)
from tvm_ahcq.quantizers.weight.weights import SYMMETRIC_ZERO_POINT, QuantizedWeight

from .params import QuantizerParams, check_bits, check_scales, check_zero_points, params_from_dict, to_float32
from .recipe import Recipe
from .table_sidecar import companion, pack_params, read_params, record_of

FORMAT = "tvm-ahcq quantization table"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class WeightRange:
    """Scales and zero points of one weight; with the float weight they give its codes (``weights.encode_weight``).

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
        """The ranges of a quantized weight."""
        return cls(weight.bits, tuple(weight.scale.tolist()), tuple(weight.zero_point.tolist()))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale (float32) and zero point (uint8), ``(N,)`` each."""
        return np.asarray(self.scale, np.float32), np.asarray(self.zero_point, np.uint8)


@dataclass(frozen=True)
class QuantTable:
    """What calibration found; complete with the float model and the recipe.

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
        Parameters that conditioning and rounding changed, float32; the others are the float model's. A rounded weight
        holds values of its codes, which the ranges give back exactly.
    equalisation : mapping of str to numpy.ndarray
        Function-preserving changes of the float model (:func:`.equalise.apply_equalisation`).
    """

    model: str
    recipe: Recipe
    sites: Mapping[str, QuantizerParams] = field(default_factory=dict)
    weights: Mapping[str, WeightRange] = field(default_factory=dict)
    params: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    equalisation: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def summary(self) -> str:
        """One line: model, recipe, how many sites of each kind, how many weights."""
        kinds = Counter(params.kind for params in self.sites.values())
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
        bits = f"{self.recipe.bits_weights}-bit weights, {self.recipe.bits_activations}-bit activations"
        sites = f"{len(self.sites)} sites ({counts})"
        return f"{self.model}, recipe {self.recipe.name}, {bits}: {sites}, {len(self.weights)} weights"

    def save(self, path: str | Path) -> None:
        """Write as JSON, one line a site or weight; the file appears complete or not at all.

        Changed parameters and the equalisation go to a file beside it, ``<name>.params.safetensors``.

        Raises
        ------
        QuantTableError
            If the file cannot be written.
        """
        path = Path(path)
        record = None
        if self.params or self.equalisation:
            content = pack_params(self.params, self.weights, self.equalisation)
            record = record_of(path, content)
            _write(companion(path), content)
        _write(path, self._text(record).encode())

    @classmethod
    def load(cls, path: str | Path) -> QuantTable:
        """Read what :meth:`save` wrote.

        Raises
        ------
        QuantTableError
            If the file is missing, no quantization table, of a newer version, or has values out of range.
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
        params, equalisation = read_params(Path(path), content["params"], table.weights)
        return replace(table, params=params, equalisation=equalisation)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, changed parameters left out."""
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
        """Inverse of :meth:`to_dict`; QuantTableError says what does not fit."""
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
        """JSON with one line for each top-level value, site and weight; `params` says where changed parameters are."""
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


def _at(name: str, read: Any, values: Any) -> Any:
    """``read(values)``, with the entry's name in front of what is wrong."""
    try:
        return read(values)
    except QuantTableError as error:
        raise QuantTableError(f"Entry {name!r}: {error}") from error


def _write(path: Path, content: bytes) -> None:
    """Write a file through a temporary one; QuantTableError if that cannot be done."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise QuantTableError(f"The quantization table cannot be written to {path}: {error}") from error


def _umask() -> int:
    """The process's file mode mask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

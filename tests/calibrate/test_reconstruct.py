"""Block reconstruction: what it learns, when it keeps it, and how it goes on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.reconstruct import Effort, Reconstruction, reconstruct
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.errors import CalibrationError, QuantTableError
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.weights import encode_weight
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.lockstep import units

EFFORT = Effort(iterations=40, rounding_rate=0.1, drop=0.0, groups=())
SHORT = replace(EFFORT, iterations=6, drop=0.5, groups=(8, 6))


@pytest.fixture(scope="module")
def eight(pictures) -> list[np.ndarray]:
    """Enough pictures to learn from; the fourth and the eighth are held out."""
    return [np.roll(picture, 24 * shift, 1) for picture in pictures for shift in range(3)][:8]


@pytest.fixture(scope="module")
def start(tiny_model, eight) -> QuantizedModel:
    """Rounded to the nearest, so that there is something to learn."""
    return quantize(tiny_model, eight, replace(recipe("ahcq"), rounding="nearest", conditioning="none"))


@pytest.fixture(scope="module")
def all_images(tiny_model, eight) -> list[np.ndarray]:
    return list(load_calibration(eight, tiny_model.spec, 8))


@pytest.fixture(scope="module")
def images(all_images) -> list[np.ndarray]:
    """Three are enough where it does not matter what is learned."""
    return all_images[:3]


@pytest.fixture(scope="module")
def learned(start, all_images) -> Reconstruction:
    return reconstruct(
        start.annotated, start.prepared.params, start.table, Samples(start.model.spec, all_images), EFFORT
    )


def unit_names(model: QuantizedModel) -> list[str]:
    executor, unit_of = TorchExecutor(model.annotated, model.prepared.params), model.model.family.unit
    return [unit.name for name in ("encode_image", "decode") for unit in units(executor.program(name), unit_of)]


def test_every_unit_is_visited(start, learned):
    transformer = "mask_decoder.transformer"
    assert list(learned.units) == unit_names(start)
    assert set(learned.units) == {
        *(f"image_encoder.{part}" for part in ("blocks.0", "blocks.1", "neck")),
        *(f"{transformer}.{part}" for part in ("layers.0", "layers.1", "final_attn_token_to_image")),
    }


def test_only_what_does_better_on_held_out_images_is_kept(learned):
    for result in learned.units.values():
        assert result.improved == (result.after < result.before)
    assert any(result.improved for result in learned.units.values())


def test_a_unit_that_is_not_kept_stays_as_it_was(start, images):
    """Learning at an absurd rate spoils every unit."""
    spoilt = Effort(iterations=3, rounding_rate=100.0, scale_rate=100.0, groups=())
    found = reconstruct(start.annotated, start.prepared.params, start.table, Samples(start.model.spec, images), spoilt)
    thrown = [name for name, result in found.units.items() if not result.improved]
    assert thrown
    for site, params in found.table.sites.items():
        if any(site.startswith(f"{name}.") for name in thrown):
            assert params == start.table.sites[site]
    assert not found.table.params
    for weight in found.table.codes:
        assert not any(weight.startswith(f"{name}.") for name in thrown)


def test_all_learned_weights_are_hard(start, learned):
    table = learned.table
    kept = [name for name, result in learned.units.items() if result.improved]
    changed = {name for name in table.weights if any(name.startswith(f"{unit}.") for unit in kept)}
    assert changed and changed == set(table.codes)
    moved = 0
    for name in changed:
        before = start.table.weights[name]
        codes = encode_weight(start.prepared.params[name], *before.arrays(), before.bits).codes.astype(int)
        moved += int((table.codes[name] != codes).sum())
        assert np.abs(table.codes[name] - codes).max() <= 1
    assert moved > 0


@pytest.mark.parametrize("iterations", [1, 6])
def test_groups_end_at_the_recipes_number(start, images, iterations):
    effort = replace(SHORT, iterations=iterations)
    found = reconstruct(start.annotated, start.prepared.params, start.table, Samples(start.model.spec, images), effort)
    assert set(found.table.sites) == set(start.table.sites)
    for site, params in found.table.sites.items():
        assert (params.kind, params.bits) == (start.table.sites[site].kind, start.table.sites[site].bits)
        if isinstance(params, CagParams):
            assert params.groups <= start.table.recipe.groups < min(SHORT.groups)
    kept = [name for name, result in found.units.items() if result.improved]
    changed = {site for site, params in found.table.sites.items() if params != start.table.sites[site]}
    assert kept or iterations == 1  # a single step may help no unit
    assert all(any(site.startswith(f"{name}.") for site in changed) for name in kept)


def test_the_result_simulates_deterministically_and_goes_on_integers(start, learned, images):
    model = replace(start, table=learned.table)
    embeddings = [SamFunctions(model.fake_quant_predictor().session).encode(images[0]) for _ in range(2)]
    np.testing.assert_array_equal(*embeddings)
    assert model.sites == (len(learned.table.sites),) * 2


class Killed(Exception):
    """Stands for the end of the process."""


def run(
    start: QuantizedModel,
    images: list[np.ndarray],
    folder: Path | None,
    last: int | None = None,
    effort: Effort = SHORT,
) -> tuple[Reconstruction, list[int]]:
    """Reconstruct; be killed in iteration `last` of the whole run. The result, and the iterations that were
    reported."""
    steps = []

    def progress(_what: str, done: int, _total: int) -> None:
        steps.append(done)
        if last is not None and done >= last:
            raise Killed

    found = reconstruct(
        start.annotated, start.prepared.params, start.table, Samples(start.model.spec, images), effort, progress, folder
    )
    return found, steps


def assert_same_table(one: QuantTable, other: QuantTable) -> None:
    assert one == other
    for arrays, others in ((one.params, other.params), (one.codes, other.codes)):
        assert set(arrays) == set(others)
        for name, array in arrays.items():
            np.testing.assert_array_equal(others[name], array)


def test_a_killed_run_goes_on_after_the_last_finished_unit(start, images, tmp_path):
    whole, _ = run(start, images, None)
    names, inside_third = list(whole.units), 2 * SHORT.iterations + 2
    with pytest.raises(Killed):
        run(start, images, tmp_path, inside_third)
    assert sorted(path.stem for path in tmp_path.glob("*.json") if path.stem != "run") == sorted(names[:2])
    resumed, steps = run(start, images, tmp_path)
    trained = [done for done in steps if done % SHORT.iterations]
    assert min(trained) > 2 * SHORT.iterations  # none of the first two units
    assert resumed.units == whole.units
    assert_same_table(resumed.table, whole.table)
    again, steps = run(start, images, tmp_path)
    assert not [done for done in steps if done % SHORT.iterations]
    assert_same_table(again.table, whole.table)


def test_the_folder_of_another_run_is_refused(start, images, tmp_path):
    with pytest.raises(Killed):
        run(start, images, tmp_path, 1)
    with pytest.raises(QuantTableError, match="another folder"):
        run(start, images[::-1], tmp_path)
    with pytest.raises(QuantTableError, match="another folder"):
        run(start, images, tmp_path, effort=EFFORT)
    neck = "image_encoder.neck.0.weight"
    other = {**start.prepared.params, neck: 2 * start.prepared.params[neck]}
    with pytest.raises(QuantTableError, match="another folder"):
        reconstruct(start.annotated, other, start.table, Samples(start.model.spec, images), SHORT, work_dir=tmp_path)


def test_a_damaged_folder_is_refused(start, images, tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(QuantTableError, match="cannot be read"):
        run(start, images, tmp_path)


def test_a_single_image_is_refused(start, images):
    with pytest.raises(CalibrationError, match="2 images or more"):
        run(start, images[:1], None)


@pytest.mark.parametrize("name", ["paper", "ptq4sam", "minmax"])
def test_other_recipes_can_be_reconstructed(tiny_model, pictures, images, name):
    start = quantize(tiny_model, pictures[:2], replace(recipe(name), weight_range="mse"))
    found, _ = run(start, images[:2], None, effort=replace(SHORT, iterations=3))
    assert len(found.units) == 6
    assert replace(start, table=found.table).sites == (len(start.table.sites),) * 2

"""A bundle, its shapes tuned, and the bundle that compile makes with the records: the same results in fewer cycles."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.cli.main import main
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.lower.tiles import AttentionTile, LinearTile
from tvm_ahcq.errors import BundleError, TuningError
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.relay_passes.offload import partition
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.tune.accelerator.records import TileRecord, read_tiles
from tvm_ahcq.tune.accelerator.tuner import bundle_shapes
from tvm_ahcq.tune.records import append

CONFIG = named("sim_4x4")


def test_compile_uses_the_records_of_a_search_and_computes_the_same(capsys, accelerated, tmp_path):
    folder = tmp_path / "tuning"
    bundle = str(accelerated.both)
    assert main(["tune", bundle, "--accelerator", "sim_4x4", "--trials", "3", "--out", str(folder)]) == 0
    shapes, printed = bundle_shapes(read_bundle(accelerated.both, check_cpu=False), CONFIG), capsys.readouterr().out
    assert f"{len(shapes)} shapes for sim_4x4" in printed and printed.count("fewer than the default") == len(shapes)
    assert "do not fit" in printed and f"{3 * len(shapes)} candidates" in printed

    compiled = ahcq.compile(accelerated.qmodel, "generic", None, folder, accelerator="sim_4x4", offload="all")
    compiled.save(tmp_path / "tuned.ahcq")
    tuned, default = ahcq.load(tmp_path / "tuned.ahcq").session, ahcq.load(accelerated.both).session
    assert np.array_equal(
        SamFunctions(tuned).encode(accelerated.image), SamFunctions(default).encode(accelerated.image)
    )

    report = OffloadReport.from_dict(compiled.manifest.accelerator)
    assert all(place.tuned for place in report.offloaded())
    assert not any(place.tuned for place in OffloadReport.from_dict(default.manifest.accelerator).decisions)
    fewest = {}
    for record in read_tiles(folder):
        if record.cycles is not None:
            known = fewest.setdefault(record.shape, (record.cycles, record.shape))
            fewest[record.shape] = min(known, (record.cycles, record.shape))
    counted = {each.symbol: each.counters["cycles"] for each in tuned.accelerator.counters()}
    exact = 0
    for place in report.offloaded("encode_image"):
        (shape,) = place.shapes
        cycles, measured = fewest[shape]
        if getattr(shape, "group_sizes", ()) == getattr(measured, "group_sizes", ()):
            assert counted[place.symbol] == cycles, place
            exact += 1
    assert exact > 5
    cycles = [sum(each.counters["cycles"] for each in session.accelerator.counters()) for session in (tuned, default)]
    assert cycles[0] <= cycles[1]


def test_shapes_of_a_bundle_are_those_of_its_programs(accelerated):
    bundle = read_bundle(accelerated.both, check_cpu=False)
    shapes = bundle_shapes(bundle, CONFIG)
    layers = [shape for shape in shapes if hasattr(shape, "outputs")]
    assert {(shape.outputs, shape.channels) for shape in layers} >= {(144, 48), (48, 48), (192, 48), (48, 192)}
    assert {shape.sides for shape in shapes if hasattr(shape, "sides")} >= {(3, 3), (8, 8)}
    assert len(set(shapes)) == len(shapes)
    with pytest.raises(TuningError, match="has no programs for an accelerator; compile it with --accelerator sim_4x4"):
        bundle_shapes(read_bundle(accelerated.host, check_cpu=False), CONFIG)
    with pytest.raises(TuningError, match=r"compiled for the accelerator sim_4x4 .* not for ecp5_16x16"):
        bundle_shapes(bundle, named("ecp5_16x16"))


@pytest.mark.parametrize(("shapes", "error"), [([], TuningError), ([{"rows": 1}], BundleError), ([7], BundleError)])
def test_a_bundle_that_does_not_say_what_its_programs_compute_is_refused(accelerated, shapes, error):
    bundle = read_bundle(accelerated.both, check_cpu=False)
    for place in bundle.manifest.accelerator["places"]:
        place["shapes"] = shapes
    with pytest.raises(error):
        bundle_shapes(bundle, CONFIG)


def test_records_that_cannot_be_used_end_compilation_and_those_of_others_do_not_matter(accelerated, tmp_path):
    qmodel = accelerated.qmodel
    shapes = bundle_shapes(read_bundle(accelerated.both, check_cpu=False), CONFIG)
    realised, folder = qmodel.realise("rows"), tmp_path / "tuning"
    folder.mkdir()
    for shape in shapes:
        tile = AttentionTile(1, 999, 0) if hasattr(shape, "sides") else LinearTile(8, 1, 10**6, 1)
        append(folder, [TileRecord("sim_4x4", CONFIG.hash ^ 1, shape, tile, 1)])
    report = partition(realised, "sim_4x4", SAM, "all", tuning=folder).report
    assert report.offloaded() and not any(place.tuned for place in report.decisions)
    append(folder, [TileRecord("sim_4x4", CONFIG.hash, shapes[0], tile, 1)])
    with pytest.raises(TuningError, match=r"the tile that was recorded for sim_4x4 .* does not fit it; tune again"):
        partition(realised, "sim_4x4", SAM, "all", tuning=folder)
    (folder / "records.jsonl").write_text(json.dumps({"tile": {}}) + "\n")
    with pytest.raises(TuningError, match="line 1, is no record of a tile"):
        partition(realised, "sim_4x4", SAM, "all", tuning=folder)
    with pytest.raises(TuningError, match="write it with `tvm-ahcq tune"):
        partition(realised, "sim_4x4", SAM, "all", tuning=tmp_path / "absent")

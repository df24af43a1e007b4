"""Lesson 3: measure schedules of the matrix products on this machine, and compile with the fastest.

Run it with ``python tutorials/03_tune.py``; it writes ``tuned.ahcq`` and the records of the search to the current
folder, or to the one given as an argument, where lesson 1 left its table. It needs the extra ``tune``:
``pip install 'tvm-ahcq[tune]'``.
"""

import sys
from pathlib import Path

import numpy as np

import tvm_ahcq as ahcq
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.kernels.gemm.tiling import linear_space
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.scenes import generate
from tvm_ahcq.target import resolve_target
from tvm_ahcq.tune.host.measure import make_runner
from tvm_ahcq.tune.host.tuner import tune
from tvm_ahcq.tune.records import LinearWorkload, read

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# 1. Quantize the model by the table of lesson 1, without calibrating again, and list the shapes of its matrix products:
#    outputs, inputs, channel groups. (`tvm-ahcq tune F.ahcq` takes them from a compiled bundle.)
qmodel = ahcq.quantize(ahcq.from_sam("vit_t"), QuantTable.load(folder / "lesson.json"))
host = resolve_target("native")
weights = [each for each in qmodel.realise(host.layout).tensors.values() if isinstance(each, QLinearWeight)]
shapes = {LinearWorkload(len(w.codes), sum(w.group_sizes), len(w.group_sizes), w.bits) for w in weights}
largest = max(shapes, key=lambda shape: (shape.outputs * shape.channels, shape))
print(f"{len(weights)} weights of {len(shapes)} shapes; the largest is {largest}")

# 2. The search space: how a product is divided into blocks. Every choice gives the same result.
space = linear_space(host)
print(f"{host.name}: {len(space)} schedules to choose from, for example {space[-1]}")
if len(space) == 1:
    print("there is nothing to tune for this processor")
    ahcq.compile(qmodel, target="native").save(folder / "tuned.ahcq")
    sys.exit()

# 3. Search. The tuner measures the default first, then random schedules, then those that a cost model (xgboost) ranks
#    fastest. Each measurement is appended to records.jsonl before the next begins; resume=True continues an interrupted
#    run. Two candidates for one shape are enough for a lesson; 40 for each shape is the default of
#        tvm-ahcq tune F.ahcq --trials 40 --out tuning/
#    which can also measure on a board through TVM's RPC tracker (--rpc HOST:PORT --key K).
records = folder / "tuning"
tokens = qmodel.model.spec.grid**2  # rows of the product
found = tune(host, {largest: tokens}, 2, records, make_runner(host), resume=records.exists())
for state in found:
    if state.best is not None and state.default is not None:
        print(f"{state.workload}: {1e6 * state.default:.0f} us by default, {1e6 * state.best:.0f} us at best")
print(f"{len(read(records))} measurements in {records}")

# 4. Compile with the records; shapes without one keep the default. (tvm-ahcq compile ... --tuning tuning/)
tuned = folder / "tuned.ahcq"
ahcq.compile(qmodel, target="native", tuning=records).save(tuned)

# 5. Compare masks with the simulation in torch: a schedule changes the time, never a result.
image, click, on_the_object = generate(7).image, np.array([[128, 128]]), np.array([1])
masks = []
for predictor in (ahcq.load(tuned), qmodel.fake_quant_predictor()):
    predictor.set_image(image)
    found_masks, scores, _ = predictor.predict(point_coords=click, point_labels=on_the_object)
    masks.append(found_masks[scores.argmax()])
print(f"IoU with the simulation: {iou(*masks):.4f}")
print("next: tvm-ahcq profile tuned.ahcq, to see where the time goes")

"""Lesson 3: measure how the matrix products run fastest on this machine, and compile with what was found.

Run it with ``python tutorials/03_tune.py``; it writes ``default.ahcq``, ``tuned.ahcq`` and the records of the search to
the current folder, or to the one given as an argument. It needs the extra ``tune``: ``pip install 'tvm-ahcq[tune]'``.
"""

import sys
import time
from pathlib import Path

import numpy as np

import tvm_ahcq as ahcq
from tvm_ahcq.evaluate.scenes import generate, scenes
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.target import resolve_target
from tvm_ahcq.topi.linear_schedule import linear_space
from tvm_ahcq.tune.measure import make_runner
from tvm_ahcq.tune.records import read
from tvm_ahcq.tune.tuner import tune, workloads

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# 1. A bundle. Tuning needs its shapes only, so the model and its quantization do not matter yet.
qmodel = ahcq.quantize(ahcq.from_sam("vit_t"), [scene.image for scene in scenes(first=500_000, count=2)])
default = folder / "default.ahcq"
ahcq.compile(qmodel, target="native").save(default)
work = workloads(read_bundle(default))
print(f"{len(work)} shapes; the largest is {max(work, key=lambda w: w.outputs * w.channels)}")

# 2. What can be chosen: how a product is cut into blocks. The result is the same whatever is chosen.
host = resolve_target("native")
space = linear_space(host)
print(f"{host.name}: {len(space)} schedules to choose from, for example {space[-1]}")
if len(space) == 1:
    print("there is nothing to tune for this processor")
    sys.exit()

# 3. Search. The default is measured first, then schedules drawn at random, then those that a model of what was measured
#    (xgboost) expects to be fast. Every measurement is a line of records.jsonl before the next begins: after a kill,
#    resume=True goes on. Three candidates for each of two shapes are enough for a lesson; 40 for each is the default of
#        tvm-ahcq tune default.ahcq --trials 40 --out tuning/
#    which can also measure on a board, through TVM's RPC tracker (--rpc HOST:PORT --key K).
records = folder / "tuning"
largest = sorted(work, key=lambda w: -w.outputs * w.channels)[:2]
found = tune(host, {each: work[each] for each in largest}, 3, records, make_runner(host), resume=records.exists())
for state in found:
    if state.best is not None and state.default is not None:
        print(f"{state.workload}: {1e6 * state.default:.0f} us by default, {1e6 * state.best:.0f} us at best")
print(f"{len(read(records))} measurements in {records}")

# 4. Compile with the records; shapes without one keep the default. (tvm-ahcq compile ... --tuning tuning/)
tuned = folder / "tuned.ahcq"
ahcq.compile(qmodel, target="native", tuning=records).save(tuned)

# 5. The same embedding in every bit, and the time. Other programs disturb: take the least of several runs, in turns.
predictors = {path.name: ahcq.load(path) for path in (default, tuned)}
seconds = dict.fromkeys(predictors, float("inf"))
for _ in range(5):
    for name, predictor in predictors.items():
        start = time.perf_counter()
        predictor.set_image(generate(7).image)
        seconds[name] = min(seconds[name], time.perf_counter() - start)
before, after = (predictor.get_image_embedding() for predictor in predictors.values())
assert np.array_equal(before, after)
for name, least in seconds.items():
    print(f"{name}: {1e3 * least:.1f} ms a picture")

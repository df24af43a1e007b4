"""Lesson 4: one file for a processor and an accelerator, run on the simulated accelerator.

Run it with ``python tutorials/04_cpu_plus_fpga.py``; it writes ``hetero.ahcq`` and ``hetero.png`` to the current
folder, or to the one given as an argument, where lesson 1 left its table. It needs the C++ runtime library, which
``pip install`` builds.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import tvm_ahcq as ahcq
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.offload import HEADER, HOST, OffloadReport, condensed, rows, summary
from tvm_ahcq.runtime.overlay import overlay
from tvm_ahcq.scenes import generate

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# 1. Quantize the model by the table of lesson 1.
qmodel = ahcq.quantize(ahcq.from_sam("vit_t"), QuantTable.load(folder / "lesson.json"))

# 2. Compile for this processor and an accelerator with a 16 x 16 array. Layers and attentions that are faster there
#    than on the processor of a small board, transfers included, become programs in the same file.
compiled = ahcq.compile(qmodel, target="native", accelerator="ecp5_16x16")
bundle = folder / "hetero.ahcq"
compiled.save(bundle)

# 3. Read the offload report: the three operators with the most cycles, and the operators that stay on the host, grouped
#    by kind, with the reason. `tvm-ahcq info hetero.ahcq` shows all of it.
report = OffloadReport.from_dict(compiled.manifest.accelerator)
print(summary(report))
print("  ".join(HEADER[:7]))
for row in rows(sorted(report.offloaded("encode_image"), key=lambda place: -place.cycles)[:3]):
    print("  ".join(row))
for place in condensed([place for place in report.of("encode_image") if place.where == HOST]):
    print(f"on the host: {place.count} x {place.kind}: {place.reason}")

# 4. Run it. "fsim" is the functional simulator in the package; "rtl" simulates the RTL; "board:/dev/uio0,/dev/udmabuf0"
#    is a board; "rpc:192.168.1.2:9090/board" is a board on another machine that runs `tvm-ahcq serve`. Nothing else
#    changes. (`tvm-ahcq devices hetero.ahcq` tells which of them run this file.)
image = generate(7).image
click, on_the_object = np.array([[128, 128]]), np.array([1])
predictor = ahcq.load(bundle, device="fsim")
predictor.set_image(image)
masks, scores, _ = predictor.predict(point_coords=click, point_labels=on_the_object)
best = scores.argmax()
Image.fromarray(overlay(image, masks[best], click, on_the_object)).save(folder / "hetero.png")

# 5. Read the device's counters: cycles of each operator.
accelerator = predictor.session.accelerator
counters = sorted(accelerator.counters(), key=lambda each: -each.counters["cycles"])
total = sum(each.counters["cycles"] for each in counters)
print(f"{accelerator.device}: {total / 1e6:.2f} M cycles a picture, {total / 100e6:.3f} s at 100 MHz")
for each in counters[:5]:
    busy = each.counters["array_busy"] / each.counters["cycles"]
    print(f"  {each.symbol}: {each.counters['cycles']} cycles, the array busy in {busy:.0%}")

# 6. Compare with the same quantized model without the accelerator, simulated in torch.
reference = qmodel.fake_quant_predictor()
reference.set_image(image)
expected, _, _ = reference.predict(point_coords=click, point_labels=on_the_object)
print(f"IoU with the host alone: {iou(masks[best], expected[best]):.4f}")

"""Lesson 2: quantize a checkpoint of your own, measure what 4 bits cost and where, and raise the bits there.

Run it with ``python tutorials/02_quantize_your_checkpoint.py``; it writes a checkpoint, a quantization table and a
report to the current folder, or to the one given as an argument. It takes two or three minutes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

import tvm_ahcq as ahcq
from tvm_ahcq.evaluate.metrics.scene_accuracy import scene_accuracy
from tvm_ahcq.evaluate.report.report import write_report
from tvm_ahcq.evaluate.sensitivity.measure import measure
from tvm_ahcq.evaluate.sensitivity.probes import scene_probes
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.scenes import scenes

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# 1. Load a checkpoint, as `torch.save(sam.state_dict(), ...)` writes it. This one is vit_t's; yours may be a fine-tuned
#    SAM. Reading it runs no code that it may contain (weights_only=True).
checkpoint = folder / "mine.pth"
state = load_file(Path(ahcq.__file__).parent / "models" / "sam" / "weights" / "vit_t.safetensors")
torch.save({name: weight.float() for name, weight in state.items()}, checkpoint)
model = ahcq.from_sam("vit_t", checkpoint=checkpoint)

# 2. Choose pictures like those that the model will meet. Calibration needs no annotation.
pictures = [scene.image for scene in scenes(first=500_000, count=2)]

# 3. Quantize with two recipes. "minmax" uses the whole range of each tensor and rounds to nearest. "ahcq" equalises
#    channels, minimises the error of each quantizer, and rounds weights with error compensation, so that a layer's
#    output on quantized inputs is closest to the float output. effort="high" would then learn rounding by gradients.
quantized = {name: ahcq.quantize(model, pictures, ahcq.recipe(name, bits=4)) for name in ("minmax", "ahcq")}

# 4. Measure accuracy: mean IoU with the truth, on scenes that calibration has not seen. (Your data: `tvm-ahcq eval`.)
unseen = list(scenes(first=4_000_000, count=2))
predictors = {"float": quantized["ahcq"].float_predictor()}
predictors |= {name: qmodel.fake_quant_predictor() for name, qmodel in quantized.items()}
for name, predictor in predictors.items():
    accuracy = scene_accuracy(predictor, unseen)
    print(f"{name:8} one click {accuracy.click:.3f}, box {accuracy.box:.3f}")

# 5. Measure sensitivity: each block quantized alone, the rest in float. Open the report in a browser.
sensitivity = measure(quantized["ahcq"], scene_probes(unseen[:1]), effect="blocks")
for effect in sensitivity.worst(3):
    print(f"{effect.unit.name}: mask logits change by {effect.logits:.1%}")
write_report(sensitivity, folder / "report.html")

# 6. Give the sites and weights of the worst block 6 bits. (`tvm-ahcq compile --max-drop 0.02` chooses by itself.)
worst = sensitivity.worst(1)[0].unit
raised = dict.fromkeys([*worst.sites, *(f"{layer}.weight" for layer in worst.layers)], 6)
mended = ahcq.quantize(model, pictures, replace(ahcq.recipe("ahcq", bits=4), raised=raised))
print(f"{len(raised)} sites and weights of {worst.name} at 6 bits")

# 7. Save the table: JSON, one line a site, made to be read and edited; rounded weights go to a file beside it.
mended.table.save(folder / "mine.json")
again = ahcq.quantize(model, QuantTable.load(folder / "mine.json"))
assert again.table == mended.table
print("table:", again.table.summary())
print("next: tvm-ahcq compile --model vit_t --checkpoint mine.pth --calibration mine.json -o mine.ahcq")

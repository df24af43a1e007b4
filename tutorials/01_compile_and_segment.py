"""Lesson 1: from a SAM checkpoint to one file that segments without torch.

Run it with ``python tutorials/01_compile_and_segment.py``; it writes ``lesson.json``, ``lesson.ahcq`` and
``lesson.png`` to the current folder, or to the one given as an argument.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import tvm_ahcq as ahcq
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.runtime.overlay import overlay
from tvm_ahcq.scenes import scenes

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# 1. Load a model. vit_t comes with the package; for SAM's own weights, pass their checkpoint:
#    ahcq.from_sam("vit_b", checkpoint="sam_vit_b_01ec64.pth").
#    The result is a Relax module with three functions, and the weights by their names in the state dict.
model = ahcq.from_sam("vit_t")
print("functions:", ", ".join(var.name_hint for var in model.module.get_global_vars()))
print(
    "weights:",
    len(model.params),
    "arrays, for example image_encoder.blocks.0.attn.qkv.weight",
    model.params["image_encoder.blocks.0.attn.qkv.weight"].shape,
)

# 2. Choose calibration pictures: an iterable of (H, W, 3) uint8 arrays, or the path of a folder of photos. Calibration
#    uses their statistics only, no annotation. vit_t was trained on generated scenes, so a few of those are enough.
images = [scene.image for scene in scenes(first=500_000, count=4)]

# 3. Quantize. A recipe chooses the quantizer at each site; "ahcq" puts channel groups (CAG) behind LayerNorm,
#    log-uniform levels (HLUQ) behind GELU and ReLU, and logarithmic levels on attention probabilities.
qmodel = ahcq.quantize(model, calibration=images, recipe=ahcq.recipe("ahcq", bits=4))
print("quantized:", qmodel.table.summary())
print("sites on integers: {} of {}".format(*qmodel.sites))

#    Save the table: what calibration found. Lessons 3 and 4 go on from it.
qmodel.table.save(folder / "lesson.json")

# 4. Compile for this processor, and save. target="generic" compiles for any x86-64 machine instead.
bundle = folder / "lesson.ahcq"
ahcq.compile(qmodel, target="native").save(bundle)
floats = sum(array.nbytes for array in model.params.values())
print(f"bundle: {bundle.stat().st_size} bytes, the float weights alone: {floats}")

# 5. Load and predict. This part needs neither torch nor the compiler and can run in another process on another
#    machine. The calls are those of segment_anything's SamPredictor.
predictor = ahcq.load(bundle)
image = np.repeat(data.coins()[..., None], 3, axis=2)
click, on_the_object = np.array([[213, 191]]), np.array([1])

predictor.set_image(image)
masks, scores, low_resolution_logits = predictor.predict(point_coords=click, point_labels=on_the_object)
best = scores.argmax()
for mask, score in zip(masks, scores, strict=True):
    print(f"candidate of {mask.sum()} pixels, score {score:.2f}")

# 6. Draw the mask, and compare it with that of the float model.
Image.fromarray(overlay(image, masks[best], click, on_the_object)).save(folder / "lesson.png")
reference = qmodel.float_predictor()
reference.set_image(image)
float_masks, _, _ = reference.predict(point_coords=click, point_labels=on_the_object)
print(f"IoU with the float model: {iou(masks[best], float_masks[best]):.3f}")

"""From a file to a mask in a process that has neither torch nor the TVM compiler."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tvm_ahcq.image_files import load_image
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.load import load


def test_load_segment_draw_without_torch_and_compiler(tmp_path, manifest, tensors, tiny_library, run_alone):
    write_bundle(tmp_path / "tiny.ahcq", manifest, tiny_library, tensors)
    picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.png")
    source = """
        import os
        import numpy as np
        import tvm_ahcq
        from tvm_ahcq.image_files import load_image
        from tvm_ahcq.runtime.overlay import save_overlay

        os.chdir(sys.argv[1])
        predictor = tvm_ahcq.load("tiny.ahcq")
        image = load_image("in.png")
        predictor.set_image(image)
        masks, scores, low = predictor.predict(np.array([[20, 10]]), np.array([1]), box=np.array([1, 2, 30, 20]))
        save_overlay("out.png", image, masks)
        np.savez("results.npz", masks=masks, scores=scores, low=low)
        print(sorted(name for name in sys.modules if name in ("torch", "tvm", "segment_anything", "torchvision")))
    """
    assert run_alone(source, str(tmp_path)) == "[]\n"
    assert load_image(tmp_path / "out.png").shape == picture.shape
    predictor = load(tmp_path / "tiny.ahcq")
    predictor.set_image(picture)
    expected = predictor.predict(np.array([[20, 10]]), np.array([1]), box=np.array([1, 2, 30, 20]))
    with np.load(tmp_path / "results.npz") as found:
        for name, array in zip(("masks", "scores", "low"), expected, strict=True):
            np.testing.assert_array_equal(found[name], array)


def test_every_runtime_module_imports_without_torch_and_compiler(run_alone):
    source = """
        import importlib, pkgutil
        import tvm_ahcq.runtime
        names = [module.name for module in pkgutil.iter_modules(tvm_ahcq.runtime.__path__)]
        for name in names:
            importlib.import_module("tvm_ahcq.runtime." + name)
        print("load" in names, "torch" in sys.modules, "tvm" in sys.modules)
    """
    assert run_alone(source) == "True False False\n"

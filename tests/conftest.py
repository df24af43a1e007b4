"""A tiny SAM and a tiny SAM 2 with random weights, compiled once for all tests; a tracker without weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    import numpy as np

    from tvm_ahcq.api import QuantizedModel
    from tvm_ahcq.models.float_model import FloatModel


# examples are small, but the machine may be busy
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes side by side share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # threads that wait leave the cores to others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first: of processes side by side, none is left with such a file at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def runtime_library() -> Path:
    """The C++ runtime library, beside the sources or in the installed package."""
    import tvm_ahcq

    for folder in tvm_ahcq.__path__:
        if (path := Path(folder) / "lib" / "libtvm_ahcq.so").is_file():
            return path
    pytest.fail("libtvm_ahcq.so is not built: install the package, or build it into the tree (CONTRIBUTING.md)")


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[[int], FloatModel]:
    """Function of a seed: two blocks, one windowed with padding (8 x 8 tokens in windows of 3) and one global."""
    # imported here: most tests need neither torch nor the compiler
    import torch

    from tvm_ahcq.models.sam.load import from_module
    from tvm_ahcq.models.sam.vit_t import build_sam_vit_t

    @cache
    def make(seed: int) -> FloatModel:
        torch.manual_seed(seed)
        sam = build_sam_vit_t(
            image_size=128, depth=2, embed_dim=48, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
        )
        with torch.no_grad():
            for name, parameter in sam.named_parameters():
                if "rel_pos" in name or "pos_embed" in name:  # upstream starts them at zero, which would hide mistakes
                    parameter.normal_(std=0.3)
        return from_module(sam.requires_grad_(False), "tiny")

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model) -> FloatModel:
    """The tiny model that most tests use."""
    return make_tiny_model(0)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Function of a name and of a function that fills a folder: the folder, filled once for all processes of a run."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def share(name: str, fill: Callable[[Path], None]) -> Path:
        folder, unfinished = root / f"shared-{name}", root / f"unfinished-{name}"
        with FileLock(root / f"{name}.lock"):
            if not folder.is_dir():
                unfinished.mkdir(exist_ok=True)
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return share


@dataclass(frozen=True)
class Accelerated:
    """A tiny model compiled for a processor and the accelerator ``sim_4x4``.

    Attributes
    ----------
    qmodel : QuantizedModel
        What was compiled.
    host, both : Path
        The same bundle; the first one says that it is for the host alone, and is never run.
    image : numpy.ndarray
        ``(1, 3, 128, 128)`` float32 of noise.
    """

    qmodel: QuantizedModel
    host: Path
    both: Path
    image: np.ndarray


@pytest.fixture(scope="session")
def accelerated(make_tiny_model: Callable[[int], FloatModel], shared_folder) -> Accelerated:
    """Compiled once for all tests that run it."""
    import numpy as np

    import tvm_ahcq as ahcq
    from tvm_ahcq.quantizers.core.table import QuantTable

    def fill(folder: Path) -> None:
        rng = np.random.default_rng(1)
        pictures = [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(2)]
        qmodel = ahcq.quantize(make_tiny_model(1), pictures)
        qmodel.table.save(folder / "table.json")
        compiled = ahcq.compile(qmodel, target="generic", accelerator="sim_4x4", offload="all")
        compiled.save(folder / "both.ahcq")
        replace(compiled, manifest=replace(compiled.manifest, accelerator=None)).save(folder / "host.ahcq")

    folder = shared_folder("accelerated", fill)
    qmodel = ahcq.quantize(make_tiny_model(1), QuantTable.load(folder / "table.json"))
    image = np.random.default_rng(0).normal(size=(1, 3, 128, 128)).astype(np.float32)
    return Accelerated(qmodel, folder / "host.ahcq", folder / "both.ahcq", image)


@pytest.fixture(scope="session")
def sam2() -> Any:
    """A SAM 2 of four stages at 128 x 128: windows with and without padding, a global block, pooled queries."""
    import torch

    from tvm_ahcq.models.sam2.sam2_n import build_sam2_n

    torch.manual_seed(0)
    module = build_sam2_n(
        image_size=128, embed_dim=16, stages=(1, 1, 3, 1), window_spec=(8, 4, 6, 4), global_att_blocks=(4,),
        prompt_dim=32, memory_dim=16, memory_layers=2,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module.requires_grad_(False)


@pytest.fixture(scope="session")
def video_model(sam2: Any) -> FloatModel:
    """The same as Relax functions, with those of the memory."""
    from tvm_ahcq.models.sam2.load import from_module

    return from_module(sam2, "tiny2", video=True)


@dataclass(frozen=True)
class TinyTracker:
    """The tiny SAM 2 with its memory, compiled for a processor and the accelerator ``sim_4x4``.

    Attributes
    ----------
    qmodel : QuantizedModel
        What was compiled.
    host, both : Path
        The same bundle; the first one says that it is for the host alone.
    """

    qmodel: QuantizedModel
    host: Path
    both: Path


@pytest.fixture(scope="session")
def tiny_tracker(video_model: FloatModel, shared_folder) -> TinyTracker:
    """Calibrated on clips with the recipe ``ahcq``, without what takes long, and compiled once for all tests."""
    import tvm_ahcq as ahcq
    from tvm_ahcq.clips import generate
    from tvm_ahcq.quantizers.core.table import QuantTable

    def fill(folder: Path) -> None:
        quick = replace(ahcq.recipe("ahcq", bits=4), conditioning="none", rounding="nearest")
        qmodel = ahcq.quantize(video_model, [generate(seed, 3, 128).frames for seed in (1, 2)], quick)
        qmodel.table.save(folder / "table.json")
        # the accelerator takes every product that it can
        compiled = ahcq.compile(qmodel, target="generic", accelerator="sim_4x4", offload="all")
        compiled.save(folder / "both.ahcq")
        replace(compiled, manifest=replace(compiled.manifest, accelerator=None)).save(folder / "host.ahcq")

    folder = shared_folder("tiny-tracker", fill)
    qmodel = ahcq.quantize(video_model, QuantTable.load(folder / "table.json"))
    return TinyTracker(qmodel, folder / "host.ahcq", folder / "both.ahcq")


@pytest.fixture(scope="session")
def prompts(tiny_model) -> dict[str, tuple[np.ndarray, ...]]:
    """Inputs of each function."""
    import numpy as np

    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(1, 32, 8, 8)).astype(np.float32)
    coords = rng.uniform(0, 128, (3, 4, 2)).astype(np.float32)
    labels = np.array([[1, 0, 2, 3], [1, 1, 1, -1], [2, 3, -1, -1]], np.float32)
    mask = rng.normal(size=(3, 1, 32, 32)).astype(np.float32)
    return {
        "encode_image": (rng.normal(size=(1, 3, 128, 128)).astype(np.float32),),
        "decode": (embedding, coords, labels),
        "decode_mask": (embedding, coords, labels, mask),
    }


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Three coloured noise pictures."""
    import numpy as np

    rng = np.random.default_rng(1)
    return [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(3)]


@pytest.fixture(scope="session")
def quantize_tiny(tiny_model, pictures, shared_folder) -> Callable[[int], QuantizedModel]:
    """Function of bits: the tiny model with all sites calibrated, each once."""
    import tvm_ahcq as ahcq
    from tvm_ahcq.quantizers.core.table import QuantTable

    @cache
    def quantize(bits: int) -> QuantizedModel:
        def fill(folder: Path) -> None:
            ahcq.quantize(tiny_model, pictures, ahcq.recipe("ahcq", bits)).table.save(folder / "table.json")

        folder = shared_folder(f"tiny-{bits}", fill)
        return ahcq.quantize(tiny_model, QuantTable.load(folder / "table.json"))

    return quantize


@pytest.fixture(scope="session", params=[4, 8])
def quantized(request, quantize_tiny) -> QuantizedModel:
    """The tiny model with all sites calibrated, at 4 and at 8 bits."""
    return quantize_tiny(request.param)


@pytest.fixture(scope="session")
def described(tiny_model: FloatModel, quantize_tiny: Callable[[int], QuantizedModel], shared_folder) -> Path:
    """Folder with the tiny model as bundles: ``quantized.ahcq`` for native and generic, ``float.ahcq`` for native."""
    import tvm_ahcq as ahcq

    def fill(folder: Path) -> None:
        ahcq.compile(quantize_tiny(4), target="native,generic").save(folder / "quantized.ahcq")
        ahcq.compile(tiny_model).save(folder / "float.ahcq")

    return shared_folder("described", fill)


class ColourTracker:
    """Follows objects by the mean colour under their mask: a pixel belongs to one if it differs by less than 40.

    Attributes
    ----------
    opened : list of str
        Names of the folders that have been opened, in order.
    frames : int
        Frames that have been looked at.
    """

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.frames = 0

    def init_state(self, video_path: str) -> dict[str, Any]:
        """Open a folder of frames."""
        self.opened.append(Path(video_path).name)
        return {"frames": sorted(Path(video_path).glob("*.jpg")), "masks": {}}

    def add_new_mask(self, inference_state: dict[str, Any], frame_idx: int, obj_id: int, mask: np.ndarray) -> None:
        """Learn the colour of an object."""
        picture = self._picture(inference_state, frame_idx)
        inference_state["masks"][obj_id] = frame_idx, mask, picture[mask].mean(0)

    def propagate_in_video(
        self, inference_state: dict[str, Any], start_frame_idx: int | None = None
    ) -> Iterator[tuple[int, list[int], np.ndarray]]:
        """Yield frame, numbers and logits: 40 minus the largest difference of a channel, 10 or -10 where shown."""
        import numpy as np

        masks = inference_state["masks"]
        for frame in range(start_frame_idx or 0, len(inference_state["frames"])):
            picture = self._picture(inference_state, frame)
            self.frames += 1
            logits = []
            for first, mask, colour in masks.values():
                near = 40 - np.abs(picture - colour).max(-1)
                logits.append(np.where(mask, 10, -10) if frame == first else near)
            yield frame, list(masks), np.stack(logits)[:, None].astype(np.float32)

    def reset_state(self, inference_state: dict[str, Any]) -> None:
        """Forget the objects."""
        inference_state["masks"].clear()

    @staticmethod
    def _picture(state: dict[str, Any], frame: int) -> np.ndarray:
        import numpy as np
        from PIL import Image

        return np.asarray(Image.open(state["frames"][frame])).astype(np.float32)


@pytest.fixture
def colour_tracker() -> ColourTracker:
    """A new tracker."""
    return ColourTracker()


@pytest.fixture
def vectors() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads a reference vector file by name, from AHCQ_VECTORS or ../shared/vectors beside the repository.

    The vectors are no part of the repository: without them, and without AHCQ_VECTORS, their tests are skipped.
    """
    import numpy as np

    beside = Path(__file__).resolve().parents[1].parent / "shared" / "vectors"
    folder = Path(os.environ.get("AHCQ_VECTORS", beside))

    def load(name: str) -> dict[str, np.ndarray]:
        path = folder / f"{name}.npz"
        if not path.is_file() and "AHCQ_VECTORS" not in os.environ:
            pytest.skip(f"reference vectors {path} are not here; set AHCQ_VECTORS to their folder")
        with np.load(path) as file:
            return dict(file)

    return load

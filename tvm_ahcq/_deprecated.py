"""Old names of modules: importing one returns the module under its new name, with a ``DeprecationWarning``.

:func:`install` adds a finder at the end of ``sys.meta_path``. Python calls it only for a name that nothing else finds,
so imports of current names cost nothing. Version 0.3 removes this file.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PACKAGE = "tvm_ahcq"
REMOVED_IN = "0.3"

MOVED = {
    "bench.ours": "bench.ahcq_peer",
    "bench.rounds": "bench.runner",
    "calibrate.executor": "torch_exec.executor",
    "calibrate.lockstep": "torch_exec.lockstep",
    "calibrate.registry": "torch_exec.registry",
    "calibrate.session": "torch_exec.torch_session",
    "calibrate.simulated": "torch_exec.simulated_session",
    "calibrate.torch_ops": "torch_exec.relax_ops",
    "codegen.device": "codegen.devices.device",
    "codegen.doctor": "codegen.devices.device_check",
    "codegen.hardware.activity": "codegen.hardware.toggle_count",
    "codegen.hardware.agreement": "codegen.hardware.cosim",
    "codegen.hardware.attention_plan": "codegen.lower.attention.plan",
    "codegen.hardware.attention_stream": "codegen.lower.attention.stream",
    "codegen.hardware.attention_writer": "codegen.lower.attention.writer",
    "codegen.hardware.config": "codegen.isa.config",
    "codegen.hardware.fake_board": "codegen.devices.mock_board",
    "codegen.hardware.generate": "codegen.isa.generate",
    "codegen.hardware.generated": "codegen.isa.generated",
    "codegen.hardware.generated.isa": "codegen.isa.generated.isa",
    "codegen.hardware.image": "codegen.isa.memory_image",
    "codegen.hardware.layout": "codegen.isa.layout",
    "codegen.hardware.program": "codegen.isa.encoding",
    "codegen.hardware.random_program": "codegen.hardware.fuzz",
    "codegen.hardware.schedule": "codegen.isa.dependency_tokens",
    "codegen.lower.artifact": "codegen.lower.program_image",
    "codegen.lower.fixed": "codegen.lower.fixed_scales",
    "codegen.lower.linear_tiling": "codegen.lower.linear.tiling",
    "codegen.lower.lowered": "codegen.lower.offloaded_op",
    "codegen.lower.memory": "codegen.lower.address_space",
    "codegen.lower.rings": "codegen.lower.linear.buffer_rings",
    "codegen.lower.stage": "codegen.lower.linear.stage",
    "codegen.lower.work": "codegen.lower.cycle_model",
    "codegen.self_test": "codegen.devices.golden_program",
    "compiler": "api",
    "deploy": "export_library",
    "evaluate.candidates": "evaluate.metrics.variants",
    "evaluate.coco": "evaluate.datasets.coco",
    "evaluate.coco_accuracy": "evaluate.metrics.coco_accuracy",
    "evaluate.coco_masks": "evaluate.datasets.coco_masks",
    "evaluate.graph_plots": "evaluate.report.graph_plots",
    "evaluate.histogram": "evaluate.sensitivity.histogram",
    "evaluate.layer_details": "evaluate.report.layer_details",
    "evaluate.mask_accuracy": "evaluate.metrics.mask_accuracy",
    "evaluate.mask_effect": "evaluate.sensitivity.mask_effect",
    "evaluate.mask_folder": "evaluate.datasets.mask_folder",
    "evaluate.mask_pictures": "evaluate.report.mask_pictures",
    "evaluate.pathologies": "evaluate.hard_model",
    "evaluate.pictures": "evaluate.datasets.pictures",
    "evaluate.probes": "evaluate.sensitivity.probes",
    "evaluate.profile_plot": "evaluate.report.profile_plot",
    "evaluate.prompted": "evaluate.metrics.prompted",
    "evaluate.report_text": "evaluate.report.text",
    "evaluate.roofline_plot": "evaluate.report.roofline_plot",
    "evaluate.scene_accuracy": "evaluate.metrics.scene_accuracy",
    "evaluate.scene_files": "evaluate.datasets.scene_files",
    "evaluate.scenes": "scenes",
    "evaluate.settled_probes": "evaluate.sensitivity.stable_prompts",
    "evaluate.site_error": "evaluate.sensitivity.site_error",
    "evaluate.site_plots": "evaluate.report.site_plots",
    "evaluate.svg": "evaluate.report.svg",
    "evaluate.weight_error": "evaluate.sensitivity.weight_error",
    "frontend": "models",
    "frontend.checkpoint": "models.checkpoint",
    "frontend.export": "models.sam.export",
    "frontend.sam": "models.sam.load",
    "frontend.torchvision_compat": "models.torchvision_compat",
    "frontend.vit_t": "models.sam.vit_t",
    "mixed_precision": "evaluate.mixed_precision",
    "op": "ir",
    "op.attention": "ir.attention",
    "op.conv2d": "ir.conv2d",
    "op.fake_quant": "torch_exec.fake_quant",
    "op.linear": "ir.linear",
    "op.partial": "torch_exec.partial",
    "op.pixels": "ir.hypernet_matmul",
    "op.quantize": "ir.quantize",
    "op.register": "ir.register",
    "op.simulate": "torch_exec.simulate",
    "op.torch_semantics": "torch_exec.ahcq_ops",
    "op.trainable": "torch_exec.trainable",
    "quantizers.acnr": "quantizers.weight.acnr",
    "quantizers.adaround": "torch_exec.adaround",
    "quantizers.agq": "quantizers.activation.agq",
    "quantizers.agq_published": "quantizers.published.agq",
    "quantizers.average_range": "quantizers.published.average_range",
    "quantizers.big": "quantizers.weight.big",
    "quantizers.brent": "quantizers.published.brent",
    "quantizers.cag": "quantizers.activation.cag",
    "quantizers.cag_published": "quantizers.published.cag",
    "quantizers.changed_params": "quantizers.core.table_sidecar",
    "quantizers.codebook": "quantizers.core.codebook",
    "quantizers.equalise": "quantizers.weight.equalise",
    "quantizers.gptq": "quantizers.weight.gptq",
    "quantizers.half": "quantizers.core.float16_storage",
    "quantizers.hluq": "quantizers.activation.hluq",
    "quantizers.hluq_published": "quantizers.published.hluq",
    "quantizers.intervals": "quantizers.core.intervals",
    "quantizers.kmeans": "quantizers.core.kmeans",
    "quantizers.lnq": "quantizers.activation.lnq",
    "quantizers.lnq_published": "quantizers.published.lnq",
    "quantizers.log_attention": "quantizers.activation.attention_constants",
    "quantizers.lsq": "torch_exec.lsq",
    "quantizers.moments": "quantizers.core.prefix_sums",
    "quantizers.objective": "calibrate.reconstruction_loss",
    "quantizers.params": "quantizers.core.params",
    "quantizers.pixels": "quantizers.activation.pixels",
    "quantizers.probability": "quantizers.activation.softmax_table",
    "quantizers.recipe": "quantizers.core.recipe",
    "quantizers.reference": "quantizers.core.reference",
    "quantizers.rounding": "quantizers.weight.round_layer",
    "quantizers.table": "quantizers.core.table",
    "quantizers.uniform": "quantizers.activation.uniform",
    "quantizers.uniform_published": "quantizers.published.uniform",
    "quantizers.weights": "quantizers.weight.weights",
    "relay_passes.absorb": "calibrate.fold_key_signs",
    "relay_passes.calibrate": "calibrate.calibrate",
    "relay_passes.condition": "calibrate.condition",
    "relay_passes.equalise": "calibrate.equalise",
    "relay_passes.finished": "calibrate.resume",
    "relay_passes.fuse": "relay_passes.lower.fuse",
    "relay_passes.layout": "relay_passes.lower.sink_transposes",
    "relay_passes.legalise": "relay_passes.lower.legalise",
    "relay_passes.legalise_float": "relay_passes.lower.legalise_float",
    "relay_passes.prompt_sizes": "relay_passes.symbolic_sizes",
    "relay_passes.reconstruct": "calibrate.reconstruct",
    "relay_passes.round": "calibrate.round_weights",
    "relay_passes.schedule": "relay_passes.lower.schedule",
    "relay_passes.separate": "relay_passes.lower.factor_position_encodings",
    "relay_passes.walk": "calibrate.layer_walk",
    "runtime.image": "models.sam.image",
    "runtime.masks": "models.sam.masks",
    "runtime.predictor": "models.sam.predictor",
    "runtime.prompts": "models.sam.prompts",
    "topi": "kernels",
    "topi.attention": "kernels.attention.dispatch",
    "topi.attention_few_keys": "kernels.attention.short_kv",
    "topi.attention_row": "kernels.attention.softmax_codes",
    "topi.attention_rows": "kernels.attention.generic",
    "topi.attention_vnni": "kernels.attention.vnni",
    "topi.attention_vnni_pack": "kernels.attention.vnni_pack",
    "topi.attention_vnni_plan": "kernels.attention.vnni_tiling",
    "topi.attention_vnni_row": "kernels.attention.vnni_softmax_codes",
    "topi.dense": "kernels.float32.dense",
    "topi.encode_affine": "kernels.encode.affine",
    "topi.encode_intervals": "kernels.encode.intervals",
    "topi.fixed_point": "kernels.common.fixed_point",
    "topi.gelu": "kernels.float32.gelu",
    "topi.im2col": "kernels.gemm.im2col",
    "topi.layer_norm": "kernels.float32.layer_norm",
    "topi.linear": "kernels.gemm.dispatch",
    "topi.linear_amx": "kernels.gemm.amx",
    "topi.linear_epilogue": "kernels.gemm.epilogue",
    "topi.linear_fused": "kernels.gemm.fused",
    "topi.linear_quads": "kernels.gemm.dot4",
    "topi.linear_rows": "kernels.gemm.generic",
    "topi.linear_schedule": "kernels.gemm.tiling",
    "topi.linear_vnni": "kernels.gemm.vnni",
    "topi.norm_encode": "kernels.encode.norm_encode",
    "topi.peak": "kernels.peak",
    "topi.pixel_product": "kernels.float32.hypernet_matmul",
    "topi.quad_dot": "kernels.common.dot4",
    "topi.script": "kernels.common.tvmscript_patch",
    "topi.vector": "kernels.common.vector",
    "topi.windows": "kernels.common.windows",
    "tune.measure": "tune.host.measure",
    "tune.search": "tune.host.search",
    "tune.shapes": "tune.host.shapes",
    "tune.ship": "tune.update_defaults",
    "tune.tile_programs": "tune.accelerator.programs",
    "tune.tile_records": "tune.accelerator.records",
    "tune.tile_runner": "tune.accelerator.runner",
    "tune.tile_shapes": "tune.accelerator.shapes",
    "tune.tiles": "tune.accelerator.tuner",
    "tune.tuner": "tune.host.tuner",
}
"""Old name of a module -> new name, both relative to ``tvm_ahcq``."""


def install() -> None:
    """Make the old names importable."""
    sys.meta_path.append(_Finder())


def moved_attributes(package: str, module: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package that has the name of a former module.

    Parameters
    ----------
    package : str
        Full name of the package.
    module : str
        Name of the module inside the package that now holds the attributes.
    """

    def get(name: str) -> Any:
        if not name.startswith("__") and find_spec(f"{package}.{name}") is None:
            home = import_module(f"{package}.{module}")
            if hasattr(home, name):
                _warn(f"{package}.{name}", f"{home.__name__}.{name}", stacklevel=3)
                return getattr(home, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


def _relative(name: str) -> str:
    """Name inside ``tvm_ahcq``; empty for that of another package."""
    root, _, rest = name.partition(".")
    return rest if root == PACKAGE else ""


def _warn(old: str, new: str, stacklevel: int) -> None:
    message = f"{old} is now {new}; version {REMOVED_IN} removes the old name"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


class _Finder(MetaPathFinder, Loader):
    """Finds the old names."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec for an old name, None for any other."""
        return ModuleSpec(name, self) if _relative(name) in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to Python to create an empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module under its new name in the place of the empty one.

        An old package stays a module of its own, without files, which looks up its attributes in the new package:
        importing the old name of a submodule then leaves the new package as it is.
        """
        old = module.__name__
        current = import_module(f"{PACKAGE}.{MOVED[_relative(old)]}")
        _warn(old, current.__name__, stacklevel=2)
        if not hasattr(current, "__path__"):
            sys.modules[old] = current
            return

        def get(name: str) -> Any:
            child, attribute = f"{old}.{name}", getattr(current, name, None)
            if _relative(child) in MOVED and (attribute is None or isinstance(attribute, ModuleType)):
                return import_module(child)
            return getattr(current, name)

        module.__path__ = []
        vars(module)["__getattr__"] = get

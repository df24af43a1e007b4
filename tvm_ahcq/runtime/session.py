"""A compiled model in memory: its functions by name. numpy in, numpy out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.errors import BundleError, DeviceError
from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.models.execution import Check
from tvm_ahcq.models.registry import find_family

from . import cpu, threads
from .accelerator import Accelerator, DeviceOptions, prepare
from .bundle import LIBRARY, Bundle
from .ffi import tvm_ffi, tvm_runtime
from .manifest import FunctionSpec
from .verify import compare
from .weights import QLinearWeight, expand

ALIGNMENT = 64
"""Bytes; compiled code loads whole vectors and assumes it of every tensor."""

_CPU, _POOLED = 1, 2
"""Device type and allocator of the Relax virtual machine."""


class Session:
    """Holds the compiled functions and their expanded parameters.

    Parameters
    ----------
    bundle : Bundle
        As read; it can be dropped afterwards.
    num_threads : int, optional
        Threads that kernels use; ``TVM_NUM_THREADS``, else the physical cores by default.
    device : DeviceOptions, optional
        What runs the accelerator's part of a bundle that has one; the functional simulator by default.

    Attributes
    ----------
    manifest, target
        Of the bundle; `target` is the one that was chosen.
    accelerator : Accelerator or None
        Of a bundle that was compiled for one.
    machine : Module
        The Relax virtual machine; call it through :func:`tvm_ahcq.runtime.threads.call` only.

    Raises
    ------
    BundleError
        The library cannot be loaded, or lacks a function that the manifest names.
    DeviceError
        A runtime library is missing, or a device was given for a bundle that runs on the host alone.
    """

    def __init__(self, bundle: Bundle, num_threads: int | None = None, device: DeviceOptions | None = None) -> None:
        self.path = bundle.path
        self.manifest = bundle.manifest
        self.target = bundle.target
        self.golden = bundle.golden
        self.num_threads = threads.thread_count(num_threads)
        if any(feature.startswith("amx") for feature in bundle.target.cpu_features):
            cpu.request_amx()
        if bundle.manifest.accelerator is not None:
            prepare()
        elif device is not None:
            raise DeviceError(
                f"{bundle.path}: runs on the host alone, so device {device.name!r} has nothing to do; "
                "compile the model with --accelerator, or leave the device out"
            )
        self.machine, library = threads.call(self.num_threads, _load, bundle.path.name, bundle.library)
        self.accelerator = None
        if bundle.manifest.accelerator is not None:
            self.accelerator = Accelerator(library, device or DeviceOptions())
        self._functions = {}
        for name in bundle.manifest.functions:
            try:
                self._functions[name] = self.machine[name]
            except AttributeError as error:
                raise BundleError(f"{bundle.path}: its library has no function {name}; recompile the model") from error
        self._params = _parameters(bundle)

    @property
    def model(self) -> Any:
        """Figures of the model, of its family's own class."""
        return self.manifest.model

    @property
    def family(self) -> ModelFamily:
        """Description of the model."""
        return find_family(self.manifest.model.family)

    def verify(self) -> tuple[Check, ...]:
        """Run the golden pair of the bundle.

        Returns
        -------
        tuple of Check
            What was compared; each can be printed.

        Raises
        ------
        BundleError
            The bundle has no golden pair, or a comparison is out of its tolerance.
        """
        if not self.golden:
            raise BundleError(f"{self.path}: has no golden pair to verify against; recompile the model")
        checks = compare(self.family, self, self.golden)
        if not all(check.passed for check in checks):
            found = "; ".join(str(check) for check in checks)
            raise BundleError(
                f"{self.path}: does not compute here what it computed where it was made: {found}; "
                "recompile the model on this machine"
            )
        return checks

    def parameters(self, name: str) -> list[Any]:
        """Tensors that a compiled function takes after its inputs."""
        return list(self._params[name])

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a compiled function by name with its inputs; its parameters are added.

        Parameters
        ----------
        name : str
            One of the manifest's functions.
        *inputs : numpy.ndarray
            In order; numbers are converted to the function's types.

        Returns
        -------
        tuple of numpy.ndarray
            Its outputs, copied out of the machine's memory.

        Raises
        ------
        ValueError
            If an input has another shape than the manifest says.
        """
        arrays = _checked(name, self.manifest.functions[name], inputs)
        arguments = [to_tensor(array) for array in arrays] + self._params[name]
        return threads.call(self.num_threads, _call, self._functions[name], arguments)


def to_tensor(array: np.ndarray) -> Any:
    """A tvm_ffi tensor with the contents of an array, aligned; shares memory where that is possible."""
    if not (array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT == 0):
        array = _aligned_copy(array)
    if array.size == 0:
        # numpy computes strides as if an empty axis had length 1; compiled code checks for the plain products
        products = np.cumprod((1, *array.shape[:0:-1]))[::-1] * array.itemsize
        array = np.lib.stride_tricks.as_strided(array, strides=tuple(int(stride) for stride in products))
    return tvm_ffi().from_dlpack(array)


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that :func:`to_tensor` takes as it is."""
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    aligned = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned


def _call(function: Any, arguments: Sequence[Any]) -> tuple[np.ndarray, ...]:
    result = function(*arguments)
    outputs = [result] if isinstance(result, tvm_ffi().Tensor) else list(result)
    # aligned, because an embedding comes back as the decoder's input with every prompt
    return tuple(_aligned_copy(np.from_dlpack(output)) for output in outputs)


def _load(name: str, library: bytes) -> tuple[Any, Any]:
    """The Relax virtual machine of a compiled library, and the library; must run on the thread that will call them."""
    tvm_runtime()
    with tempfile.TemporaryDirectory(prefix="tvm-ahcq-") as folder:  # readable by this user only
        path = Path(folder) / LIBRARY
        try:
            path.write_bytes(library)
            # once mapped, the file may go; the mapping goes with the machine
            loaded = tvm_ffi().load_module(str(path), keep_module_alive=False)
            machine = loaded["vm_load_executable"]()
        except (OSError, RuntimeError, AttributeError) as error:
            raise BundleError(
                f"{name}: its library cannot be loaded: {error}; recompile the model, or set TMPDIR to a "
                f"folder that has space and allows execution (now {os.path.dirname(folder)})"
            ) from error
    machine["vm_initialization"](_CPU, 0, _POOLED)
    return machine, loaded


def _parameters(bundle: Bundle) -> dict[str, list[Any]]:
    """Parameter tensors of each function; a record that several functions take is expanded once."""
    expanded: dict[str, list[Any]] = {}
    for function in bundle.manifest.functions.values():
        for name in function.params:
            if name not in expanded:
                record = bundle.tensors[name]
                arrays = expand(record) if isinstance(record, QLinearWeight) else (record,)
                expanded[name] = [to_tensor(array) for array in arrays]
    return {
        name: [tensor for param in function.params for tensor in expanded[param]]
        for name, function in bundle.manifest.functions.items()
    }


def _checked(name: str, function: FunctionSpec, inputs: Sequence[Any]) -> list[np.ndarray]:
    """Return the inputs in the function's types, once their shapes are those of the manifest."""
    if len(inputs) != len(function.inputs):
        names = ", ".join(each.name for each in function.inputs)
        raise ValueError(f"{name} takes {len(function.inputs)} inputs ({names}), {len(inputs)} were given")
    sizes: dict[str, int] = {}
    arrays = []
    for each, value in zip(function.inputs, inputs, strict=True):
        array = np.asarray(value, each.dtype)
        known = len(array.shape) == len(each.shape)
        for dim, size in zip(each.shape, array.shape, strict=False):
            known = known and size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        if not known:
            expected = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in each.shape)
            raise ValueError(f"{each.name} has shape {array.shape}, expected {_text(expected)}")
        arrays.append(array)
    return arrays


def _text(shape: tuple[int | str, ...]) -> str:
    """A shape as Python writes it, symbolic dimensions without quotes."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"

"""A compiled model in memory: encode an image, decode prompts. numpy in, numpy out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tvm_ahcq.errors import BundleError, DeviceError

from . import cpu, threads
from .accelerator import Accelerator, DeviceOptions, prepare
from .bundle import LIBRARY, Bundle
from .ffi import tvm_ffi, tvm_runtime
from .manifest import ModelSpec
from .verify import Check, compare
from .weights import QLinearWeight, expand

ALIGNMENT = 64
"""Bytes; compiled code loads whole vectors and assumes it of every tensor."""

_CPU, _POOLED = 1, 2
"""Device type and allocator of the Relax virtual machine."""


class SessionLike(Protocol):
    """What a predictor needs: implemented by :class:`Session`, and by any other executor of the same model."""

    @property
    def model(self) -> ModelSpec:
        """Figures of the model."""

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Image ``(1, 3, S, S)`` float32 to its embedding ``(1, C, grid, grid)`` float32."""

    def decode(
        self,
        embedding: np.ndarray,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts to ``(B, 4, 4 * grid, 4 * grid)`` mask logits and ``(B, 4)`` predicted IoU."""


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
    def model(self) -> ModelSpec:
        """Figures of the model."""
        return self.manifest.model

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Embed an image.

        Parameters
        ----------
        image : numpy.ndarray
            ``(1, 3, S, S)`` float32, normalised and padded.

        Returns
        -------
        numpy.ndarray
            ``(1, C, grid, grid)`` float32.
        """
        size = self.model.image_size
        (embedding,) = self.run("encode_image", _checked("image", image, (1, 3, size, size)))
        return embedding

    def decode(
        self,
        embedding: np.ndarray,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode prompts to masks.

        Parameters
        ----------
        embedding : numpy.ndarray
            ``(1, C, grid, grid)`` float32.
        point_coords : numpy.ndarray
            ``(B, N, 2)`` float32, x and y in pixels of the model input.
        point_labels : numpy.ndarray
            ``(B, N)`` float32: -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
        mask_input : numpy.ndarray, optional
            ``(B, 1, 4 * grid, 4 * grid)`` float32 logits.

        Returns
        -------
        masks : numpy.ndarray
            ``(B, 4, 4 * grid, 4 * grid)`` float32 logits.
        iou : numpy.ndarray
            ``(B, 4)`` float32.
        """
        grid = self.model.grid
        batch, points = np.shape(point_labels)
        inputs = [
            _checked("embedding", embedding, (1, self.model.prompt_dim, grid, grid)),
            _checked("point_coords", point_coords, (batch, points, 2)),
            _checked("point_labels", point_labels, (batch, points)),
        ]
        if mask_input is None:
            masks, iou = self.run("decode", *inputs)
        else:
            low = 4 * grid
            masks, iou = self.run("decode_mask", *inputs, _checked("mask_input", mask_input, (batch, 1, low, low)))
        return masks, iou

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
        checks = compare(self, self.golden)
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

        Returns
        -------
        tuple of numpy.ndarray
            Its outputs, copied out of the machine's memory.
        """
        arguments = [to_tensor(array) for array in inputs] + self._params[name]
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


def _checked(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array as float32, once its shape is as the compiled function takes it."""
    array = np.asarray(array, np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return array

"""``load``: a bundle, ready to predict."""

from __future__ import annotations

import os
from typing import Any

from .accelerator import DeviceOptions
from .bundle import read_bundle
from .session import Session


def load(
    path: str | os.PathLike[str],
    num_threads: int | None = None,
    target: str | None = None,
    device: str | None = None,
    on_device_error: str = "raise",
) -> Any:
    """Load a compiled model.

    Parameters
    ----------
    path : path-like
        A bundle, as written by ``CompiledModel.save`` or ``tvm-ahcq compile``. It contains native code: load only what
        you trust.
    num_threads : int, optional
        Threads that kernels use; ``TVM_NUM_THREADS``, else the physical cores by default.
    target : str, optional
        Which of several targets of the bundle to run; the best one for this machine by default.
    device : str, optional
        What runs the accelerator's part of a bundle that has one: ``"fsim"``, the functional simulator, by default;
        ``"rtl"``, the simulated RTL; ``"board:/dev/uio0,/dev/udmabuf0"``; ``"rpc:HOST:PORT/"`` before any of them, on
        another machine.
    on_device_error : str
        ``"raise"``, or ``"host"``: when the device fails, go on with the functional simulator on the host, which gives
        the same masks.

    Returns
    -------
    SamPredictor
        Ready for ``set_image``; for a bundle of another model family, what that family predicts with.

    Raises
    ------
    BundleError
        The file is missing, damaged, of a newer format, or made for another CPU.
    DeviceError
        A runtime library is missing, or there is no such device.
    """
    options = None if device is None else DeviceOptions(device, on_device_error)
    session = Session(read_bundle(path, target=target), num_threads, options)
    return session.family.predictor(session)

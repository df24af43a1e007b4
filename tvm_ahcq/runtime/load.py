"""``load`` and ``load_video``: a bundle, ready to predict in pictures and in videos."""

from __future__ import annotations

import os
from typing import Any

from tvm_ahcq.errors import BundleError
from tvm_ahcq.models.registry import find_family

from .accelerator import DeviceOptions
from .bundle import Bundle, read_bundle
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


def load_video(
    path: str | os.PathLike[str],
    num_threads: int | None = None,
    target: str | None = None,
    device: str | None = None,
    on_device_error: str = "raise",
    **options: Any,
) -> Any:
    """Load a compiled model that tracks objects in videos.

    Parameters
    ----------
    path : path-like
        A bundle with the memory parts of its model, as ``tvm-ahcq compile --video`` writes it; see :func:`load`.
    num_threads, target, device, on_device_error
        As for :func:`load`.
    **options : Any
        How it tracks, by upstream's names, such as ``non_overlap_masks=True``; for SAM 2, the attributes of
        ``tvm_ahcq.models.sam2.video_options.VideoOptions``.

    Returns
    -------
    SAM2VideoPredictor
        Ready for ``init_state`` and ``stream``; for a bundle of another model family, what that family tracks with.

    Raises
    ------
    BundleError
        The file is missing, damaged, of a newer format, or made for another CPU; or it is for pictures only.
    DeviceError
        A runtime library is missing, or there is no such device.
    """
    bundle = read_bundle(path, target=target)
    require_video(bundle)
    device_options = None if device is None else DeviceOptions(device, on_device_error)
    session = Session(bundle, num_threads, device_options)
    predictor = session.family.video_predictor
    assert predictor is not None
    return predictor(session, **options)


def require_video(bundle: Bundle) -> None:
    """Refuse a bundle that cannot track.

    Raises
    ------
    BundleError
        Its model has no memory, or it was compiled without.
    """
    family = find_family(bundle.manifest.model.family)
    if family.video_predictor is None:
        raise BundleError(
            f"{bundle.path}: {family.title} has no memory of frames, so it is for pictures only; compile a SAM 2 with "
            "--video"
        )
    if not bundle.manifest.model.tracks:
        raise BundleError(f"{bundle.path}: is for pictures only, it has no memory; compile with --video to track")

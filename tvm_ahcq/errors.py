"""The errors that tvm-ahcq raises for what a user can mend; all derive from :class:`AhcqError`."""

from __future__ import annotations


class AhcqError(Exception):
    """Base class. The message says what was given, what was expected, and what to do."""


class CheckpointError(AhcqError):
    """A checkpoint is missing, unreadable, or does not fit the chosen architecture."""


class UnsupportedModelError(AhcqError):
    """The model, or an operator or pattern in it, is not supported."""


class CalibrationError(AhcqError):
    """Calibration images are missing, unreadable, or of a wrong shape."""


class QuantTableError(AhcqError):
    """A quantization table is unreadable, of a newer version, or does not fit the model."""


class RecipeError(AhcqError):
    """A recipe name or option is unknown or out of range."""


class TargetError(AhcqError):
    """A compilation target is unknown or cannot be used on this machine."""


class BundleError(AhcqError):
    """A bundle is missing, damaged, of a newer format, or needs what this machine lacks."""


class ReportError(AhcqError):
    """A report cannot be written."""


class ImageError(AhcqError):
    """An image is unreadable or has an unsupported shape or type."""


class PromptError(AhcqError):
    """A prompt has a wrong shape, a wrong label, or lies outside the image."""


class EvaluationError(AhcqError):
    """A data set to evaluate on does not fit together, or a model is not quantized at every site."""


class DeviceError(AhcqError):
    """An accelerator device is missing, busy, or answered with an error."""


class TuningError(AhcqError):
    """Kernels cannot be tuned, or records of tuning cannot be used."""


class BenchmarkError(AhcqError):
    """A comparison cannot be run: its peers are unknown, or our own model fails in it."""

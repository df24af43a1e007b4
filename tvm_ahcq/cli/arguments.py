"""Reads what is typed on the command line; refuses what cannot work before any work starts."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tvm_ahcq.errors import AhcqError

if TYPE_CHECKING:
    from tvm_ahcq.runtime.accelerator import DeviceOptions


class UsageError(AhcqError):
    """The command line is not valid."""


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line on standard error, with exit status 2."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print one line and leave."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def point(text: str) -> tuple[float, float, int]:
    """``X,Y`` or ``X,Y,LABEL``: pixels from the top left corner; label 1 (default) is on the object, 0 is off it."""
    parts = text.split(",")
    try:
        x, y = float(parts[0]), float(parts[1])
        label = int(parts[2]) if len(parts) == 3 else 1
    except (ValueError, IndexError):
        x, y, label = 0.0, 0.0, -1
    if len(parts) > 3 or label not in (0, 1) or not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a point; expected X,Y or X,Y,0 (off the object) or X,Y,1 (on it), such as 120,80"
        )
    return x, y, label


def box(text: str) -> tuple[float, float, float, float]:
    """``X0,Y0,X1,Y1``: top left and bottom right corner in pixels."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        x0 = x1 = y0 = y1 = 0.0
    if not (x0 < x1 and y0 < y1 and all(map(math.isfinite, (x0, y0, x1, y1)))):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a box; expected X0,Y0,X1,Y1, top left then bottom right corner, such as 40,30,200,180"
        )
    return x0, y0, x1, y1


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs bundles."""
    parser.add_argument(
        "--device",
        metavar="D",
        type=device_name,
        help="what runs the accelerator's part of a bundle that has one: fsim, the functional "
        "simulator (default); rtl, the simulated RTL; board:/dev/uio0,/dev/udmabuf0; or "
        "rpc:HOST:PORT/ before any of them, behind `tvm-ahcq serve` on another machine",
    )
    parser.add_argument(
        "--on-device-error",
        choices=("raise", "host"),
        default="raise",
        help="when the device fails: raise an error (default), or go on with the functional simulator "
        "on the host, which gives the same masks",
    )
    parser.add_argument(
        "--device-timeout",
        metavar="S",
        type=seconds,
        default=600.0,
        help="longest time of one program on the device, in seconds (default: %(default)g)",
    )


def device_options(args: argparse.Namespace) -> DeviceOptions | None:
    """Return the options of :func:`add_device_options`; None if none were given."""
    from tvm_ahcq.runtime.accelerator import DEFAULT_DEVICE, DeviceOptions

    if args.device is None and args.on_device_error == "raise" and args.device_timeout == 600.0:
        return None
    return DeviceOptions(args.device or DEFAULT_DEVICE, args.on_device_error, args.device_timeout)


def device_name(text: str) -> str:
    """The name of an accelerator; whether it is there is found out when it is opened."""
    from tvm_ahcq.runtime.accelerator import check_name

    try:
        check_name(text)
    except AhcqError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error
    return text


def port(text: str) -> int:
    """A port of TCP, 0 for any."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; expected a number up to 65535, such as 9090")
    return int(text)


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; expected seconds, such as 60")
    return value


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of things; expected 1, 2, 3, ...")
    return int(text)


def input_file(text: str) -> Path:
    """A file that exists."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is a folder; expected a file")
    return path


def input_path(text: str) -> Path:
    """A file or folder that exists."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path


def input_folder(text: str) -> Path:
    """A folder that exists."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is a file; expected a folder" if path.exists() else f"{text}: no such folder"
        )
    return path


def output_file(text: str) -> Path:
    """A file that can be written: its folder exists and lets us, and no folder bears its name."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; expected the name of a file to write")
    _writable_folder(path.parent, text)
    if path.exists() and not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} is write-protected")
    return path


def output_picture(text: str) -> Path:
    """An output file with a name that says which picture format to write."""
    from PIL import Image

    path = output_file(text)
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise argparse.ArgumentTypeError(
            f"{text}: no picture format is called {path.suffix!r}; try a name ending in .png"
        )
    return path


def output_folder(text: str) -> Path:
    """A folder that exists and can be written to."""
    path = Path(text)
    _writable_folder(path, text)
    return path


def new_folder(text: str) -> Path:
    """A folder to write to that exists, or that can be made."""
    path = Path(text)
    _writable_folder(path if path.exists() else path.parent, text)
    return path


def _writable_folder(folder: Path, text: str) -> None:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"does not exist; make it with mkdir -p {folder}"
        where = text if str(folder) == text else f"{text}: the folder {folder}"
        raise argparse.ArgumentTypeError(f"{where} {what}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: no permission to write to the folder {folder}")

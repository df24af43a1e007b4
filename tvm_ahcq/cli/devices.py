"""``tvm-ahcq devices``: which accelerators there are, and whether they work."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ahcq.errors import BundleError, DeviceError

from .arguments import device_name, input_file, seconds
from .console import duration, progress_bar, result, table

if TYPE_CHECKING:
    from tvm_ahcq.codegen.devices.device_check import DeviceStatus, Requirement

EXAMPLES = """\
examples:
  what there is, and does it work:   tvm-ahcq devices
  which of it runs this bundle:      tvm-ahcq devices vit_t.ahcq
  a board, and one on another desk:  tvm-ahcq devices --device board:/dev/uio0,/dev/udmabuf0
                                     tvm-ahcq devices --device rpc:192.168.1.2:9090/board
  build the simulated RTL, test it:  tvm-ahcq devices --device rtl --config sim_4x4
  for a script:                      tvm-ahcq devices --json

Each device runs one small matrix product, whose result and counters must equal those of the numpy model in every bit.
Without --device: the functional simulator (fsim), the simulated RTL where it is in the cache, and a list of what may be
a board. Exit status: 0 all devices that were tested work, and one of them runs the bundle if one is given; 2 if not.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "devices",
        help="list accelerators and check that they work",
        description="List the accelerators that there are, and check that they work.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "bundle",
        metavar="F.ahcq",
        type=input_file,
        nargs="?",
        help="bundle written by `tvm-ahcq compile --accelerator`: which devices run it?",
    )
    parser.add_argument(
        "--device",
        metavar="D",
        action="append",
        default=[],
        type=device_name,
        help="a device to test: fsim, rtl, board:/dev/uio0,/dev/udmabuf0, or rpc:HOST:PORT/ before any "
        "of them; may be repeated",
    )
    parser.add_argument(
        "--config",
        metavar="C",
        action="append",
        default=[],
        help="configuration to simulate, such as ecp5_16x16; may be repeated (default: all, or that of the bundle)",
    )
    parser.add_argument(
        "--device-timeout",
        metavar="S",
        type=seconds,
        default=60.0,
        help="longest time of the test program, in seconds (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Find, test, print; an error if something that was tested does not work."""
    from tvm_ahcq.codegen.devices import device_check as doctor
    from tvm_ahcq.codegen.isa.config import named

    for name in args.config:
        named(name)
    need = None if args.bundle is None else _need(args.bundle)
    made, built_with = doctor.versions(), doctor.tools()
    found: list[DeviceStatus] = []
    with progress_bar("test") as update:
        for finding in doctor.check_devices(args.device, need, args.config, args.device_timeout):
            found.append(finding)
            update(finding.device, len(found), len(found))
    if args.json:
        bundle = None if need is None else {"path": str(args.bundle), **asdict(need)}
        print(
            json.dumps(
                {
                    "versions": made,
                    "tools": built_with,
                    "bundle": bundle,
                    "devices": [asdict(finding) for finding in found],
                },
                indent=1,
            )
        )
    else:
        _print(made, built_with, need, found)
    _judge(found, need)


def _need(path: Path) -> Requirement:
    """Return the requirements of a bundle's programs."""
    from tvm_ahcq.codegen.devices.device_check import Requirement
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.offload import OffloadReport
    from tvm_ahcq.runtime.session import Session

    bundle = read_bundle(path)
    if bundle.manifest.accelerator is None:
        raise BundleError(f"{path}: runs on the host alone; compile it with --accelerator CONFIG")
    report = OffloadReport.from_dict(bundle.manifest.accelerator)
    accelerator = Session(bundle).accelerator
    assert accelerator is not None, "the manifest says that there is one"
    return Requirement(report.config, report.config_hash, accelerator.memory_bytes)


def _print(
    made: dict[str, str], tools: dict[str, str | None], need: Requirement | None, found: Sequence[DeviceStatus]
) -> None:
    for name, version in {**made, **tools}.items():
        result("versions" if name == "tvm-ahcq" else "", f"{name}: {version or 'not found'}")
    if need is not None:
        result("bundle", f"for {need.config} ({need.hash:#010x}), {need.memory_bytes} bytes of device memory")
    header = ("device", "configuration", "hash", "self-test", "time", *(("bundle",) if need else ()), "what it is")
    rows = []
    for each in found:
        known = "" if each.hash is None else f"{each.hash:#010x}"
        spent = duration(each.seconds) if each.seconds else ""
        rows.append((each.device, each.config, known, each.test, spent, *((each.bundle,) if need else ()), each.detail))
    table(header, rows, texts=len(header))


def _judge(found: Sequence[DeviceStatus], need: Requirement | None) -> None:
    """Exit status 2 for what does not work."""
    failed = [each for each in found if each.test == "failed"]
    if failed:
        names = ", ".join(f"{each.device} {each.config}".strip() for each in failed)
        raise DeviceError(f"{len(failed)} of {len(found)} devices do not work: {names}; first: {failed[0].detail}")
    if need is not None and not any(each.bundle == "runs it" and each.test == "passed" for each in found):
        reasons = "; ".join(dict.fromkeys(f"{each.device}: {each.bundle}" for each in found if each.bundle))
        raise DeviceError(f"no device that was tested runs the bundle: {reasons or 'none was tested'}")

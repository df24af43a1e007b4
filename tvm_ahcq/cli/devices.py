"""``tvm-ahcq devices``: list accelerators and test them."""

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
    """Find and test devices, and print their status; an error if a tested device does not work."""
    from tvm_ahcq.codegen.devices import device_check
    from tvm_ahcq.codegen.isa.config import named

    for name in args.config:
        named(name)
    requirement = None if args.bundle is None else _requirement(args.bundle)
    versions, tools = device_check.versions(), device_check.tools()
    devices: list[DeviceStatus] = []
    with progress_bar("test") as update:
        for status in device_check.check_devices(args.device, requirement, args.config, args.device_timeout):
            devices.append(status)
            update(status.device, len(devices), len(devices))
    if args.json:
        bundle = None if requirement is None else {"path": str(args.bundle), **asdict(requirement)}
        print(
            json.dumps(
                {
                    "versions": versions,
                    "tools": tools,
                    "bundle": bundle,
                    "devices": [asdict(status) for status in devices],
                },
                indent=1,
            )
        )
    else:
        _print(versions, tools, requirement, devices)
    _judge(devices, requirement)


def _requirement(path: Path) -> Requirement:
    """Return the requirement of a bundle's programs."""
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
    versions: dict[str, str],
    tools: dict[str, str | None],
    requirement: Requirement | None,
    devices: Sequence[DeviceStatus],
) -> None:
    for name, version in {**versions, **tools}.items():
        result("versions" if name == "tvm-ahcq" else "", f"{name}: {version or 'not found'}")
    if requirement is not None:
        result(
            "bundle",
            f"for {requirement.config} ({requirement.hash:#010x}), {requirement.memory_bytes} bytes of device memory",
        )
    header = (
        "device",
        "configuration",
        "hash",
        "self-test",
        "time",
        *(("bundle",) if requirement else ()),
        "what it is",
    )
    rows = []
    for each in devices:
        config_hash = "" if each.hash is None else f"{each.hash:#010x}"
        spent = duration(each.seconds) if each.seconds else ""
        rows.append(
            (
                each.device,
                each.config,
                config_hash,
                each.test,
                spent,
                *((each.bundle,) if requirement else ()),
                each.detail,
            )
        )
    table(header, rows, texts=len(header))


def _judge(devices: Sequence[DeviceStatus], requirement: Requirement | None) -> None:
    """Raise for devices that do not work, or if none of them runs the bundle."""
    failed = [each for each in devices if each.test == "failed"]
    if failed:
        names = ", ".join(f"{each.device} {each.config}".strip() for each in failed)
        raise DeviceError(f"{len(failed)} of {len(devices)} devices do not work: {names}; first: {failed[0].detail}")
    if requirement is not None and not any(each.bundle == "runs it" and each.test == "passed" for each in devices):
        reasons = "; ".join(dict.fromkeys(f"{each.device}: {each.bundle}" for each in devices if each.bundle))
        raise DeviceError(f"no device that was tested runs the bundle: {reasons or 'none was tested'}")

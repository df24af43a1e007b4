"""``tvm-ahcq serve``: offer the accelerators of this machine to others."""

from __future__ import annotations

import argparse

from .arguments import device_name, port
from .console import result

EXAMPLES = """\
examples:
  on the machine with the board:  tvm-ahcq serve --host 0.0.0.0 --device board:/dev/uio0,/dev/udmabuf0
  on the laptop:                  tvm-ahcq devices --device rpc:192.168.1.2:9090/board
                                  tvm-ahcq segment vit_t.ahcq photo.jpg --point 320,240 -o out.png \\
                                      --device rpc:192.168.1.2:9090/board
  to try it on one machine:       tvm-ahcq serve --port 9090 --device fsim
                                  tvm-ahcq verify vit_t.ahcq --device rpc:127.0.0.1:9090/fsim

The bundle stays on the laptop: programs and weights are sent when it is loaded, activations with every picture.
TVM's RPC has no passwords and no encryption: whoever reaches the port can run code as the user who serves. The default
host lets this machine only; open it to networks that you trust. Ctrl-C ends it.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "serve",
        help="let other machines use the accelerators of this one",
        description="Let other machines use the accelerators of this one, as rpc:HOST:PORT/.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 for all networks (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port",
        metavar="P",
        type=port,
        default=9090,
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        metavar="D",
        action="append",
        default=[],
        type=device_name,
        help="a device to offer: fsim, rtl or board:/dev/uio0,/dev/udmabuf0; may be repeated (default: "
        "any that a client names)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check the offered devices, then serve until interrupted."""
    from tvm_ahcq.runtime.accelerator import prepare
    from tvm_ahcq.runtime.server import Offer, listen, serve

    offer = Offer(tuple(args.device))
    prepare()
    for name in offer.names:
        _check(name)
    with listen(args.host, args.port) as listener:
        host, number = listener.getsockname()[:2]
        result("serving", f"{', '.join(offer.names) or 'fsim, rtl, board:...'} at rpc:{host}:{number}/DEVICE")
        serve(listener, offer, lambda text: result("", text))


def _check(name: str) -> None:
    """Raise for a device that is not there."""
    from tvm_ahcq.codegen.devices.device import open_device

    if name.startswith("board"):
        open_device(name).close()
    elif name == "rtl":
        from tvm_ahcq.codegen.hardware.simulator import verilator

        verilator("--version")

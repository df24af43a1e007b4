"""Lets other machines use the accelerators of this one: a server of TVM's RPC, a process for each client.

Clients speak TVM's own protocol; what they call is registered by our C++ library (``remote_server.cc``), so that
``python -m tvm.exec.rpc_server --load-library .../libtvm_ahcq.so`` serves them as well, one at a time. This server
needs TVM's runtime library only, takes several clients, builds the simulated RTL, and offers no more than it was told
to. TVM's RPC has no authentication: whoever reaches the port can run code as the user of the server.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm_ahcq.errors import AhcqError, DeviceError

from .accelerator import check_name, full_name
from .ffi import ahcq_library, tvm_runtime

_MAGIC = 0xFF271
"""First bytes that both sides of TVM's RPC send."""

_HANDSHAKE_SECONDS = 10
_KEY_BYTES = 1024
"""More than any client's key has."""


@dataclass(frozen=True)
class Offer:
    """Devices that clients may open; all of them if `names` is empty.

    Attributes
    ----------
    names : tuple of str
        ``fsim``, ``rtl``, ``board:<uio>,<udmabuf>``.
    """

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            check_name(name)
            if name.startswith("rpc:"):
                raise DeviceError(f"{name!r} is on another machine already; clients can connect to it themselves.")

    def resolve(self, asked: str) -> str:
        """The name to open for the one that a client asks for, as ``runtime/device.h`` takes it.

        A client need not know the places of a board: ``board`` is the one that is offered.

        Raises
        ------
        DeviceError
            It is not offered, is no device, or its simulation cannot be built.
        """
        backend, _, rest = asked.partition(":")
        check_name(asked)
        if backend == "rpc":
            raise DeviceError("a server does not pass devices of other servers on.")
        offered = [name for name in self.names if name.partition(":")[0] == backend]
        if self.names and not offered:
            raise DeviceError(f"this server does not offer {backend!r}; it offers {', '.join(self.names)}.")
        if backend == "board":
            return _board(rest, offered)
        if backend == "rtl":
            config, _, options = rest.partition(",")
            return full_name("rtl", config or "ecp5_16x16") + (f",{options}" if options else "")
        return asked


def _board(rest: str, offered: Sequence[str]) -> str:
    """The board that a client means: the one that is offered, or one by its places."""
    if not rest and len(offered) == 1:
        return offered[0]
    if not rest:
        raise DeviceError(
            "which board? Give its devices, such as board:/dev/uio0,/dev/udmabuf0"
            + (f"; offered are {', '.join(offered)}." if offered else ".")
        )
    if offered and f"board:{rest}" not in offered:
        raise DeviceError(f"this server does not offer 'board:{rest}'; it offers {', '.join(offered)}.")
    return f"board:{rest}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to; port 0 takes a free one.

    Raises
    ------
    DeviceError
        The address cannot be used.
    """
    try:
        return socket.create_server((host, port), backlog=8)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DeviceError(f"{host}:{port} cannot be served on: {reason}; choose another --host or --port.") from error


def serve(listener: socket.socket, offer: Offer, log: Callable[[str], None]) -> None:
    """Serves clients until interrupted; each gets a process, which ends with its connection or with the server.

    Parameters
    ----------
    listener : socket
        From :func:`listen`.
    offer : Offer
        What clients may open.
    log : callable
        Told of every client.
    """
    children: list[subprocess.Popen[bytes]] = []
    try:
        while True:
            connection, address = listener.accept()
            children = [child for child in children if child.poll() is None]
            with connection:
                children.append(_start(connection, offer))
            log(f"client {address[0]}:{address[1]}, process {children[-1].pid}; {len(children)} connected")
    finally:
        for child in children:
            child.terminate()


def _start(connection: socket.socket, offer: Offer) -> subprocess.Popen[bytes]:
    """A process for one client. Its standard input closes when this process ends, whatever ends it."""
    number = connection.fileno()
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-m", __name__, str(number), *offer.names]
    return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number], env={**os.environ, "PYTHONPATH": path})


def serve_client(connection: socket.socket, offer: Offer) -> None:
    """Serves one client until it leaves.

    Raises
    ------
    DeviceError
        It speaks another protocol, or a runtime library is missing.
    """
    connection.settimeout(_HANDSHAKE_SECONDS)
    try:
        _shake_hands(connection)
    except OSError as error:
        raise DeviceError(f"a client connected and did not go on: {error}.") from error
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # answers are short and waited for
    tvm_runtime()
    library = ahcq_library()
    library.register_global_func("ahcq.remote.resolve", offer.resolve, override=True)
    library.get_global_func("rpc.ServerLoop")(connection.detach())


def _shake_hands(connection: socket.socket) -> None:
    """Magic number and key of each side, as TVM's RPC begins."""
    (magic,) = struct.unpack("<i", _receive(connection, 4))
    (size,) = struct.unpack("<i", _receive(connection, 4)) if magic == _MAGIC else (-1,)
    if not 0 <= size <= _KEY_BYTES:
        raise DeviceError("a client connected that does not speak the protocol of TVM's RPC.")
    _receive(connection, size)
    key = b"server:tvm-ahcq"
    connection.sendall(struct.pack("<ii", _MAGIC, len(key)) + key)


def _receive(connection: socket.socket, size: int) -> bytes:
    """That many bytes."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise OSError("it left")
        data += part
    return data


def _end_with_parent() -> None:
    """Ends this process when the server does: its end of standard input then closes."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> int:
    """Body of a client's process: the number of its socket, then the devices that are offered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=int)
    parser.add_argument("devices", nargs="*")
    args = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve_client(socket.socket(fileno=args.socket), Offer(tuple(args.devices)))
    except AhcqError as error:
        print(f"tvm-ahcq: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a device may still be at work in a thread of the library

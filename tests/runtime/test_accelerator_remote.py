"""The accelerator part behind TVM's RPC server in another process: equal results, and every way for it to go wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import Device, open_device
from tvm_ahcq.codegen.devices.golden_program import self_test
from tvm_ahcq.codegen.devices.mock_board import MockBoard
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.predictor import SamPredictor
from tvm_ahcq.runtime.accelerator import DeviceOptions
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.server import Offer
from tvm_ahcq.runtime.session import Session

CONFIG = named("sim_4x4")


class Server:
    """``tvm-ahcq serve`` in a process group of its own."""

    def __init__(self, *arguments: str) -> None:
        code = "import sys; from tvm_ahcq.cli.main import main; sys.exit(main())"
        path = os.pathsep.join(entry for entry in sys.path if entry)
        # not in the folder of the sources, which `-c` would import instead of what is installed
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", "0", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parent,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        self.port = int(re.search(r"rpc:127\.0\.0\.1:(\d+)/", self.first_line)[1])

    def send(self, number: signal.Signals) -> None:
        """A signal to the server and its processes."""
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Kills what is left of it."""
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--device", "fsim") as opened:
        yield opened


class Wire:
    """Stands between clients and a server, and counts the bytes that go to the server."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target = port
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, to, count in ((server, client, False), (client, server, True)):
                threading.Thread(target=self._pass, args=(source, to, count), daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, count: bool) -> None:
        with suppress(OSError):  # the other side has left
            while data := source.recv(1 << 16):
                self.sent += len(data) if count else 0
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


def session_of(accelerated, name: str, **options) -> Session:
    return Session(read_bundle(accelerated.both), device=DeviceOptions(name, **options))


@pytest.fixture(scope="module")
def expected(accelerated) -> np.ndarray:
    return SamFunctions(session_of(accelerated, "fsim")).encode(accelerated.image)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_masks_equal_those_of_the_local_simulator_in_every_bit(accelerated, server):
    picture = np.random.default_rng(5).integers(0, 255, (96, 120, 3)).astype(np.uint8)
    found = []
    for name in ("fsim", f"rpc:127.0.0.1:{server.port}/fsim"):
        predictor = SamPredictor(session_of(accelerated, name))
        predictor.set_image(picture)
        masks, scores, logits = predictor.predict(np.array([[40, 30], [80, 60]]), np.array([1, 0]))
        found.append((predictor.get_image_embedding(), masks, scores, logits))
    for near, far in zip(*found, strict=True):
        np.testing.assert_array_equal(near, far)
    device = predictor.session.accelerator
    assert device.device == f"rpc 127.0.0.1:{server.port}, fsim (sim_4x4)"
    assert any(each.counters["cycles"] for each in device.counters())


def test_weights_and_programs_are_sent_once(accelerated, server, expected):
    wire = Wire(server.port)
    session = session_of(accelerated, f"rpc:127.0.0.1:{wire.port}/fsim")
    loaded = wire.sent
    np.testing.assert_array_equal(SamFunctions(session).encode(accelerated.image), expected)
    first = wire.sent - loaded
    np.testing.assert_array_equal(SamFunctions(session).encode(accelerated.image), expected)
    second = wire.sent - loaded - first
    constants = sum(len(session.accelerator.program(each.symbol)) for each in session.accelerator.counters())
    assert loaded > constants > 0
    assert second == first


@pytest.mark.parametrize("on_error", ["raise", "host"])
def test_a_server_that_is_killed_while_it_computes(accelerated, expected, on_error, capfd):
    with serving() as server:
        name = f"rpc:127.0.0.1:{server.port}/fsim:sim_4x4,hang=3"
        session = session_of(accelerated, name, on_error=on_error)
        threading.Timer(1.0, server.send, [signal.SIGKILL]).start()
        start = time.monotonic()
        if on_error == "host":
            np.testing.assert_array_equal(SamFunctions(session).encode(accelerated.image), expected)
            assert capfd.readouterr().err.count("going on with the functional simulator") == 1
        else:
            with pytest.raises(DeviceError, match=r"the connection is lost: the server ended or cannot be reached"):
                SamFunctions(session).encode(accelerated.image)
            with pytest.raises(DeviceError, match="no server answers there"):  # the next call tries again
                SamFunctions(session).encode(accelerated.image)
        assert time.monotonic() - start < 60  # no hang: a program may take 600 s


def test_a_server_that_falls_silent_is_an_error_in_time(accelerated):
    with serving() as server:
        session = session_of(accelerated, f"rpc:127.0.0.1:{server.port},answer=10/fsim:sim_4x4,hang=2")
        threading.Timer(1.0, server.send, [signal.SIGSTOP]).start()
        with pytest.raises(DeviceError, match=r"no answer from 127\.0\.0\.1:\d+ within [\d.]+ s"):
            SamFunctions(session).encode(accelerated.image)


def test_a_program_that_hangs_behind_a_server_is_stopped(accelerated, server):
    session = session_of(accelerated, f"rpc:127.0.0.1:{server.port}/fsim:sim_4x4,hang=2", seconds=0.3)
    with pytest.raises(DeviceError, match=r"still runs after 0\.3 s; the device was reset"):
        SamFunctions(session).encode(accelerated.image)


def test_what_cannot_work_is_refused_when_the_bundle_is_loaded(accelerated, server):
    with pytest.raises(DeviceError, match=r"no server answers there .* start one with `tvm-ahcq serve --port \d+`"):
        session_of(accelerated, f"rpc:127.0.0.1:{free_port()}/fsim")
    hashes = {name: f"{named(name).hash:#010x}" for name in ("sim_4x4", "ecp5_16x16")}
    both = rf"has configuration {hashes['ecp5_16x16']} \(ecp5_16x16\).*{hashes['sim_4x4']} \(sim_4x4\)"
    with pytest.raises(DeviceError, match=both):
        session_of(accelerated, f"rpc:127.0.0.1:{server.port}/fsim:ecp5_16x16")
    with pytest.raises(DeviceError, match="does not offer 'rtl'; it offers fsim"):
        session_of(accelerated, f"rpc:127.0.0.1:{server.port}/rtl")
    with pytest.raises(DeviceError, match="no option 'speed'"):
        session_of(accelerated, f"rpc:127.0.0.1:{server.port}/fsim:sim_4x4,speed=3")


def test_a_server_that_is_none_of_ours_is_refused_in_time(accelerated):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DeviceError, match=rf"no answer from 127\.0\.0\.1:{port} within 1 s"):
            session_of(accelerated, f"rpc:127.0.0.1:{port},answer=1/fsim")


def test_the_host_takes_over_from_an_absent_server(accelerated, expected, capfd):
    session = session_of(accelerated, f"rpc:127.0.0.1:{free_port()}/fsim", on_error="host")
    assert capfd.readouterr().err.count("going on with the functional simulator") == 1
    np.testing.assert_array_equal(SamFunctions(session).encode(accelerated.image), expected)


def test_a_client_that_speaks_another_protocol_does_no_harm_and_several_are_served(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""  # turned away
    name = f"rpc:127.0.0.1:{server.port}/fsim"
    with open_device(name, CONFIG, memory_bytes=1 << 16) as one, open_device(name, CONFIG) as other:
        self_test(one, CONFIG)
        self_test(other, CONFIG)
        assert (one.memory_bytes, other.memory_bytes) == (1 << 16, 1 << 26)


def test_large_copies_and_refusals_come_through(server):
    with open_device(f"rpc:127.0.0.1:{server.port}/fsim", CONFIG, memory_bytes=1 << 20) as device:
        data = np.random.default_rng(1).bytes(900_001)
        device.copy_in(64, data)
        assert device.copy_out(64, len(data)) == data
        with pytest.raises(DeviceError, match="outside of the memory"):
            device.copy_in((1 << 20) - 1, b"ab")
        assert device.read_register("config_hash") == CONFIG.hash


def test_a_board_behind_a_server_needs_no_places(tmp_path):
    with MockBoard(tmp_path, CONFIG, 1 << 16) as board, serving("--device", board.device_name) as server:
        with open_device(f"rpc:127.0.0.1:{server.port}/board", CONFIG) as device:
            self_test(device, CONFIG)
            assert "board" in device.name
        with pytest.raises(DeviceError, match="does not offer 'board:/dev/uio9,/dev/udmabuf9'"):
            open_device(f"rpc:127.0.0.1:{server.port}/board:/dev/uio9,/dev/udmabuf9")


@pytest.mark.slow
def test_the_simulated_rtl_is_built_where_the_server_is():
    with serving("--device", "rtl") as server:
        with open_device(f"rpc:127.0.0.1:{server.port}/rtl", CONFIG) as device:
            self_test(device, CONFIG)
            assert device.name.endswith(", rtl")


def test_the_processes_of_clients_end_with_their_server():
    with serving() as server, open_device(f"rpc:127.0.0.1:{server.port}/fsim", CONFIG) as device:
        assert device.read_register("config_hash") == CONFIG.hash
        server.process.kill()  # the server alone, in a way that it cannot see
        server.process.wait()
        with pytest.raises(DeviceError, match="the connection is lost"):
            for _ in range(100):
                device.read_register("config_hash")
                time.sleep(0.1)


@pytest.mark.slow
def test_the_server_of_tvm_with_our_library_serves_as_well(runtime_library: Path):
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "tvm.exec.rpc_server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--port-end",
        str(port + 1),
        "--load-library",
        str(runtime_library),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as stock:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            with open_device(f"rpc:127.0.0.1:{port},answer=60/fsim", CONFIG) as device:
                self_test(device, CONFIG)
        finally:
            os.killpg(stock.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("offered", "asked", "message"),
    [
        (("fsim",), "rtl:sim_4x4", "does not offer 'rtl'; it offers fsim"),
        ((), "rpc:127.0.0.1:9090/fsim", "does not pass devices of other servers on"),
        ((), "board", "which board"),
        (("board:a,b", "board:c,d"), "board", "offered are board:a,b, board:c,d"),
        ((), "gpu", "No accelerator is called 'gpu'"),
        (("rpc:127.0.0.1:9090/fsim",), "", "on another machine already"),
    ],
)
def test_what_a_server_does_not_offer_is_refused_by_name(offered, asked, message):
    with pytest.raises(DeviceError, match=message):
        Offer(offered).resolve(asked)


def test_a_server_opens_what_it_was_told_to():
    assert Offer().resolve("fsim:sim_4x4,memory=4096") == "fsim:sim_4x4,memory=4096"
    assert Offer(("board:a,b",)).resolve("board") == "board:a,b"
    assert Offer(("fsim", "board:a,b")).resolve("board:a,b") == "board:a,b"


@pytest.mark.parametrize(
    "name",
    [
        "rpc:9090/fsim",
        "rpc:host:port/fsim",
        "rpc:host:9090",
        "rpc:host:9090/",
        "rpc:host:0/fsim",
        "rpc:host:90909/fsim",
    ],
)
def test_an_address_that_is_none_is_explained(name):
    with pytest.raises(DeviceError, match="expected rpc:HOST:PORT/DEVICE"):
        DeviceOptions(name)
    with pytest.raises(DeviceError, match="expected rpc:HOST:PORT/DEVICE"):
        Device(name)

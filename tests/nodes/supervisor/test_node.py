"""The supervisor with real processes: start, death, take-over, stop."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydns.nodes.known import Known
from raydns.nodes.supervisor import main, procfs
from raydns.schemas.errors import CommandError, RaydnsError, SocketError, StateError, UnreachableError
from tests.nodes.supervisor.support import Background, background, config, fake_ingress, until


@pytest.fixture
def node() -> Iterator[Background]:
    """A node's place."""
    with background() as made:
        yield made


def test_start_said_twice_and_stop(node: Background) -> None:
    """Start returns once DNS is answered; said again it changes nothing; stop leaves no process and no socket."""
    first = node.start()
    assert not first["already"]
    assert first["ready"]
    assert len(first["addresses"]) == 2
    ports = {address.rpartition(":")[2] for address in first["addresses"]}
    assert len(ports) == 1
    for address in first["addresses"]:
        assert node.ask(address=address) == first["ingress"]["pid"]
    second = node.start()
    assert second["already"]
    assert second["pid"] == first["pid"]
    snapshot = Known(node.state_dir).load()
    assert snapshot is not None
    assert snapshot.version == (0, 1)
    assert main.stop(node.state_dir)
    assert node.processes() == []
    assert not main.stop(node.state_dir)
    left = {path.name for path in node.state_dir.run.iterdir()}
    assert left <= {"addresses.json", "ingress.json", "node.lock", "s"}


def test_tcp_is_answered_too(node: Background) -> None:
    """The TCP socket has the same port and reaches the same ingress."""
    status = node.start()
    host, _, port = status["addresses"][0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        assert int(client.recv(100)) == status["ingress"]["pid"]


def test_ingress_killed_is_back_within_a_second(node: Background) -> None:
    """After kill -9 a packet that was sent meanwhile is answered by the next ingress: the sockets never closed."""
    status = node.start()
    old = node.ask()
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    new = until(lambda: (pid := node.ask()) != old and pid, "another ingress answers")
    assert time.monotonic() - began < 3.0  # a second on a machine of its own; tests share theirs
    found = node.status()
    assert found["ingress"]["pid"] == new
    assert found["ingress"]["restarts"] == 1
    assert found["addresses"] == status["addresses"]


def test_killed_supervisor_leaves_the_ingress_and_the_next_finds_it(node: Background) -> None:
    """Kill -9 of the supervisor costs nothing; the next one has the same ingress, its sockets, and brings it back."""
    first = node.start()
    address = first["addresses"][0]
    os.kill(first["pid"], signal.SIGKILL)
    assert node.ask(address=address) == first["ingress"]["pid"]
    second = node.start()
    assert not second["already"]
    assert second["pid"] != first["pid"]
    assert second["ingress"]["pid"] == first["ingress"]["pid"]
    assert second["addresses"] == first["addresses"]
    os.kill(first["ingress"]["pid"], signal.SIGKILL)
    until(lambda: node.ask(address=address) != first["ingress"]["pid"], "the adopted one is replaced")
    assert main.takeover(node.state_dir)["pid"] == until(node.ask, "answer")
    assert main.stop(node.state_dir)
    assert node.processes() == []


def test_supervisor_and_ingress_killed(node: Background) -> None:
    """With both gone a new supervisor binds the same port again and answers."""
    first = node.start()
    os.kill(first["pid"], signal.SIGKILL)
    os.kill(first["ingress"]["pid"], signal.SIGKILL)
    second = node.start()
    assert second["addresses"] == first["addresses"]
    assert node.ask() == second["ingress"]["pid"]


def test_a_hung_ingress_does_not_keep_the_next_supervisor_away(node: Background) -> None:
    """An ingress that is stopped (SIGSTOP) holds the port and answers nothing: the next supervisor ends it."""
    first = node.start()
    os.kill(first["pid"], signal.SIGKILL)
    os.kill(first["ingress"]["pid"], signal.SIGSTOP)
    second = node.start()
    assert second["ingress"]["pid"] != first["ingress"]["pid"]
    assert node.ask() == second["ingress"]["pid"]


def test_twenty_takeovers_lose_nothing(node: Background) -> None:
    """Twenty take-overs under load: every packet is answered once, and the kernel dropped none."""
    status = node.start()
    host, _, port = status["addresses"][0].rpartition(":")
    drops_before = kernel_drops(int(port))
    load = Load(host, int(port))
    load.start()
    pids = {status["ingress"]["pid"]}
    for _ in range(20):
        report = main.takeover(node.state_dir)
        pids.add(report["pid"])
    load.finish()
    assert len(pids) == 21
    assert load.sent > 200
    assert load.lost() == []
    assert load.twice == 0
    assert kernel_drops(int(port)) == drops_before
    until(lambda: list(node.status()["ingress"]["phases"].values()) == ["serving"], "the old ones have left")
    assert main.stop(node.state_dir)
    assert node.processes() == []


def test_a_takeover_that_fails_changes_nothing(node: Background) -> None:
    """A new ingress that cannot start is reported with the reason; the old one goes on."""
    status = node.start()
    (node.place / "fake-mode").write_text("fail")
    with pytest.raises(
        CommandError, match="no take-over: the new ingress did not start: exited with status 3"
    ) as caught:
        main.takeover(node.state_dir)
    assert "DNS goes on as before" in caught.value.hint
    assert node.ask() == status["ingress"]["pid"]
    (node.place / "fake-mode").unlink()
    assert main.takeover(node.state_dir)["pid"] != status["ingress"]["pid"]


def test_changed_addresses_are_handed_over(node: Background) -> None:
    """A new supervisor with one more address and one less renews the ingress it found: kept socket, new socket."""
    first = node.start(listen=["127.0.0.1", "127.0.0.2"])
    os.kill(first["pid"], signal.SIGKILL)
    second = node.start(listen=["127.0.0.1", "127.0.0.3"])
    kept = first["addresses"][0]
    assert second["addresses"][0] == kept
    assert second["addresses"][1].startswith("127.0.0.3:")
    pid = until(lambda: (p := node.ask()) != first["ingress"]["pid"] and p, "the new ingress answers")
    assert node.ask(address=second["addresses"][1]) == pid
    until(lambda: first["ingress"]["pid"] not in procfs.all_processes(), "the old one has left")
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        node.ask(address=first["addresses"][1], timeout_s=0.5)


def test_an_ingress_that_never_starts_is_explained(node: Background) -> None:
    """Start tells what the ingress last said, well before its deadline; the node goes on trying and can be stopped."""
    node.state_dir.create()
    (node.place / "fake-mode").write_text("fail")
    with pytest.raises(UnreachableError, match="fake ingress: this start fails on purpose") as caught:
        main.start(config(node.place), ingress=fake_ingress(node.place), timeout_s=100.0)
    assert "exited with status 3" in caught.value.message
    assert "ingress.log" in caught.value.where
    (node.place / "fake-mode").unlink()
    until(lambda: node.status().get("ready"), "it tried again")
    assert main.stop(node.state_dir)


def test_an_ingress_that_is_never_ready_runs_into_the_deadline(node: Background) -> None:
    """One that neither answers nor fails is told at the deadline of start; what has not begun by then is ended."""
    node.state_dir.create()
    (node.place / "fake-mode").write_text("mute")
    with pytest.raises(UnreachableError, match="has not begun"):
        main.start(config(node.place), ingress=fake_ingress(node.place), timeout_s=0.0)
    assert not main.stop(node.state_dir)
    with pytest.raises(UnreachableError, match="DNS is not answered after") as caught:
        main.start(config(node.place), ingress=fake_ingress(node.place), timeout_s=4.0)
    assert "ingress.log" in caught.value.hint
    with pytest.raises(UnreachableError, match="does not answer"):
        main.start(config(node.place), ingress=fake_ingress(node.place), timeout_s=0.2)
    assert main.stop(node.state_dir)
    assert node.processes() == []


def test_a_second_supervisor_is_refused(node: Background) -> None:
    """One state directory, one supervisor: the message names the first one's process id."""
    status = node.start()
    with pytest.raises(StateError, match=f"another supervisor \\(process {status['pid']}\\)"):
        main.run(config(node.place), ingress=fake_ingress(node.place))


def test_two_clusters_on_one_machine(node: Background) -> None:
    """Two state directories run side by side; the same port for both is refused and names the holder."""
    first = node.start()
    port = int(first["addresses"][0].rpartition(":")[2])
    with background() as other:
        with pytest.raises(SocketError, match=f"port {port} is in use by process \\d+") as caught:
            other.start(port=port)
        assert "127.0.0.1" in caught.value.where
        assert caught.value.hint
        assert other.processes() == []
        second = other.start()
        assert second["addresses"] != first["addresses"]
        assert other.ask() != node.ask()


def test_sigterm_is_an_orderly_end_in_the_foreground(node: Background) -> None:
    """A node in the foreground ends with status 0 on SIGTERM, on SIGINT, and at once on a second SIGINT."""
    for signals in ((signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)):
        program = (
            "import sys\nfrom pathlib import Path\nfrom raydns.nodes.supervisor import main\n"
            "from tests.nodes.supervisor.support import config, fake_ingress\n"
            f"place = Path({str(node.place)!r})\n"
            "sys.exit(main.run(config(place), ingress=fake_ingress(place), on_ready=lambda s: print('up', flush=True)))"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "up\n"
            for number in signals:
                running.send_signal(number)
            assert running.wait(20) == 0
        assert node.processes() == []


def test_the_service_manager_is_told_and_gives_sockets(node: Background) -> None:
    """READY=1 and STOPPING=1 reach NOTIFY_SOCKET, and sockets of LISTEN_FDS are used in place of binding."""
    node.state_dir.create()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        manager.bind(str(node.place / "notify"))
        manager.settimeout(20)
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        tcp.bind(("127.0.0.1", port))
        tcp.listen()
        program = (
            f"import os, sys\nos.dup2({udp.fileno()}, 3); os.dup2({tcp.fileno()}, 4)\n"
            f"os.environ['NOTIFY_SOCKET'] = {str(node.place / 'notify')!r}\n"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2'}\n"
            "from pathlib import Path\nfrom raydns.nodes.supervisor import main\n"
            "from tests.nodes.supervisor.support import config, fake_ingress\n"
            f"place = Path({str(node.place)!r})\n"
            "main.run(config(place, port=9), ingress=fake_ingress(place))"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=[udp.fileno(), tcp.fileno(), *range(3, 5)]
        ) as running:
            assert manager.recv(1000).startswith(b"READY=1\nSTATUS=answering on 127.0.0.1:%d" % port)
            assert node.ask(address=f"127.0.0.1:{port}") == node.status()["ingress"]["pid"]
            running.terminate()
            assert manager.recv(1000) == b"STOPPING=1"
            assert running.wait(20) == 0


def test_a_damaged_secret_stops_the_start(node: Background) -> None:
    """A secret that is no secret is said before anything is started."""
    node.state_dir.create()
    node.state_dir.secret.write_text("not hexadecimal")
    node.state_dir.secret.chmod(0o600)
    with pytest.raises(StateError, match="cluster secret") as caught:
        node.start()
    assert str(node.state_dir.secret) in caught.value.where
    assert caught.value.hint
    assert node.processes() == []


def test_a_state_directory_that_is_not_ours_stops_the_start(node: Background) -> None:
    """A foreign directory is refused by start itself, without a process."""
    (node.place / "letters").write_text("x")
    with pytest.raises(RaydnsError, match="not made by raydns"):
        node.start()
    assert node.processes() == []


class Load:
    """Sends numbered packets at a steady rate from several sockets and counts what comes back."""

    def __init__(self, host: str, port: int, rate: float = 400.0) -> None:
        self._target = (host, port)
        self._interval = 1 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._answered: dict[int, int] = {}
        self.sent = 0

    @property
    def twice(self) -> int:
        """Packets that were answered more than once."""
        return sum(count > 1 for count in self._answered.values())

    def lost(self) -> list[int]:
        """Packets without an answer."""
        return [number for number in range(self.sent) if number not in self._answered]

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def finish(self) -> None:
        """Stops sending and waits for what is under way."""
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
        with selectors.DefaultSelector() as selector:
            for client in clients:
                client.connect(self._target)
                client.setblocking(False)
                selector.register(client, selectors.EVENT_READ)
            due = time.monotonic()
            while not self._stop.is_set():
                if time.monotonic() >= due:
                    due += self._interval
                    clients[self.sent % len(clients)].send(b"%d" % self.sent)
                    self.sent += 1
                self._read(selector, max(0.0, due - time.monotonic()))
            deadline = time.monotonic() + 5
            while self.lost() and time.monotonic() < deadline:
                self._read(selector, 0.05)
        for client in clients:
            client.close()

    def _read(self, selector: selectors.BaseSelector, timeout_s: float) -> None:
        for key, _ in selector.select(timeout_s):
            assert isinstance(key.fileobj, socket.socket)
            number = int(key.fileobj.recv(4096).split()[1])
            self._answered[number] = self._answered.get(number, 0) + 1


def kernel_drops(port: int) -> int:
    """The drop counters of all UDP sockets on a port (last column of /proc/net/udp)."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if int(line.split()[1].partition(":")[2], 16) == port)

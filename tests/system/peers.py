"""Real name servers for the tests to forward to, and scripted ones for faults that a real one will not make."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

UPSTREAM_ZONE = """$ORIGIN upstream.test.
$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
www IN A 198.51.100.1
*.cold IN A 198.51.100.2
*.warm IN A 198.51.100.3
short 1 IN A 198.51.100.4
alias IN CNAME www
big IN TXT """ + " ".join(f'"{"x" * 250}"' for _ in range(8))


def free_port() -> int:
    """A port that is free for UDP and TCP now."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Nsd:
    """A real NSD that serves ``upstream.test.``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "upstream.zone").write_text(UPSTREAM_ZONE)
        (folder / "nsd.conf").write_text(
            f"""server:
  ip-address: 127.0.0.1@{self.port}
  port: {self.port}
  server-count: 1
  username: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  logfile: "{folder}/nsd.log"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: upstream.test.
  zonefile: upstream.zone
"""
        )
        self._process = subprocess.Popen(["nsd", "-d", "-c", str(folder / "nsd.conf")], stderr=subprocess.DEVNULL)
        wait_answers(self.port, folder / "nsd.log")

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(10)


def wait_answers(port: int, log: Path, seconds: float = 15) -> None:
    """Waits until a DNS server answers; its log is shown where it does not."""
    deadline = time.monotonic() + seconds
    probe = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08upstream\x04test\x00\x00\x06\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                sock.sendto(probe, ("127.0.0.1", port))
                sock.recv(4096)
            except OSError:
                continue
            return
    raise AssertionError(f"no answer from port {port}: {log.read_text() if log.exists() else 'no log'}")


class Scripted:
    """A name server whose answers a function makes, for lies that a real one won't tell; counts what it is asked.

    Args:
        answer: question message → replies to send, in order; none is silence.
    """

    def __init__(self, answer: Callable[[bytes], list[bytes]], port: int = 0) -> None:
        self.asked: Counter[bytes] = Counter()
        self._answer = answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._udp.bind(("127.0.0.1", port or free_port()))  # free for TCP as well
        self._udp.settimeout(0.1)
        self.port = int(self._udp.getsockname()[1])
        self._tcp = socket.create_server(("127.0.0.1", self.port))
        self._tcp.settimeout(0.1)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._serve_udp), threading.Thread(target=self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends its threads and closes its sockets."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(5)
        self._udp.close()
        self._tcp.close()

    def _note(self, message: bytes) -> None:
        end = message.index(b"\0", 12) + 5
        self.asked[message[12:end].lower()] += 1

    def _serve_udp(self) -> None:
        while not self._stopped.is_set():
            try:
                message, client = self._udp.recvfrom(4096)
            except OSError:
                continue
            self._note(message)
            for reply in self._answer(message):
                self._udp.sendto(reply, client)

    def _serve_tcp(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                continue
            with connection:
                connection.settimeout(1)
                try:
                    size = int.from_bytes(connection.recv(2), "big")
                    message = connection.recv(size)
                    if not message:  # opened and closed again without a question
                        continue
                    self._note(message)
                    for reply in self._answer(message):
                        connection.sendall(len(reply).to_bytes(2, "big") + reply)
                except OSError:
                    continue


def a_reply(message: bytes, address: str = "203.0.113.1", *, ttl: int = 60, flags: int = 0x8180) -> bytes:
    """A right answer with one A record."""
    end = message.index(b"\0", 12) + 5
    head = message[:2] + flags.to_bytes(2, "big") + b"\x00\x01\x00\x01\x00\x00\x00\x00" + message[12:end]
    return head + b"\xc0\x0c\x00\x01\x00\x01" + ttl.to_bytes(4, "big") + b"\x00\x04" + socket.inet_aton(address)

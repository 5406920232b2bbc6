"""Real NSD and Knot on loopback with the same zones, for differential tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query

NSD = shutil.which("nsd", path="/usr/sbin:/usr/bin")
KNOT = shutil.which("knotd", path="/usr/sbin:/usr/bin")


def free_port() -> int:
    """A port that is free for UDP and TCP now."""
    for _ in range(50):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def _nsd_config(folder: Path, port: int, zones: Mapping[str, str]) -> str:
    head = f"""server:
  ip-address: 127.0.0.1@{port}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  logfile: "{folder}/nsd.log"
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  xfrdir: "{folder}"
  zonelistfile: "{folder}/zone.list"
  minimal-responses: yes
  refuse-any: no
  server-count: 1
remote-control:
  control-enable: no
"""
    return head + "".join(f'zone:\n  name: "{apex}"\n  zonefile: "{apex}zone"\n' for apex in zones)


def _knot_config(folder: Path, port: int, zones: Mapping[str, str]) -> str:
    head = f"""server:
    listen: 127.0.0.1@{port}
    rundir: "{folder}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: "{folder}/knot.log"
    any: info
database:
    storage: "{folder}"
template:
  - id: default
    storage: "{folder}"
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
zone:
"""
    return head + "".join(f'  - domain: "{apex}"\n    file: "{apex}zone"\n' for apex in zones)


class Peer:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(2)

    def ask(self, query: dns.message.Message) -> dns.message.Message:
        """The answer over UDP, over TCP where that is truncated."""
        octets = query.to_wire()
        for _ in range(3):
            try:
                self._socket.send(octets)
                data = self._socket.recv(65535)
            except OSError:
                continue
            if data[:2] == octets[:2]:
                message = dns.message.from_wire(data)
                if message.flags & dns.flags.TC:
                    return dns.query.tcp(query, "127.0.0.1", timeout=2, port=self.port)
                return message
        raise AssertionError(f"no answer from port {self.port}")

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


@contextmanager
def running(kind: str, zones: Mapping[str, str]) -> Iterator[Peer]:
    """Starts ``nsd`` or ``knot`` with zones given as text by apex, and ends it by its process id."""
    folder = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    port = free_port()
    for apex, text in zones.items():
        (folder / f"{apex}zone").write_text(text)
    if kind == "nsd":
        assert NSD is not None
        (folder / "conf").write_text(_nsd_config(folder, port, zones))
        command = [NSD, "-d", "-c", str(folder / "conf")]
    else:
        assert KNOT is not None
        (folder / "conf").write_text(_knot_config(folder, port, zones))
        command = [KNOT, "-c", str(folder / "conf")]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "LC_ALL": "C"})
    peer = Peer(port)
    try:
        _wait(peer, process, folder, list(zones))
        yield peer
    finally:
        peer.close()
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(peer: Peer, process: subprocess.Popen[bytes], folder: Path, zones: list[str]) -> None:
    end = time.monotonic() + 15
    waiting = list(zones)
    while waiting:
        if time.monotonic() > end or process.poll() is not None:
            logs = "".join(
                p.read_text(errors="replace") for p in folder.iterdir() if p.name in {"output", "nsd.log", "knot.log"}
            )
            raise AssertionError(f"peer does not serve {waiting}: {logs[-2000:]}")
        try:
            answer = dns.query.udp(dns.message.make_query(waiting[0], "SOA"), "127.0.0.1", timeout=0.2, port=peer.port)
        except (dns.exception.DNSException, OSError):
            time.sleep(0.02)
            continue
        if answer.answer:
            waiting.pop(0)
        else:
            time.sleep(0.02)

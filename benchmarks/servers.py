"""The servers that are compared, each started on loopback with a folder of its own, and the upstream they share."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import yaml

from raydns.nodes import control
from raydns.nodes.paths import StateDir

from . import processes
from .works import LOCAL_ZONE, NAMES, UPSTREAM_ZONE, zone_text

START_S = 30.0
UP_S = 180.0
_PROBE = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"


class ServerError(Exception):
    """A server did not start; carries its log."""


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


class Server(ABC):
    """One server: ``start``, ``port``, ``pids``, ``stop``."""

    name = ""
    program = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def available(cls) -> bool:
        """Whether its program is installed."""
        return shutil.which(cls.program) is not None

    def start(self, upstream_port: int) -> None:
        """Starts it and waits for its first answer; raises ``ServerError``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        log = self.folder / "log.txt"
        with log.open("wb") as file:
            self._process = subprocess.Popen(self.command(upstream_port), stdout=file, stderr=file, cwd=self.folder)
        wait_answers(self.port, self.probe_name(), log, self._process)

    @abstractmethod
    def command(self, upstream_port: int) -> list[str]:
        """Writes its configuration and returns how it is started in the foreground."""

    def probe_name(self) -> str:
        """A name that it answers once it is up."""
        return f"host0.{LOCAL_ZONE}"

    def pids(self) -> list[int]:
        """Its processes now."""
        if self._process is None:
            return []
        return [self._process.pid, *_children(self._process.pid)]

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            processes.end(self._process.pid)
            self._process.wait(10)
            self._process = None


class Nsd(Server):
    """The authoritative server that everything is forwarded to."""

    name = "nsd"
    program = "nsd"

    def command(self, upstream_port: int) -> list[str]:
        """``upstream_port`` is not used: it is the upstream."""
        (self.folder / "zone").write_text(zone_text(UPSTREAM_ZONE, served=False))
        (self.folder / "nsd.conf").write_text(
            f'server:\n  ip-address: 127.0.0.1@{self.port}\n  server-count: 1\n  username: ""\n'
            f'  zonesdir: "{self.folder}"\n  database: ""\n  pidfile: "{self.folder}/pid"\n'
            f'  xfrdfile: "{self.folder}/xfrd"\n  zonelistfile: "{self.folder}/zones"\n  rrl-ratelimit: 0\n'
            f"remote-control:\n  control-enable: no\nzone:\n  name: {UPSTREAM_ZONE}\n  zonefile: zone\n"
        )
        return ["nsd", "-d", "-c", str(self.folder / "nsd.conf")]

    def probe_name(self) -> str:
        """A name below its wildcard."""
        return f"probe.warm.{UPSTREAM_ZONE}"


class Unbound(Server):
    """Unbound: one thread, no validation, as the others do none."""

    name = "unbound"
    program = "unbound"

    def command(self, upstream_port: int) -> list[str]:
        """Local data for the zone, a forward zone for the rest."""
        data = "".join(f'  local-data: "host{n}.{LOCAL_ZONE} 3600 A 192.0.2.{n % 250 + 1}"\n' for n in range(NAMES))
        (self.folder / "unbound.conf").write_text(
            f"server:\n  interface: 127.0.0.1\n  port: {self.port}\n  access-control: 127.0.0.0/8 allow\n"
            f'  do-daemonize: no\n  username: ""\n  chroot: ""\n  directory: "{self.folder}"\n  pidfile: ""\n'
            '  use-syslog: no\n  logfile: ""\n  module-config: "iterator"\n  num-threads: 1\n'
            "  do-not-query-localhost: no\n  outgoing-range: 4096\n  num-queries-per-thread: 2048\n"
            f'  local-zone: "{LOCAL_ZONE}" static\n{data}'
            f'forward-zone:\n  name: "{UPSTREAM_ZONE}"\n  forward-addr: 127.0.0.1@{upstream_port}\n'
            "remote-control:\n  control-enable: no\n"
        )
        return ["unbound", "-d", "-c", str(self.folder / "unbound.conf")]


class Dnsmasq(Server):
    """dnsmasq with its largest useful cache."""

    name = "dnsmasq"
    program = "dnsmasq"

    def command(self, upstream_port: int) -> list[str]:
        """Host records for the zone, a server for the rest."""
        hosts = "".join(f"host-record=host{n}.{LOCAL_ZONE[:-1]},192.0.2.{n % 250 + 1}\n" for n in range(NAMES))
        (self.folder / "dnsmasq.conf").write_text(
            f"port={self.port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nuser=\n"
            f"pid-file={self.folder}/pid\ncache-size=10000\ndns-forward-max=1000\nlocal=/{LOCAL_ZONE[:-1]}/\n"
            f"server=/{UPSTREAM_ZONE[:-1]}/127.0.0.1#{upstream_port}\n{hosts}"
        )
        return ["dnsmasq", "--keep-in-foreground", f"--conf-file={self.folder}/dnsmasq.conf"]


class CoreDns(Server):
    """CoreDNS, where it is installed."""

    name = "coredns"
    program = "coredns"

    def command(self, upstream_port: int) -> list[str]:
        """Plugins file, forward and cache."""
        (self.folder / "zone").write_text(zone_text(LOCAL_ZONE, served=True))
        (self.folder / "Corefile").write_text(
            f"{LOCAL_ZONE}:{self.port} {{\n  bind 127.0.0.1\n  file {self.folder}/zone\n}}\n"
            f"{UPSTREAM_ZONE}:{self.port} {{\n  bind 127.0.0.1\n  cache 3600\n"
            f"  forward . 127.0.0.1:{upstream_port}\n}}\n"
        )
        return ["coredns", "-conf", str(self.folder / "Corefile"), "-quiet"]


class Raydns(Server):
    """A whole cluster on this machine, by ``raydns up``."""

    name = "raydns"

    @classmethod
    def available(cls) -> bool:
        """It is what this repository holds."""
        return True

    @property
    def state(self) -> StateDir:
        """Its state directory."""
        return StateDir(self.folder / "state")

    def command(self, upstream_port: int) -> list[str]:
        """Zone, forward rule, free ports; everything else is the default."""
        zone = self.folder / "zone"
        zone.write_text(zone_text(LOCAL_ZONE, served=True))
        config: dict[str, Any] = {
            "server": {"state_dir": str(self.state.path), "listen": ["127.0.0.1"], "port": 0, "name": "bench"},
            "zones": {"files": [{"name": LOCAL_ZONE, "file": str(zone)}]},
            "forward": {"rules": [{"suffix": UPSTREAM_ZONE, "upstreams": [{"address": f"127.0.0.1:{upstream_port}"}]}]},
            "web": {"listen": "127.0.0.1:0"},
        }
        (self.folder / "raydns.yaml").write_text(yaml.safe_dump(config))
        return self._cli("up", "--timeout", f"{UP_S:g}")

    def start(self, upstream_port: int) -> None:
        """``raydns up`` returns when every actor is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._run(self.command(upstream_port), UP_S + 30)
        addresses = json.loads((self.state.run / "addresses.json").read_text())
        self.port = int(addresses["udp"][0][1])
        wait_answers(self.port, self.probe_name(), self.state.logs / "node.log")

    def pids(self) -> list[int]:
        """Supervisor, ingress, Ray and every actor."""
        return list(self.commands())

    def commands(self) -> dict[int, str]:
        """All its processes with their command lines."""
        from raydns.cluster.start.ray_settings import temp_dir

        return processes.marked([str(self.state.path), str(temp_dir(self.state))])

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last queries that the ingress remembers, with the rooms that they met."""
        found = control.call_sync(self.state.ingress_socket, "recent", {"limit": limit}, timeout_s=10)
        return list(found["queries"])

    def stop(self) -> None:
        """``raydns down``; what is left after it is ended by its process id, and said."""
        self._run(self._cli("down"), 120)
        deadline = time.monotonic() + 10
        while (left := self.commands()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid, command in left.items():
            print(f"left behind by raydns down: {pid} {command}", file=sys.stderr)
            processes.end(pid)

    def _cli(self, *arguments: str) -> list[str]:
        path = str(self.folder / "raydns.yaml")
        return [sys.executable, "-m", "raydns.cluster.cli.main", arguments[0], "--config", path, *arguments[1:]]

    def _run(self, command: list[str], timeout_s: float) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY", "DNS_SERVER_", "OPENROUTER"))}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{' '.join(command)} did not end after {timeout_s:g} s") from error
        if done.returncode:
            raise ServerError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


PEERS: tuple[type[Server], ...] = (Unbound, Dnsmasq, CoreDns)


def wait_answers(port: int, name: str, log: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    """Waits for the first answer; raises ``ServerError`` with the end of the log if it does not come."""
    question = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\x00\x01\x00\x01"
    deadline = time.monotonic() + START_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        while time.monotonic() < deadline and (process is None or process.poll() is None):
            try:
                sock.sendto(_PROBE + question, ("127.0.0.1", port))
                if sock.recv(4096)[3] & 15 == 0:
                    return
            except OSError:
                continue
            time.sleep(0.05)
    tail = log.read_text(errors="replace")[-1500:] if log.exists() else "no log"
    raise ServerError(f"no answer for {name} from 127.0.0.1:{port} after {START_S:g} s: {tail}")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in path.read_text().split()]
        except OSError:
            continue
    return found + [grandchild for child in found for grandchild in _children(child)]

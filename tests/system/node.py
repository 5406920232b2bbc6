"""Starting and ending a whole node with Ray for the system tests, as an operator does: by the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raydns.nodes import control
from raydns.nodes.paths import StateDir

ZONE = Path(__file__).parents[2] / "examples" / "zones" / "raydns.example.zone"
START_S = 90


@dataclass
class Node:
    """One machine of ours: its folder, its configuration, and the commands that an operator has."""

    folder: Path
    config_path: Path
    env: dict[str, str]

    @property
    def state(self) -> StateDir:
        """Its state directory."""
        return StateDir(self.folder / "state")

    def cli(self, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs ``raydns …`` for this node."""
        command = [sys.executable, "-m", "raydns.cluster.cli.main", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def json(self, *arguments: str) -> Any:
        """Runs a command with ``--json`` and reads what it says."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def ask_agent(self, method: str, **params: Any) -> dict[str, Any]:
        """Asks the agent's control socket."""
        return control.call_sync(self.state.agent_socket, method, params, timeout_s=30)

    def ask_ingress(self, method: str, **params: Any) -> dict[str, Any]:
        """Asks the ingress's control socket."""
        return control.call_sync(self.state.ingress_socket, method, params, timeout_s=10)

    def ask_supervisor(self, method: str, **params: Any) -> dict[str, Any]:
        """Asks the supervisor's control socket."""
        return control.call_sync(self.state.node_socket, method, params, timeout_s=30)

    @property
    def port(self) -> int:
        """The DNS port that it bound."""
        return int(json.loads((self.state.run / "addresses.json").read_text())["udp"][0][1])

    @property
    def address(self) -> tuple[str, int]:
        """Where clients ask."""
        return "127.0.0.1", self.port

    def dig(self, *arguments: str, server: str = "127.0.0.1") -> str:
        """What ``dig`` prints."""
        command = ["dig", f"@{server}", "-p", str(self.port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    def short(self, *arguments: str, server: str = "127.0.0.1") -> list[str]:
        """What ``dig +short`` prints, by line."""
        return self.dig("+short", *arguments, server=server).splitlines()

    def actors(self) -> dict[str, dict[str, Any]]:
        """Every actor by name, as the controller sees it."""
        return {a["name"]: a for a in self.ask_agent("status")["cluster"].get("actors", [])}

    def wait_settled(self, seconds: float = 60) -> None:
        """Waits until every wanted actor is ready and known with its process."""
        deadline = time.monotonic() + seconds
        problem = "no answer"
        while time.monotonic() < deadline:
            try:
                cluster = self.ask_agent("status")["cluster"]
                scale = cluster["scale"]
                ready = [a["kind"] for a in cluster["actors"] if a["state"] == "ready" and a["statistics"].get("pid")]
                wanted = {kind: count for kind, count in scale.items() if ready.count(kind) != count}
                if (
                    not wanted
                    and "health" in ready
                    and len(ready) == len(cluster["actors"])
                    and not cluster["zone_problems"]
                ):
                    return
                problem = f"{wanted or cluster['zone_problems']} of {ready}"
            except Exception as error:  # told when the time is over
                problem = str(error)
            time.sleep(0.1)
        raise AssertionError(f"the cluster is not settled after {seconds} s: {problem}\n{self.logs()}")

    def pid_of(self, actor: str) -> int:
        """The process of an actor."""
        return int(self.actors()[actor]["statistics"]["pid"])

    def logs(self, lines: int = 40) -> str:
        """The last lines of the node's logs."""
        parts = []
        for path in sorted(self.state.logs.glob("*")):
            if path.is_file():
                parts.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join(parts)

    def actor_logs(self) -> str:
        """Everything that this node's actors have logged."""
        paths = sorted((self.state.logs / "actors").glob("worker-*"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in paths)

    def processes(self) -> list[str]:
        """Command lines of every process that belongs to this node: its state directory or Ray's is in them."""
        from raydns.cluster.start.ray_settings import temp_dir

        marks = (str(self.state.path), str(temp_dir(self.state)))
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if int(folder.name) != os.getpid() and any(m in command or m in environment for m in marks):
                found.append(f"{folder.name} {command}")
        return found

    def down(self) -> None:
        """Stops it as an operator does."""
        self.cli("down", "--config", str(self.config_path), check=False)


def make(config: dict[str, Any] | None = None) -> Node:
    """A node's folder and configuration, not started."""
    folder = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    base: dict[str, Any] = {
        "server": {"state_dir": str(folder / "state"), "listen": ["127.0.0.1", "::1"], "port": 0, "name": "m1"},
        "zones": {"files": [{"name": "raydns.example.", "file": str(folder / "raydns.example.zone")}]},
        "web": {"listen": "127.0.0.1:0"},
        "telemetry": {"log": {"format": "text"}},
    }
    shutil.copy(ZONE, folder / "raydns.example.zone")
    for section, values in (config or {}).items():
        base[section] = {**base.get(section, {}), **values}
    path = folder / "raydns.yaml"
    path.write_text(yaml.safe_dump(base))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY", "DNS_SERVER_", "OPENROUTER"))}
    env["RAYDNS_SERVER__STATE_DIR"] = str(folder / "state")
    return Node(folder, path, env)


def start(node: Node) -> Node:
    """``raydns up``, then waits for the whole cluster."""
    node.cli("up", "--config", str(node.config_path), timeout=START_S)
    node.wait_settled()
    return node


def end(node: Node) -> None:
    """Stops it, checks that no process is left, and removes its folder."""
    node.down()
    deadline = time.monotonic() + 20
    while (left := node.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"processes left behind: {left}"
    from raydns.cluster.start.ray_settings import temp_dir

    shutil.rmtree(temp_dir(node.state), ignore_errors=True)
    shutil.rmtree(node.folder, ignore_errors=True)

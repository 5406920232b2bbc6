"""The entry: exit codes, misspelt commands, shared options on either side, no Ray, never a traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raydns.cluster.cli import exits, main, status
from raydns.schemas.errors import CommandError, RaydnsError, StateError, UnreachableError, catalogue
from tests.cluster.cli.fake import FakeNode, say

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["stats"], "No such command 'stats'; did you mean 'status'?", "raydns --help"),
        (["xyzzy"], "No such command 'xyzzy'; known are run, up, down", "raydns --help"),
        (["zone", "lod"], "zone: No such command 'lod'; did you mean 'load'?", "raydns zone --help"),
        (["status", "--wath"], "status: No such option", "raydns status --help"),
        (["status", "--interval", "x"], "Invalid value for '--interval'", "raydns status --help"),
        (["up", "--timeout", "0"], "Invalid value for '--timeout'", "raydns up --help"),
        (["run", "now"], "unexpected extra argument (now)", "raydns run --help"),
        (["--config"], "requires an argument", "raydns --help"),
    ],
)
def test_usage(words: list[str], message: str, hint: str) -> None:
    """Wrong usage is one line and a hint, with exit code 2."""
    said = say(*words)
    assert said.code == 2
    assert said.out == ""
    assert message in said.err
    assert said.err.splitlines()[1] == f"  hint: {hint}"
    assert len(said.err.splitlines()) == 2


def test_usage_as_json() -> None:
    """Wrong usage is JSON where JSON is asked for, even if the option came too late to be read."""
    assert say("stats", "--json").error["code"] == "command"


@pytest.mark.parametrize("words", [[], ["zone"], ["node"], ["config"], ["cache"]])
def test_group_without_a_command_shows_its_help(words: list[str]) -> None:
    """A group by itself lists its commands and ends with 2."""
    said = say(*words)
    assert said.code == 2
    assert said.out.startswith("Usage: raydns")


def test_help_and_version() -> None:
    """Help is on every command; the version is the package's."""
    assert say("--help").code == 0
    assert "Exit codes: 0 done; 1 failed" in say("--help").out
    assert say("--version").out.startswith("raydns 0.")
    assert say("zone", "load", "-h").code == 0


def test_shared_options_on_either_side(node: FakeNode, directory: Path) -> None:
    """--json and --state-dir mean the same before and behind the command."""
    before = say("--json", "--state-dir", directory, "node", "status")
    behind = say("node", "status", "--json", "--state-dir", directory)
    between = say("node", "--json", "--state-dir", directory, "status")
    assert (
        before.json == behind.json == between.json == {"pid": 1, "ready": True, "addresses": ["127.0.0.1:1"], "web": ""}
    )


def test_state_directory_from_file_and_variable(
    node: FakeNode, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is found by RAYDNS_CONFIG's directory, by the variable, by the option: later wins."""
    file = tmp_path / "c.yaml"
    file.write_text(f"server: {{state_dir: {directory}}}\n")
    assert say("node", "status", "--config", file).code == 0
    monkeypatch.setenv("RAYDNS_CONFIG", str(file))
    assert say("node", "status").code == 0
    monkeypatch.setenv("RAYDNS_SERVER__STATE_DIR", "/tmp/rd-nowhere")
    assert say("node", "status").code == 4
    assert say("node", "status", "--state-dir", directory).code == 0


def test_state_directory_that_is_too_long() -> None:
    """A path that leaves no room for sockets is told with exit code 5."""
    said = say("status", "--state-dir", "/tmp/" + "x" * 120)
    assert said.code == 5
    assert "choose a state_dir of at most" in said.err


def test_exit_codes() -> None:
    """Each error of the catalogue has a documented exit code; a time-out has its own."""
    assert {kind.exit_code for kind in catalogue().values()} <= set(exits.MEANING)
    late = UnreachableError("late")
    late.__cause__ = TimeoutError()
    assert exits.exit_code(late) == exits.TIMEOUT
    assert exits.exit_code(UnreachableError("gone")) == exits.UNREACHABLE
    assert exits.exit_code(CommandError("no")) == exits.USAGE
    assert exits.exit_code(FileNotFoundError()) == exits.LOCAL
    assert exits.exit_code(ValueError()) == exits.FAILED
    assert exits.exit_code(RaydnsError("x")) == exits.FAILED


def test_error_of_a_class_that_is_not_known_here(node: FakeNode, directory: Path) -> None:
    """An error with a code below a known one keeps the exit code of what is above it."""

    class StoreFull(StateError):
        code = "state.store_full_of_a_later_release"

        def __init__(self, octets: int) -> None:
            super().__init__(f"{octets} octets are too many", where="zone:0")

    def refuse(_: object) -> dict[str, object]:
        raise StoreFull(7)

    node.methods["node"]["status"] = refuse
    said = say("node", "status", "--state-dir", directory)
    assert (said.code, said.err) == (5, "raydns: zone:0: 7 octets are too many\n")


def test_fault_of_ours_is_no_traceback(node: FakeNode, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is one line with what to do; RAYDNS_DEBUG shows where it was."""

    def broken(_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(status, "gather", broken)
    said = say("status", "--state-dir", directory)
    assert said.code == 1
    assert said.err.startswith("raydns: ValueError: no such thing\n  hint: this is a fault of raydns")
    assert "Traceback" not in said.err
    monkeypatch.setenv("RAYDNS_DEBUG", "1")
    assert "Traceback" in say("status", "--state-dir", directory).err


def test_silent_process_is_a_time_out(node: FakeNode, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is there and does not answer in time gives exit code 6."""
    import time

    from raydns.nodes import control

    def slow(_: object) -> dict[str, object]:
        time.sleep(0.3)  # a process that is busy; ours waits 0.05 s for it
        return {}

    node.methods["node"]["status"] = slow
    real = control.call_sync
    monkeypatch.setattr(control, "call_sync", lambda path, method, params, _: real(path, method, params, 0.05))
    said = say("node", "status", "--state-dir", directory)
    assert said.code == 6
    assert "no answer to status within 0.05 s" in said.err


def test_no_command_imports_ray() -> None:
    """The whole tree is imported without Ray, and without what else is slow."""
    code = (
        "import sys, raydns.cluster.cli.main as m; m.run(['--help']); "
        "slow = {'ray', 'aiohttp', 'opentelemetry', 'pydantic', 'dns', 'grpc'} & set(sys.modules); "
        "sys.exit(str(slow) if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_pipe_that_is_closed(node: FakeNode, directory: Path) -> None:
    """``raydns … | head`` ends quietly."""
    command = f"{sys.executable} -m raydns.cluster.cli.main config schema | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert len(done.stdout) == 10


def test_pages_are_up_to_date() -> None:
    """docs/cli.md and docs/errors.md are what ``python -m raydns.cluster.cli.document`` writes."""
    from raydns.cluster.cli import document

    assert (ROOT / "docs/cli.md").read_text() == document.cli_page()
    assert (ROOT / "docs/errors.md").read_text() == document.errors_page()


_CODE = re.compile(r'^    code(?:: ClassVar\[str\])? = "([^"]+)"', re.MULTILINE)


def test_every_error_code_is_documented() -> None:
    """Whatever code of an error stands in the sources stands in docs/errors.md, once."""
    page = (ROOT / "docs/errors.md").read_text()
    files = [path for floor in ("schemas", "nodes", "actors", "cluster") for path in (ROOT / floor).rglob("*.py")]
    codes = {code: path for path in files for code in _CODE.findall(path.read_text())}
    assert {code: str(path) for code, path in codes.items() if page.count(f"| `{code}` |") != 1} == {}


def test_every_command_is_documented() -> None:
    """Each command and each option of its own has a help text, and takes --json."""
    from raydns.cluster.cli.document import walk

    for path, command in walk(main.raydns, ("raydns",)):
        assert command.help, path
        assert any("--json" in param.opts for param in command.params), path

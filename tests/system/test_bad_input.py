"""What an operator reads who gave raydns something wrong (issue: what it must show, 7): what, where, what to do.

Every command here is a process of its own, as on a terminal, and none of them waits for Ray. Whatever is refused
ends with the documented exit code, nothing on standard output, and two lines: ``raydns: where: what`` and a hint.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from raydns.nodes.paths import MARKER, StateDir
from tests.nodes.supervisor.support import background

from .peers import free_port

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
START = ["up", "run", "node start"]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces and to drop privileges")


def raydns(*words: str, prefix: Sequence[str] = (), **env: str) -> subprocess.CompletedProcess[str]:
    """Runs one command."""
    foreign = ("RAY", "DNS_SERVER_", "OPENROUTER")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | env
    command = [*prefix, sys.executable, "-m", "raydns.cluster.cli.main", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def refused(done: subprocess.CompletedProcess[str], code: int, where: str, message: str, hint: str) -> None:
    """Checks the whole of what the operator reads; ``hint`` empty: any."""
    said = f"{done.args}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == code, said
    assert "Traceback" not in done.stderr, said
    assert done.stdout == "", said
    # `run` logs to standard error as well; its own words come last.
    told, advice = done.stderr.splitlines()[-2:]
    assert told.startswith(f"raydns: {where}"), said
    assert message in told, said
    assert advice.startswith("  hint: "), said
    assert len(advice) > len("  hint: "), said
    assert hint in advice, said


@pytest.fixture
def place() -> Iterator[Path]:
    """A short empty directory that everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def config(place: Path, name: str = "c.yaml", **server: object) -> Path:
    """A configuration file for a node on loopback below ``place``."""
    options = {"state_dir": str(place / "s"), "listen": ["127.0.0.1"], "port": 0, **server}
    web = {"listen": str(options.pop("web", "127.0.0.1:0"))}
    (place / name).write_text(yaml.safe_dump({"server": options, "web": web}))
    return place / name


@pytest.mark.parametrize(
    ("name", "content", "where", "message", "hint"),
    [
        ("nowhere.yaml", None, ":", "no such file", "--config"),
        ("c.yaml", b"server: {prot: 1}\n", ":1:", "server.prot: unknown option", "did you mean server.port?"),
        ("c.yaml", b"server: {port: 70000}\n", ":1:", "server.port: 70000 is more than 65535", "Port"),
        ("c.yaml", b"server:\n  port: [\n", ":3:", "not YAML", "name: value"),
        ("c.yaml", b"\xff\xfe\n", ":1:", "is not UTF-8 text", "UTF-8"),
        ("c.yaml", b"just words\n", ":1:", "holds a single value", "sections"),
        ("c.yaml", b"server: {}\nserver: {}\n", ":2:", "server: stands twice; first on line 1", "keep one"),
        ("c.toml", b"a = [\n", ":", "not TOML", "quotes"),
        ("c.ini", b"[server]\n", ":", ".ini is not a known suffix", ".yaml"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    place: Path, name: str, content: bytes | None, where: str, message: str, hint: str
) -> None:
    """Proves that each kind of bad file is told with file, line, option and remedy."""
    if content is not None:
        (place / name).write_bytes(content)
    refused(raydns("config", "check", "--config", str(place / name)), 3, f"{place / name}{where}", message, hint)


@pytest.mark.parametrize("command", ["up", "run", "node start", "config reload", "config show"])
def test_no_command_goes_on_with_a_bad_configuration(place: Path, command: str) -> None:
    """Proves that every command that needs the file says what is wrong with it, and that nothing is made on disk."""
    (place / "c.yaml").write_text(f"server: {{prot: 1, state_dir: {place}/s}}\n")
    refused(raydns(*command.split(), "--config", str(place / "c.yaml")), 3, f"{place}/c.yaml:1:", "prot", "port")
    assert not (place / "s").exists()


@pytest.mark.parametrize(
    ("variable", "value", "message", "hint"),
    [
        ("RAYDNS_SERVER__PRT", "1", "server.prt: '1' unknown option", "RAYDNS_SERVER__PORT"),
        ("RAYDNS_SERVER__PORT", "dns", "server.port: 'dns' is not a whole number", "Port"),
        ("DNS_SERVER_QUERY_TIMEOUT_SECS", "soon", "'soon' is not a number", "seconds"),
    ],
)
def test_a_variable_that_cannot_be_used(variable: str, value: str, message: str, hint: str) -> None:
    """Proves that the environment's mistakes name the variable."""
    refused(raydns("config", "check", **{variable: value}), 3, f"environment {variable}:", message, hint)


HEAD = "$ORIGIN a.example.\n$TTL 60\n@ SOA ns h 7 1 1 1 1\n@ NS ns\nns A 192.0.2.1\n"


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        ("$ORIGIN a.example.\n$TTL 60\n@ NS ns\n", ":", "the zone has no SOA record at its apex"),
        (HEAD + "x A 192.0.2.300\n", ":6:5:", "not an IPv4 address; found '192.0.2.300'; expected four numbers"),
        (HEAD + "x CNAME y\nx A 192.0.2.1\n", ":7:", "x.a.example.: CNAME beside other data"),
        (HEAD + "@ SOA ns h 8 1 1 1 1\n", ":6:", "a second SOA at one name"),
        (HEAD + 'x TXT "abc\n', ":6:7:", "a quoted string that does not end on its line"),
        (HEAD + "x TXT ( a\n", ":6:7:", "a parenthesis that is never closed"),
        (HEAD + "x CH A 192.0.2.1\n", ":6:3:", "a class that is not served; found 'CH'; expected IN"),
        (HEAD + "x BLAH 1\n", ":6:3:", "an unknown type; found 'BLAH'"),
        (HEAD + f"{'a' * 70} A 192.0.2.1\n", ":6:1:", "a label of 70 octets"),
        (HEAD + "$INCLUDE /etc/passwd\n", ":6:10:", "leaves the zone's folder"),
        (HEAD + "$INCLUDE nope.inc\n", ":6:10:", "nope.inc cannot be read: No such file or directory"),
        (HEAD + "$INCLUDE z.zone\n", None, "$INCLUDE nests deeper than 8"),  # told of the file as it was named
        (HEAD + "$GENERATE 1-99999999 h$ A 192.0.2.1\n", ":6:11:", "at most 262144 from one $GENERATE"),
    ],
)
def test_a_zone_file_that_cannot_be_used(place: Path, content: str, where: str | None, message: str) -> None:
    """Proves that each kind of mistake in a master file is told with its line, without a node."""
    (place / "z.zone").write_text(content)
    done = raydns("zone", "check", str(place / "z.zone"), "--origin", "a.example.")
    refused(done, 3, f"{place}/z.zone{where}" if where else "z.zone:6:1:", message, "correct it and load it again")


def test_a_zone_file_that_is_no_text(place: Path) -> None:
    """Proves that noise, a directory and a nameless zone are told as well."""
    (place / "z").write_bytes(bytes(range(256)))
    done = raydns("zone", "check", str(place / "z"), "--origin", "a.example.")
    assert done.returncode == 3
    assert f"{place}/z:" in done.stderr
    assert "Traceback" not in done.stderr
    refused(raydns("zone", "check", str(place)), 3, f"{place}:", "is a directory", "name a master file in it")
    (place / "z").write_text("@ SOA ns h 1 1 1 1 1\n")
    done = raydns("zone", "check", str(place / "z"))
    assert "there is no origin" in done.stderr
    assert "  hint: raydns zone load" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "where", "message", "hint"),
    [
        (["stats"], 2, "", "No such command 'stats'; did you mean 'status'?", "raydns --help"),
        (["status", "--wath"], 2, "status:", "No such option", "raydns status --help"),
        (["up", "--timeout", "nine"], 2, "up:", "'nine' is not a valid", "raydns up --help"),
        (["scale"], 2, "scale:", "Missing argument", "raydns scale --help"),
        (["scale", "controller=3"], 2, "scale:", "'controller=3' is not KIND=N", "raydns scale query=4"),
        (["query", "www.example", "NOTYPE"], 2, "query:", "'NOTYPE' is not a record type", "TYPE65280"),
        (["query", "a..b"], 3, "", "empty label in 'a..b'", "two dots"),
        (["query", "a" * 70], 3, "", "a label of 70 octets", "shorten it"),
        (["query", "x", "--server", "here:x"], 2, "query --server:", "'x' is not a port", "ADDRESS:PORT"),
        (["query", "x", "--server", "127.0.0.1:1"], 4, "127.0.0.1:1:", "Connection refused", "raydns status"),
        (["cache", "flush", "a..b"], 3, "", "empty label in 'a..b'", "two dots"),
    ],
)
def test_arguments_that_make_no_sense(words: list[str], code: int, where: str, message: str, hint: str) -> None:
    """Proves that wrong usage is told in one line with where to read on."""
    refused(raydns(*words), code, where, message, hint)


@pytest.mark.parametrize(
    "command", ["status", "query x", "zone list", "scale query=2", "config reload", "node takeover"]
)
def test_commands_where_no_node_has_run(place: Path, command: str) -> None:
    """Proves that a command for a node that is not there names the directory and how to start one."""
    done = raydns(*command.split(), "--state-dir", str(place / "none"))
    refused(done, 4, f"{place}/none:", "no node has run here", "raydns up")


@pytest.mark.parametrize("command", START)
@pytest.mark.parametrize("kind", ["UDP", "TCP"])
def test_a_port_in_use(place: Path, command: str, kind: str) -> None:
    """Proves that transport, address, port and the process that holds it are told, and what to change."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "UDP" else socket.SOCK_STREAM) as held:
        port = free_port()
        held.bind(("127.0.0.1", port))
        if kind == "TCP":
            held.listen()
        done = raydns(*command.split(), "--config", str(config(place, port=port)))
    message = f"port {port} is in use by process {os.getpid()} ("
    refused(done, 5, f"{kind} 127.0.0.1:{port}:", message, "set server.port or server.listen")
    assert StateDir(place / "s").lock_holder() == 0


def test_the_status_pages_port_in_use_and_an_address_that_is_not_here(place: Path) -> None:
    """Proves that both name the option that is to be changed."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = raydns("up", "--config", str(config(place, web=f"127.0.0.1:{port}")))
    refused(done, 5, f"127.0.0.1:{port}:", "the port of the status page is in use", "web.listen")
    done = raydns("up", "--config", str(config(place, listen=["192.0.2.77"], port=1053)))
    refused(done, 5, "UDP 192.0.2.77:1053:", "this machine has no address 192.0.2.77", "server.listen")


# One line, since a process's command line stands in the message. 0x8914 is SIOCSIFFLAGS, 0x1 IFF_UP.
NAMESPACE = (
    "import fcntl, socket, struct, sys; control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    "fcntl.ioctl(control, 0x8914, struct.pack('16sh14x', b'lo', 0x1)); "
    "held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); held.bind(('127.0.0.53', 53)); "
    "print('up', flush=True); sys.stdin.read()"
)


@pytest.fixture
def namespace() -> Iterator[subprocess.Popen[str]]:
    """A network of its own with a process that is called and listens like systemd-resolved."""
    command = ["/usr/lib/systemd/systemd-resolved", "-c", NAMESPACE]
    starter = ["unshare", "--net", "bash", "-c", f'exec -a "$0" {sys.executable} "$@"', *command]
    # Under a foreign name Python does not find its own library.
    env = {**os.environ, "PYTHONHOME": sys.base_prefix}
    with subprocess.Popen(starter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "up\n":
            pytest.skip("this machine lets nobody make a network namespace")
        yield holder
        holder.kill()


@ROOT_ONLY
def test_port_53_held_by_systemd_resolved(place: Path, namespace: subprocess.Popen[str]) -> None:
    """Proves on the real port that the stub listener is recognised and that the setting to change is named."""
    enter = ["nsenter", "--target", str(namespace.pid), "--net"]
    done = raydns("up", "--config", str(config(place, listen=["0.0.0.0"], port=53)), prefix=enter)
    message = f"port 53 is in use by process {namespace.pid} (/usr/lib/systemd/systemd-resolved"
    refused(done, 5, "UDP 0.0.0.0:53:", message, "DNSStubListener=no in /etc/systemd/resolved.conf")


def as_nobody() -> list[str]:
    """What makes a command run as nobody; skips where nobody may not even read this program."""
    able = subprocess.run(
        [*NOBODY, sys.executable, "-c", "import raydns.nodes.supervisor.main"], check=False, timeout=60
    )
    if able.returncode:
        pytest.skip("nobody may not read this checkout or its Python")
    return NOBODY


@ROOT_ONLY
def test_port_53_without_permission(place: Path, namespace: subprocess.Popen[str]) -> None:
    """Proves as nobody, in a network where 53 is privileged, that the capability and another port are named."""
    place.chmod(0o777)
    prefix = ["nsenter", "--target", str(namespace.pid), "--net", *as_nobody()]
    done = raydns("run", "--config", str(config(place, port=53)), prefix=prefix)
    message = "port 53 needs a privilege that user 65534 does not have"
    refused(done, 5, "UDP 127.0.0.1:53:", message, "CAP_NET_BIND_SERVICE")
    assert "server.port to 1053" in done.stderr


@ROOT_ONLY
@pytest.mark.parametrize("command", ["up", "run"])
def test_a_state_directory_that_may_not_be_written(place: Path, command: str) -> None:
    """Proves as nobody that path, reason and user are told; and that somebody else's directory is not taken."""
    done = raydns(command, "--config", str(config(place)), prefix=as_nobody())
    refused(done, 5, f"{place}/s:", "cannot create the state directory: Permission denied", "user 65534 may not")
    StateDir(place / "s").create()
    done = raydns(command, "--config", str(config(place)), prefix=as_nobody())
    refused(done, 5, f"{place}/s:", "belongs to user id 0, and this process runs as 65534", "chown")


@ROOT_ONLY
@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ("ro", "Read-only file system", "the file system is read-only"),
        ("size=8k", "No space left on device", "make room"),
    ],
)
def test_a_state_directory_on_a_disk_that_takes_nothing(place: Path, options: str, message: str, hint: str) -> None:
    """Proves on real mounts that a read-only and a full file system are told as such."""
    (place / "disk").mkdir()
    mount = f'mount -t tmpfs -o {options} none {place}/disk && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    done = raydns("up", "--config", str(config(place, state_dir=f"{place}/disk/s")), prefix=prefix)
    refused(done, 5, f"{place}/disk/s", message, hint)


def test_state_directories_that_make_no_sense(place: Path) -> None:
    """Proves that a file, a path too long, and somebody's folder are refused, and that the folder stays as it was."""
    file = config(place)
    done = raydns("up", "--config", str(config(place, "x.yaml", state_dir=str(file))))
    refused(done, 5, f"{file}:", "is not a directory", "choose another state_dir")
    done = raydns("up", "--state-dir", "/tmp/" + "x" * 120)
    refused(done, 5, "/tmp/xxx", "octets too many for the Unix sockets", "at most 80 octets")
    done = raydns("up", "--config", str(config(place, "x.yaml", state_dir=str(place))))
    refused(done, 5, f"{place}:", "is not empty and was not made by raydns", "choose an empty directory")
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert not (place / MARKER).exists()


@pytest.mark.parametrize("command", ["up", "run"])
@pytest.mark.parametrize(
    ("content", "mode", "message", "hint"),
    [
        (b"not a secret\n", 0o600, "the cluster secret is damaged: it is not hexadecimal", "copy cluster_secret"),
        (b"00" * 31, 0o600, "the cluster secret is damaged: 31 octets where 32 belong", "copy cluster_secret"),
        (b"", 0o600, "the cluster secret is damaged: 0 octets where 32 belong", "delete it and start again"),
        (b"00" * 32, 0o644, "the cluster secret has mode 0644, so that others can read it", "chmod 600"),
    ],
)
def test_a_damaged_secret(place: Path, command: str, content: bytes, mode: int, message: str, hint: str) -> None:
    """Proves that no node starts on a secret that is not one, and that the file is left as it is."""
    secret = StateDir(place / "s").create().secret
    secret.write_bytes(content)
    secret.chmod(mode)
    refused(raydns(*command.split(), "--config", str(config(place))), 5, f"{secret}:", message, hint)
    assert secret.read_bytes() == content
    assert StateDir(place / "s").lock_holder() == 0


def test_what_was_known_is_damaged() -> None:
    """Proves that a node whose memory is noise says so in its log, starts from its file and answers."""
    with background() as node:
        node.start(ingress=[])
        node.status()
        from raydns.nodes.supervisor import main

        main.stop(node.state_dir)
        for path in node.state_dir.known.glob("*.msgpack"):
            path.write_bytes(b"noise" * 100)
        assert node.start(ingress=[])["ready"]
        log = (node.state_dir.logs / "node.log").read_text()
        assert "snapshot cannot be used" in log
        assert "damaged: the checksum over 468 octets does not fit" in log
        assert "nothing is known: every snapshot on this machine is damaged" in log
        assert "Traceback" not in log

"""The state directory: names, ownership, mark, lock."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydns.nodes.paths import MARKER, SOCKET_PATH_MAX, StateDir, state_error, write_atomically
from raydns.schemas.errors import StateError

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A short empty directory."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_create_makes_a_private_marked_directory_and_may_be_said_twice(place: Path) -> None:
    """A new state directory is 0700, marked, holds its folders, and a second ``create`` changes nothing."""
    state_dir = StateDir(place / "new" / "state").create()
    assert stat.S_IMODE(state_dir.path.stat().st_mode) == 0o700
    assert (state_dir.path / MARKER).exists()
    for folder in (state_dir.known, state_dir.images, state_dir.run / "s", state_dir.logs, state_dir.gcs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = sorted(os.listdir(state_dir.path))
    assert StateDir(state_dir.path).create().path == state_dir.path
    assert sorted(os.listdir(state_dir.path)) == before


def test_names_are_those_of_the_plan(place: Path) -> None:
    """Every name stands where the other rooms look for it."""
    state_dir = StateDir(place)
    assert state_dir.stream_socket("cache", 3) == place / "run" / "s" / "cache-3.sock"
    assert state_dir.zone_store(2) == place / "zone" / "2"
    assert state_dir.secret.name == "cluster_secret"
    assert state_dir.ingress_fds_socket == place / "run" / "ingress-fds.sock"
    assert StateDir("~/x").path == Path.home() / "x"


def test_a_foreign_directory_is_refused(place: Path) -> None:
    """A directory that holds somebody's files is not taken, and stays as it was."""
    (place / "letters.txt").write_text("dear")
    place.chmod(0o755)
    with pytest.raises(StateError) as caught:
        StateDir(place).create()
    assert "not made by raydns" in caught.value.message
    assert "letters.txt" in caught.value.message
    assert caught.value.where == str(place)
    assert "empty directory" in caught.value.hint
    assert os.listdir(place) == ["letters.txt"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_secrets_and_lost_found_may_come_first(place: Path) -> None:
    """A directory with only the secrets that a deployment put there, on a fresh mount, is taken."""
    (place / "lost+found").mkdir()
    (place / "cluster_secret").write_text("00" * 32)
    assert StateDir(place).create().marker.exists()


@pytest.mark.parametrize(
    ("text", "message"), [("99\n", "newer raydns"), ("", "damaged"), ("\x00\xff", "damaged"), ("-1", "damaged")]
)
def test_a_bad_mark_is_refused(place: Path, text: str, message: str) -> None:
    """A directory of a newer release, or with a damaged mark, is refused with what to do."""
    (place / MARKER).write_text(text, encoding="latin-1")
    with pytest.raises(StateError, match=message) as caught:
        StateDir(place).create()
    assert caught.value.hint


def test_a_file_in_its_place_is_refused(place: Path) -> None:
    """A path that is a file, or leads through one, is refused and says so."""
    (place / "file").write_text("x")
    with pytest.raises(StateError, match="not a directory"):
        StateDir(place / "file").create()
    with pytest.raises(StateError, match="Not a directory"):
        StateDir(place / "file" / "below").create()


def test_open_mode_is_closed(place: Path) -> None:
    """A directory that others could read is closed when it is ours."""
    place.chmod(0o755)
    StateDir(place).create()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change owners")
def test_somebody_elses_directory_is_refused(place: Path) -> None:
    """A directory of another user is refused even where root could write it."""
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(StateError, match="belongs to user id 65534"):
        StateDir(place).create()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop privileges")
def test_not_writable_is_said(place: Path) -> None:
    """Without the right to write there, the message names the path, the user and the remedy."""
    place.chmod(0o755)
    program = (
        "import os\nfrom raydns.nodes.paths import StateDir\nfrom raydns.schemas.errors import StateError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"try: StateDir({str(place / 'sub')!r}).create()\nexcept StateError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert "Permission denied" in done.stdout
    assert str(place / "sub") in done.stdout
    assert "choose another state_dir" in done.stdout


def test_too_long_a_path_is_refused_at_once() -> None:
    """A path whose Unix sockets could not be bound is refused with the length that would do."""
    fits = "/" + "a" * (SOCKET_PATH_MAX - len("/run/s/controller-9999.sock") - 1)
    StateDir(fits)
    with pytest.raises(StateError, match="1 octets too many") as caught:
        StateDir(fits + "a")
    assert "at most 80 octets" in caught.value.hint


def test_a_full_disk_is_said() -> None:
    """ENOSPC becomes a sentence with a remedy; an unknown error keeps its own words."""
    error = state_error(OSError(28, "No space left on device"), Path("/x/y"), "keep the snapshot")
    assert error.message == "cannot keep the snapshot: No space left on device"
    assert "make room" in error.hint
    assert state_error(OSError("odd"), Path("/x"), "read").message == "cannot read: odd"


def test_a_full_disk_leaves_the_old_file(place: Path) -> None:
    """A write that fails half way (a real full file system) leaves the old content and no temporary file."""
    target = place / "file"
    write_atomically(target, b"old")
    with pytest.raises(OSError, match="File too large"):
        _write_limited(target)
    assert target.read_bytes() == b"old"
    assert os.listdir(place) == ["file"]


def _write_limited(target: Path) -> None:
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        write_atomically(target, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_two_supervisors_on_one_directory(place: Path) -> None:
    """The second lock is refused and names the holder; a dead holder's lock is free at once."""
    state_dir = StateDir(place).create()
    assert state_dir.lock_holder() == 0
    program = (
        "import sys\nfrom raydns.nodes.paths import StateDir\n"
        f"held = StateDir({str(place)!r}).lock(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert state_dir.lock_holder() == other.pid
        with pytest.raises(StateError, match=f"another supervisor \\(process {other.pid}\\)") as caught:
            state_dir.lock()
        assert "own state_dir and ports" in caught.value.hint
        other.kill()
    assert state_dir.lock_holder() == 0
    with state_dir.lock():
        assert state_dir.lock_holder() == os.getpid()
    assert state_dir.lock_holder() == 0


def test_two_clusters_on_one_machine_have_two_directories(place: Path) -> None:
    """Locks of two state directories do not know each other."""
    with StateDir(place / "one").create().lock(), StateDir(place / "two").create().lock():
        assert StateDir(place / "one").lock_holder() == os.getpid()

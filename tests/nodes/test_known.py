"""What a machine last knew: snapshots and images, and what damage does to them."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.schemas.cluster import Snapshot, Version, first_snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import StateError


@pytest.fixture
def state_dir() -> Iterator[StateDir]:
    """A state directory."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield StateDir(path).create()
    shutil.rmtree(path, ignore_errors=True)


def snapshot(number: int, port: int = 1053) -> Snapshot:
    """A snapshot with a version and a port to tell it by."""
    config = Config.model_validate({"server": {"port": port}})
    made = first_snapshot(config.model_dump(mode="json"), 7)
    made.version = Version(1, number)
    return made


def flip(path: Path, at: int) -> None:
    """One bit of a file turns over."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_new_machine_knows_nothing(state_dir: StateDir) -> None:
    """Without a file there is no snapshot, the configuration is the default, and nothing is logged as damage."""
    known = Known(state_dir)
    assert known.load() is None
    assert known.config() == Config()
    assert known.images() == {}


def test_what_is_saved_is_loaded(state_dir: StateDir) -> None:
    """A snapshot comes back whole, for another process too, with its configuration."""
    Known(state_dir).save(snapshot(1, port=5301))
    found = Known(state_dir).load()
    assert found == snapshot(1, port=5301)
    assert Known(state_dir).config().server.port == 5301


def test_damage_falls_back_to_the_previous(state_dir: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    """Any damaged octet, a cut file or an empty one gives the previous snapshot, and says so."""
    known = Known(state_dir)
    known.save(snapshot(1))
    known.save(snapshot(2))
    current = state_dir.known / "snapshot.msgpack"
    whole = current.read_bytes()
    for damage in (whole[:-1], whole[:10], b"", b"\xff" * 200, whole[:40] + b"\x00" + whole[41:], whole + b"x"):
        current.write_bytes(damage)
        caplog.clear()
        found = Known(state_dir).load()
        assert found is not None
        assert found.version == Version(1, 1)
        assert "snapshot cannot be used" in caplog.text


def test_both_damaged_is_nothing_said_loudly(state_dir: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    """With both files damaged nothing is known: no exception, one critical line."""
    known = Known(state_dir)
    known.save(snapshot(1))
    known.save(snapshot(2))
    for path in state_dir.known.glob("*.msgpack"):
        flip(path, 50)
    assert Known(state_dir).load() is None
    assert [r.levelno for r in caplog.records].count(logging.CRITICAL) == 1


def test_a_damaged_file_never_replaces_the_good_previous(state_dir: StateDir) -> None:
    """Saving over a damaged current file keeps the older good one as the previous."""
    known = Known(state_dir)
    known.save(snapshot(1))
    known.save(snapshot(2))
    flip(state_dir.known / "snapshot.msgpack", 50)
    Known(state_dir).save(snapshot(3))
    flip(state_dir.known / "snapshot.msgpack", 50)
    found = Known(state_dir).load()
    assert found is not None
    assert found.version == Version(1, 1)


def test_a_newer_format_is_not_half_read(state_dir: StateDir) -> None:
    """A file of a newer release is passed over, not guessed at."""
    known = Known(state_dir)
    known.save(snapshot(1))
    newer = snapshot(2)
    newer.format = 99
    known.save(newer)
    found = Known(state_dir).load()
    assert found is not None
    assert found.version == Version(1, 1)


def test_a_checksum_that_fits_does_not_help_garbage(state_dir: StateDir) -> None:
    """A right checksum over something that is no snapshot is damage too."""
    body = msgspec.msgpack.encode({"version": "no"})
    (state_dir.known / "snapshot.msgpack").write_bytes(hashlib.sha256(body).digest() + body)
    assert Known(state_dir).load() is None


def test_a_configuration_that_no_longer_validates_gives_defaults(state_dir: StateDir) -> None:
    """A snapshot whose configuration this release refuses does not stop the machine."""
    odd = snapshot(1)
    odd.config = {"server": {"port": -5}, "unknown": 1}
    Known(state_dir).save(odd)
    assert Known(state_dir).config() == Config()


def test_a_full_disk_is_an_error_and_keeps_what_was(state_dir: StateDir) -> None:
    """A save that fails raises ``StateError`` and the last snapshot is still there."""
    known = Known(state_dir)
    known.save(snapshot(1))
    big = snapshot(2)
    big.config = {"x": "y" * 100_000}
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StateError, match="cannot keep the snapshot"):
            known.save(big)
        with pytest.raises(StateError, match="cannot keep the image"):
            known.put_image(b"z" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    found = Known(state_dir).load()
    assert found is not None
    assert found.version == Version(1, 1)
    assert os.listdir(state_dir.images) == []


def test_images_are_named_by_what_is_in_them(state_dir: StateDir) -> None:
    """An image is kept under its SHA-256, read-only, and found by every reader."""
    known = Known(state_dir)
    ref = known.put_image(b"image one")
    assert ref.sha256 == hashlib.sha256(b"image one").hexdigest()
    assert ref.size == 9
    path = known.image_path(ref.sha256)
    assert path.read_bytes() == b"image one"
    assert Known(state_dir).images() == {ref.sha256: path}
    inode = path.stat().st_ino
    assert known.put_image(b"image one") == ref
    assert path.stat().st_ino == inode


def test_a_damaged_image_is_removed_and_reported(state_dir: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    """An image that is not what its name says is gone from disk and list, with a reason; the good one stays."""
    known = Known(state_dir)
    good, bad = known.put_image(b"good"), known.put_image(b"bad one")
    flip(known.image_path(bad.sha256), 2)
    reader = Known(state_dir)
    assert reader.images() == {good.sha256: reader.image_path(good.sha256)}
    assert not reader.image_path(bad.sha256).exists()
    assert "hash to" in reader.damaged[bad.sha256]
    assert "damaged image removed" in caplog.text
    assert reader.put_image(b"bad one") == bad
    assert reader.damaged == {}
    assert reader.verify_image(bad.sha256)


def test_put_replaces_a_damaged_image(state_dir: StateDir) -> None:
    """Fetching an image again mends the file that is damaged on disk."""
    known = Known(state_dir)
    ref = known.put_image(b"content")
    flip(known.image_path(ref.sha256), 0)
    known.put_image(b"content")
    assert known.image_path(ref.sha256).read_bytes() == b"content"


def test_missing_and_strange_images(state_dir: StateDir) -> None:
    """A missing image is ``False``, strangers in the folder are not listed, a bad name is a programming error."""
    known = Known(state_dir)
    assert not known.verify_image("0" * 64)
    (state_dir.images / "notes.img").write_text("x")
    (state_dir.images / ".tmp.img").write_text("x")
    assert known.images() == {}
    with pytest.raises(ValueError, match="SHA-256"):
        known.image_path("../../etc/passwd")


def test_drop_keeps_what_is_needed(state_dir: StateDir) -> None:
    """Only images that nobody names go, and temporary files of writers that died long ago."""
    known = Known(state_dir)
    one, two = known.put_image(b"1"), known.put_image(b"2")
    old, fresh = state_dir.images / ".x.1.tmp", state_dir.images / ".x.2.tmp"
    for path in (old, fresh):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    assert known.drop_images({one.sha256}) == [two.sha256]
    assert set(known.images()) == {one.sha256}
    assert not old.exists()
    assert fresh.exists()

"""What this machine last knew: the newest snapshot and its image files, on disk, checked whenever they are read.

Ingress and actors read it at start and again on ``refresh``: boot and change are one code path. The agent writes
it. A snapshot file is SHA-256 of what follows, then msgpack of ``Snapshot``; the one before it is kept beside it.
Whatever is damaged is said loudly and passed over: an older truth is better than no service, and no service is
better than a half-read one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec
from pydantic import ValidationError

from raydns.nodes.paths import StateDir, fsync_directory, state_error, write_atomically
from raydns.schemas.cluster import SNAPSHOT_FORMAT, ImageRef, Snapshot
from raydns.schemas.config import Config

_log = logging.getLogger(__name__)

_DIGEST: Final = hashlib.sha256
_DIGEST_SIZE: Final = 32
_SUFFIX: Final = ".img"
_VERIFY_MAX: Final = 64 * 1024 * 1024
"""Octets of images that one ``images`` call hashes, some 100 ms of work: a start is never held up by a full disk.
What is above it comes with the next call; the reader's own section checksums stand in the meantime."""
_DAMAGED_MAX: Final = 64
_TEMPORARY_AGE_S: Final = 3600.0
_CHUNK: Final = 1 << 20


class Known:
    """The last known state of one machine. Not for several threads at once; several processes may read."""

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir
        self._current = state_dir.known / "snapshot.msgpack"
        self._previous = state_dir.known / "snapshot.previous.msgpack"
        self._good: tuple[int, int, int] | None = None  # signature of a current file that was found right
        self._verified: dict[str, tuple[int, int, int]] = {}  # images found right, by SHA-256; only of files present
        self.damaged: dict[str, str] = {}
        """Image files that were removed because they were not what their name says, and why; bounded."""

    def load(self) -> Snapshot | None:
        """The newest readable snapshot; ``None`` on a new machine, or (said loudly) where both are damaged."""
        found_damage = False
        for path in (self._current, self._previous):
            try:
                snapshot = self._read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                found_damage = True
                _log.error("snapshot cannot be used", extra={"path": str(path), "problem": str(error)})
                continue
            if path is self._previous and found_damage:
                _log.warning(
                    "using the previous snapshot", extra={"path": str(path), "version": list(snapshot.version)}
                )
            return snapshot
        if found_damage:
            _log.critical(
                "nothing is known: every snapshot on this machine is damaged; it serves nothing until the controller "
                "sends a new one",
                extra={"path": str(self._state_dir.known)},
            )
        return None

    def save(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot: on return it survives a power cut, and the one before it stands beside it.

        Raises:
            StateError: the disk cannot take it; what was known before is still there.
        """
        body = msgspec.msgpack.encode(snapshot)
        try:
            self._keep_previous()
            write_atomically(self._current, _DIGEST(body).digest() + body)
            self._good = _signature(self._current)
        except OSError as error:
            raise state_error(error, self._current, "keep the snapshot") from error

    def config(self) -> Config:
        """The configuration of the newest snapshot; safe defaults where there is none that this release reads."""
        snapshot = self.load()
        if snapshot is None:
            return Config()
        try:
            return Config.model_validate(snapshot.config)
        except ValidationError as error:
            _log.error(
                "the configuration in the snapshot cannot be used; defaults stand in",
                extra={"version": list(snapshot.version), "problem": str(error)},
            )
            return Config()

    def images(self) -> dict[str, Path]:
        """Image files on this machine by SHA-256; new ones are hashed first (64 MiB a call), damaged ones removed."""
        found: dict[str, Path] = {}
        verified: dict[str, tuple[int, int, int]] = {}
        budget = _VERIFY_MAX
        for path, sha256 in self._image_files():
            try:
                signature = _signature(path)
                if self._verified.get(sha256) != signature:
                    if signature[1] > budget:
                        found[sha256] = path
                        continue
                    budget -= signature[1]
                    if not self._is_right(path, sha256):
                        continue
                verified[sha256] = signature
                found[sha256] = path
            except OSError as error:
                _log.error("image cannot be read", extra={"path": str(path), "problem": str(error)})
        self._verified = verified
        return found

    def image_path(self, sha256: str) -> Path:
        """Where the image of that name is, or would be."""
        if len(sha256) != 2 * _DIGEST_SIZE or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hexadecimal")
        return self._state_dir.images / f"{sha256}{_SUFFIX}"

    def verify_image(self, sha256: str) -> bool:
        """Reads the image through; one that is not what its name says is removed, reported and ``False``."""
        path = self.image_path(sha256)
        try:
            signature = _signature(path)
            if not self._is_right(path, sha256):
                self._verified.pop(sha256, None)
                return False
        except OSError as error:
            _log.error("image cannot be read", extra={"path": str(path), "problem": str(error)})
            return False
        self._verified[sha256] = signature
        return True

    def put_image(self, data: bytes) -> ImageRef:
        """Keeps an image under the SHA-256 of its octets; one that is already there and right is left alone.

        Raises:
            StateError: the disk cannot take it.
        """
        sha256 = _DIGEST(data).hexdigest()
        path = self.image_path(sha256)
        try:
            # A file of that name may be a damaged one; a mapped file is never written, so it is replaced by rename.
            if not (path.exists() and self.verify_image(sha256)):
                write_atomically(path, data, mode=0o400)
                self._verified[sha256] = _signature(path)
        except OSError as error:
            raise state_error(error, path, "keep the image") from error
        self.damaged.pop(sha256, None)
        return ImageRef(sha256=sha256, size=len(data))

    def drop_images(self, keep: set[str]) -> list[str]:
        """Removes images that nobody needs (a mapped one lives on until it is unmapped), and old temporary files."""
        dropped: list[str] = []
        for path, sha256 in self._image_files():
            if sha256 not in keep:
                path.unlink(missing_ok=True)
                self._verified.pop(sha256, None)
                dropped.append(sha256)
        horizon = time.time() - _TEMPORARY_AGE_S
        for path in self._state_dir.images.glob(".*.tmp"):
            try:
                if path.stat().st_mtime < horizon:
                    path.unlink()
            except FileNotFoundError:
                continue  # its writer was only slow
        return dropped

    def _read(self, path: Path) -> Snapshot:
        data = path.read_bytes()
        body = memoryview(data)[_DIGEST_SIZE:]
        if _DIGEST(body).digest() != data[:_DIGEST_SIZE]:
            raise ValueError(f"damaged: the checksum over {len(body)} octets does not fit")
        snapshot = msgspec.msgpack.decode(body, type=Snapshot)
        if snapshot.format > SNAPSHOT_FORMAT:
            raise ValueError(f"written by a newer release (format {snapshot.format}, this one reads {SNAPSHOT_FORMAT})")
        return snapshot

    def _keep_previous(self) -> None:
        """The current file becomes the previous one, unless it is damaged: then the older good one stays."""
        try:
            if _signature(self._current) != self._good:
                self._read(self._current)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.error("snapshot cannot be used", extra={"path": str(self._current), "problem": str(error)})
            return
        temporary = self._previous.with_name(f".{self._previous.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        os.link(self._current, temporary)  # at no moment is there no current file
        os.replace(temporary, self._previous)
        fsync_directory(self._previous.parent)

    def _image_files(self) -> list[tuple[Path, str]]:
        try:
            listed = sorted(os.listdir(self._state_dir.images))
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.error("images cannot be listed", extra={"path": str(self._state_dir.images), "problem": str(error)})
            return []
        directory = self._state_dir.images
        return [
            (directory / name, name.removesuffix(_SUFFIX))
            for name in listed
            if name.endswith(_SUFFIX) and len(name) == 2 * _DIGEST_SIZE + len(_SUFFIX) and not name.startswith(".")
        ]

    def _is_right(self, path: Path, sha256: str) -> bool:
        digest = _DIGEST()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() == sha256:
            return True
        problem = f"its octets hash to {digest.hexdigest()}"
        _log.error("damaged image removed", extra={"path": str(path), "problem": problem})
        path.unlink(missing_ok=True)
        if len(self.damaged) >= _DAMAGED_MAX:
            self.damaged.pop(next(iter(self.damaged)))
        self.damaged[sha256] = problem
        return False


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns

"""The cluster secret: one 0600 file, and everything that both ends of a stream derive from it.

By HKDF (RFC 5869) each machine derives the same Ed25519 key and the same self-signed certificate, octet for
octet: serial number and dates are fixed and an Ed25519 signature is deterministic (RFC 8032). Both ends present
that certificate and accept exactly it, so who lacks the secret cannot get in, and no clock has a say.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import ssl
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from raydns.schemas.errors import StateError

SECRET_SIZE: Final = 32
HOST_NAME: Final = "stream.raydns.internal"

_FILE_SIZE_MAX: Final = 256  # a good one has 65
_SALT: Final = b"raydns cluster secret"
_INFO_TLS: Final = b"tls ed25519 v1"
_INFO_RING: Final = b"ring seed v1"
# RFC 5280 section 4.1.2.5: 99991231235959Z is "no well-defined expiration date". A wrong clock never stops us.
_NOT_BEFORE: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def load_or_create(path: Path) -> bytes:
    """The secret in ``path``; a new random one is written there, mode 0600, if the file does not exist.

    Raises:
        StateError: the file cannot be used (see ``load``) or not be written.
    """
    if not path.exists():
        _create(path)
    return load(path)


def load(path: Path) -> bytes:
    """The secret in ``path``.

    Raises:
        StateError: missing, readable by others, damaged or of the wrong length; the hint says what to do.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_FILE_SIZE_MAX)
    except FileNotFoundError as error:
        raise StateError(
            "there is no cluster secret",
            where=where,
            hint="start the head first, or copy its cluster_secret to this machine with mode 0600",
        ) from error
    except OSError as error:
        raise StateError(
            f"the cluster secret cannot be read: {error.strerror}",
            where=where,
            hint="it has to be a file of this user with mode 0600",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise StateError(
            "the cluster secret is not a file", where=where, hint="remove it, and copy the secret of this cluster there"
        )
    if status.st_mode & 0o077:
        raise StateError(
            f"the cluster secret has mode {stat.S_IMODE(status.st_mode):04o}, so that others can read it",
            where=where,
            hint=f"chmod 600 {path}; if others had access, make a new one on every machine",
        )
    return _decode(text, where)


def _decode(text: bytes, where: str) -> bytes:
    hint = "copy cluster_secret from another machine of this cluster; on a single machine delete it and start again"
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError as error:
        raise StateError("the cluster secret is damaged: it is not hexadecimal", where=where, hint=hint) from error
    if len(secret) != SECRET_SIZE:
        raise StateError(
            f"the cluster secret is damaged: {len(secret)} octets where {SECRET_SIZE} belong", where=where, hint=hint
        )
    return secret


def _create(path: Path) -> None:
    text = secrets.token_hex(SECRET_SIZE).encode() + b"\n"
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, text)
            os.fsync(file)
        finally:
            os.close(file)
        try:
            # A link refuses to replace: of two that start at once, both end with the same secret.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
    except OSError as error:
        raise StateError(
            f"the cluster secret cannot be written: {error.strerror}",
            where=str(path),
            hint="the state directory must exist and be writable by this user",
        ) from error


def derive(secret: bytes, info: bytes, size: int) -> bytes:
    """``size`` octets for the purpose ``info`` (HKDF-SHA256, RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), size, _SALT, info).derive(secret)


def ring_seed(secret: bytes) -> int:
    """The seed of the ring's hash, 32 bits as MurmurHash3 takes them."""
    return int.from_bytes(derive(secret, _INFO_RING, 4), "little")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a machine of the cluster presents on a stream; the same on each of them."""

    certificate: bytes  # DER
    pem: bytes  # private key and certificate


@lru_cache(maxsize=8)
def identity(secret: bytes) -> Identity:
    """The key and certificate that the secret stands for."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.from_private_bytes(derive(secret, _INFO_TLS, 32))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST_NAME)])
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST_NAME)]), critical=False)
        .sign(key, None)
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(certificate.public_bytes(Encoding.DER), pem + certificate.public_bytes(Encoding.PEM))


class ClusterContext(ssl.SSLContext):
    """A TLS context that remembers which certificates it accepts, in DER."""

    pins: tuple[bytes, ...] = ()


def server_context(secret: bytes, *, also: Sequence[bytes] = ()) -> ClusterContext:
    """TLS 1.3 for listeners; ``also`` are further secrets to accept while a new one is introduced."""
    return _context(ssl.PROTOCOL_TLS_SERVER, secret, also)


def client_context(secret: bytes, *, also: Sequence[bytes] = ()) -> ClusterContext:
    """TLS 1.3 for those who connect; ``also`` as for the server."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, secret, also)


def _context(protocol: int, secret: bytes, also: Sequence[bytes]) -> ClusterContext:
    own = identity(secret)
    accepted = [own, *(identity(other) for other in also)]
    context = ClusterContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is pinned: a stronger check than its name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # no resumption: each connection shows its certificate
    context.load_verify_locations(cadata="".join(ssl.DER_cert_to_PEM_cert(item.certificate) for item in accepted))
    with _as_file(own.pem) as file:
        context.load_cert_chain(file)
    context.pins = tuple(item.certificate for item in accepted)
    return context


def pinned(context: ssl.SSLContext, certificate: bytes | None) -> bool:
    """Whether a peer's certificate (DER) is exactly one of those that the context accepts."""
    if certificate is None or not isinstance(context, ClusterContext):
        return False
    return any(hmac.compare_digest(certificate, pin) for pin in context.pins)


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """``ssl`` reads keys only from files: an anonymous one in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("raydns")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:  # mode 0600
            file.write(data)
            file.flush()
            yield file.name

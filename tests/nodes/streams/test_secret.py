"""The cluster secret: its file, what is derived from it, and TLS that lets nobody else in."""

from __future__ import annotations

import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raydns.nodes.streams import secret
from raydns.schemas.errors import StateError

FIXED = bytes(range(32))


def test_created_once_with_mode_0600(tmp_path: Path) -> None:
    """The first start makes a random secret that nobody else can read; later starts find the same."""
    path = tmp_path / "cluster_secret"
    first = secret.load_or_create(path)
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == first.hex() + "\n"
    assert secret.load_or_create(path) == secret.load(path) == first
    assert secret.load_or_create(tmp_path / "other") != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cluster_secret", "other"]


def test_two_who_start_at_once_get_the_same(tmp_path: Path) -> None:
    """A race of creators ends with one secret for all."""
    path = tmp_path / "cluster_secret"
    with ThreadPoolExecutor(8) as pool:
        found = {f.result() for f in [pool.submit(secret.load_or_create, path) for _ in range(32)]}
    assert len(found) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_readable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A secret that group or others can read is refused with the command that mends it."""
    path = tmp_path / "cluster_secret"
    secret.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(StateError) as caught:
        secret.load(path)
    assert f"{mode:04o}" in caught.value.message
    assert f"chmod 600 {path}" in caught.value.hint
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 octets"),
        (b"ab" * 31, "31 octets"),
        (b"ab" * 33, "33 octets"),
        (b"zz" * 32, "not hexadecimal"),
        (b"\xff\xfe" * 20, "not hexadecimal"),
        (b"a" * 63, "not hexadecimal"),
        (b"ab" * 5000, "octets"),
    ],
)
def test_damaged_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """A secret of the wrong length or alphabet says what is wrong and where to get a good one."""
    path = tmp_path / "cluster_secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StateError, match=says) as caught:
        secret.load_or_create(path)
    assert "copy cluster_secret" in caught.value.hint


def test_missing_directory_and_odd_files(tmp_path: Path) -> None:
    """A missing file, a missing directory and a directory in its place have messages of their own."""
    with pytest.raises(StateError, match="no cluster secret") as caught:
        secret.load(tmp_path / "none")
    assert "copy" in caught.value.hint
    with pytest.raises(StateError, match="cannot be written"):
        secret.load_or_create(tmp_path / "no" / "such")
    (tmp_path / "dir").mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        secret.load(tmp_path / "dir")
    with pytest.raises(StateError, match="not a file"):
        secret.load(Path("/dev/null"))


def test_same_secret_same_certificate_and_seed() -> None:
    """Everything derived is a function of the secret alone: golden values hold on every machine and release."""
    import hashlib

    secret.identity.cache_clear()
    first = secret.identity(FIXED)
    secret.identity.cache_clear()
    assert secret.identity(FIXED).certificate == first.certificate
    assert secret.identity(bytes(32)).certificate != first.certificate
    assert hashlib.sha256(first.certificate).hexdigest() == GOLDEN_CERTIFICATE
    assert secret.ring_seed(FIXED) == GOLDEN_SEED
    assert 0 <= secret.ring_seed(os.urandom(32)) < 1 << 32


GOLDEN_CERTIFICATE = "526b65034b750740dc7722cf44b9f01d56ddc1bf805474e48f07c2b8d25ea353"
GOLDEN_SEED = 1006369438


def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A whole handshake in memory; raises ``ssl.SSLError`` where either side refuses."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=secret.HOST_NAME),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = [False, False]
    for _ in range(10):
        for index, end in enumerate(ends):
            if not done[index]:
                try:
                    end.do_handshake()
                    done[index] = True
                except ssl.SSLWantReadError:
                    pass
        if all(done):
            return ends
    raise AssertionError("the handshake does not end")


def test_both_ends_accept_exactly_the_same_secret() -> None:
    """With the same secret TLS 1.3 comes up with the pinned certificate on both sides."""
    client, server = secret.client_context(FIXED), secret.server_context(FIXED)
    for end, context in zip(shake(client, server), (client, server), strict=True):
        assert end.version() == "TLSv1.3"
        assert secret.pinned(context, end.getpeercert(binary_form=True))


def test_other_secrets_and_strangers_are_refused() -> None:
    """Another secret on either side, and a client without a certificate, do not get through."""
    other = bytes(32)
    with pytest.raises(ssl.SSLError):
        shake(secret.client_context(other), secret.server_context(FIXED))
    with pytest.raises(ssl.SSLError):
        shake(secret.client_context(FIXED), secret.server_context(other))
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        shake(stranger, secret.server_context(FIXED))
    stranger.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(stranger, secret.server_context(FIXED))


def test_rotation_accepts_the_new_secret_beside_the_old() -> None:
    """A side that also accepts a second secret talks with those who present it already."""
    new = bytes(32)
    client, server = secret.client_context(new, also=[FIXED]), secret.server_context(FIXED, also=[new])
    one, two = shake(client, server)
    assert secret.pinned(client, one.getpeercert(binary_form=True))
    assert secret.pinned(server, two.getpeercert(binary_form=True))


def test_pinned_needs_a_cluster_context_and_a_certificate() -> None:
    """No certificate, another certificate or another kind of context is never accepted."""
    context = secret.client_context(FIXED)
    certificate = secret.identity(FIXED).certificate
    assert secret.pinned(context, certificate)
    assert not secret.pinned(context, None)
    assert not secret.pinned(context, certificate[:-1])
    assert not secret.pinned(ssl.create_default_context(), certificate)

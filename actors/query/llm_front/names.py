"""From a question's name to a prompt (llm.md 2.2), always from wire octets.

0x20, minimisation and search suffixes reshape names on their way; whatever survives is one prompt: lower case,
NFKC, single spaces. Two spellings that a resolver may make of one question give one key.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raydns.schemas import names
from raydns.schemas.config.llm import LLMConfig

HELP: Final = b"_help"
SPECIAL_USE: Final = frozenset(
    # RFC 6761, RFC 6762, RFC 7686, RFC 9476; arpa holds the reverse tree and RFC 9462's resolver.arpa.
    (b"localhost", b"arpa", b"onion", b"invalid", b"test", b"local", b"alt")
)
_INSIDE: Final = re.compile(r"(?<=.)[-_](?=.)", re.DOTALL)
_SPACES: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a name below an LLM zone, or a catch-all name, asks for."""

    prompt: str = ""
    """Normalised; empty where no word is left."""
    help: bool = False
    reserved: bool = False
    """Some label begins with an underscore: service names (RFC 8552) and control labels; no model sees it."""


class Zones:
    """LLM zones and search suffixes of one configuration, in key form."""

    def __init__(self, config: LLMConfig) -> None:
        self._zones = _by_length(config.zones if config.enabled else ())
        self._suffixes = _by_length(config.strip_suffixes)

    def zone_of(self, key: bytes) -> bytes | None:
        """The longest LLM zone that is the name or above it."""
        return next((zone for zone in self._zones if names.is_subdomain(key, zone)), None)

    def stripped(self, key: bytes) -> bytes:
        """The name without a search suffix that a client appended, and without an LLM zone before that."""
        for suffix in self._suffixes:
            if key != suffix and names.is_subdomain(key, suffix):
                key = key[: len(key) - len(suffix)] + names.ROOT
                zone = self.zone_of(key)
                return key if zone is None else key[: len(key) - len(zone)] + names.ROOT
        return key


def _by_length(texts: Sequence[str]) -> list[bytes]:
    found = (names.key(names.from_text(text)) for text in texts)
    return sorted((name for name in found if name != names.ROOT), key=len, reverse=True)


def asked_of(labels: Sequence[bytes]) -> Asked:
    """What these labels (leftmost first, those of zone and suffix gone) ask for."""
    lowered = [label.lower() for label in labels]
    if lowered and lowered[-1] == HELP:
        return Asked(help=True)
    if any(label.startswith(b"_") for label in lowered):
        return Asked(reserved=True)
    prompt = prompt_of(labels)
    return Asked(prompt, help=not prompt)


def prompt_of(labels: Sequence[bytes]) -> str:
    """The prompt that labels spell; empty where nothing readable is left."""
    text = " ".join(_words(label) for label in labels)
    text = unicodedata.normalize("NFKC", text).lower()
    text = unicodedata.normalize("NFKC", text)  # lowering may leave a character decomposed
    # Cn is kept: letters that are newer than this Python's table are still letters.
    text = _SPACES.sub(" ", text)
    text = "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})
    return _SPACES.sub(" ", text).strip()


def _words(label: bytes) -> str:
    text = _decoded(label)
    # "--" is a hyphen that was meant; a single hyphen or underscore inside a label stands for a space.
    return "-".join(_INSIDE.sub(" ", part) for part in text.split("--"))


def _decoded(label: bytes) -> str:
    lowered = label.lower()
    if lowered.startswith(b"xn--"):
        try:
            # Punycode itself (RFC 3492), not IDNA's rules: clients encode whole sentences with spaces in them.
            return lowered[4:].decode("ascii").encode("ascii").decode("punycode")
        except (UnicodeError, ValueError, OverflowError):
            return _text(label)
    return _text(label)


def _text(label: bytes) -> str:
    try:
        return label.decode("utf-8")
    except UnicodeDecodeError:
        return label.decode("latin-1")


def key_of(config: LLMConfig, model: str, prompt: str) -> bytes:
    """Who shares it shares one call and one answer: sha256 of model alias, system prompt and prompt."""
    system = hashlib.sha256(config.system_prompt.encode("utf-8", "replace")).digest()
    return hashlib.sha256(system + model.encode() + b"\0" + prompt.encode("utf-8", "replace")).digest()

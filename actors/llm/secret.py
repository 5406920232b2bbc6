"""The provider's key: read by the actor itself, never shown, never passed through Ray (its arguments reach logs)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.errors import StateError

_SIZE_MAX: Final = 4096


class Secret:
    """A text that only ``reveal`` shows: not ``repr``, ``str``, formatting, pickling or a traceback's locals."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text, for the one header that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret does not leave its process")


def provider_key(config: LLMConfig, environment: Mapping[str, str]) -> Secret:
    """The key that the configuration names: its file, else its environment variable; empty where there is none.

    Raises:
        StateError: the file cannot be read, others may read it, or it holds no key.
    """
    if config.api_key_file:
        return Secret(_from_file(Path(config.api_key_file).expanduser()))
    return Secret(environment.get(config.api_key_env, "").strip() if config.api_key_env else "")


def _from_file(path: Path) -> str:
    where = f"llm.api_key_file {path}"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise StateError("is no regular file", where=where, hint="name a file that holds only the key")
            if mode & 0o077:
                raise StateError(
                    f"has mode {stat.S_IMODE(mode):04o}; others may read the key", where=where, hint=f"chmod 600 {path}"
                )
            data = file.read(_SIZE_MAX + 1)
    except OSError as error:
        raise StateError(
            f"cannot be read: {os.strerror(error.errno or 0)}", where=where, hint="create it with mode 0600"
        ) from None
    text = data.decode("ascii", "replace").strip()
    if not text or len(data) > _SIZE_MAX or not text.isprintable() or " " in text or not text.isascii():
        raise StateError("holds no key", where=where, hint="it must hold the key alone, on one line")
    return text

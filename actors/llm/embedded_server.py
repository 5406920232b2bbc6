"""The embedded model's own process: ``python -m raydns.actors.llm.embedded_server``; one server a process.

It reads one line of JSON (its options, among them the API key, which therefore stands in no argument list and in no
environment) from standard input, checks and loads the weights, and writes one line of JSON to standard output: the
address where it listens, or what is wrong. Then it waits: when standard input ends, its parent is gone or wants it
to end, and it ends. That holds whatever kills the parent, unlike PR_SET_PDEATHSIG, which fires when the *thread*
that made the child ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NICENESS = 10


def serve(options: dict[str, Any]) -> str:
    """Loads the model and starts its server; returns the base URL of its OpenAI-compatible interface.

    Raises:
        StateError: weights or package are absent or damaged.
        RuntimeError: the weights cannot be loaded.
    """
    from . import weights
    from .faults import INSTALL_HINT

    path = weights.find(options["model_path"])
    try:
        import xllamacpp
    except ImportError as error:
        raise weights.WeightsAbsentError(
            f"the package that runs the embedded model cannot be imported: {error}",
            where="llm",
            hint=INSTALL_HINT,
        ) from error
    weights.verify(path, options["sha256"])
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = options["slots"]
    params.n_ctx = options["slots"] * options["context"]
    params.cpuparams.n_threads = options["threads"]
    params.cpuparams_batch.n_threads = options["threads"]
    params.port = 0
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [options["key"]]
    params.n_threads_http = options["slots"] + 2  # one more than prompts, so that a full house still answers
    params.endpoint_slots = False  # would tell other people's prompts
    params.endpoint_props = False
    params.ui = False
    params.cache_ram_mib = 0
    params.verbosity = 0  # higher levels print prompts
    server = xllamacpp.Server(params)
    _alive.append(server)
    return f"{server.listening_address}/v1"


_alive: list[object] = []


def main() -> int:
    """See the head of this file; the exit status is 0 after an orderly end, 1 where it could not start."""
    # The library may print; only our two lines belong into the pipe.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    line = sys.stdin.readline()
    if not line:
        return 1
    options = json.loads(line)
    os.nice(NICENESS)
    try:
        answer = {"url": serve(options)}
    except Exception as error:  # whatever it is, the parent must learn it, not wait for it
        answer = {"error": type(error).__name__, "problem": str(error)[:500]}
    del options
    out.write(json.dumps(answer) + "\n")
    out.flush()
    if "url" not in answer:
        return 1
    while sys.stdin.readline():
        pass
    return 0


if __name__ == "__main__":
    status = main()
    # The library's threads would keep the process; there is nothing to save.
    os._exit(status)

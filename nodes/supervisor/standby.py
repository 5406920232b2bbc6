"""A process that has imported a module and waits to become it: what is left of a start is a fraction of a second.

    python -m raydns.nodes.supervisor.standby MODULE [ARGUMENT…]

Descriptor 3 is its supervisor: it is told ``R`` when the module is there, and answers, perhaps never, with one frame
that holds the environment, and with the descriptors that become 3, 4, … there. When the supervisor is gone, so is it.
"""

from __future__ import annotations

import array
import fcntl
import importlib
import os
import socket
import sys
from typing import Final

import msgspec

from raydns.nodes.control import FRAME_MAX, LENGTH

IMPORTED: Final = b"R"
_HIGH: Final = 200
_DESCRIPTORS_MAX: Final = 253  # SCM_MAX_FD


def main() -> int:
    """See the head of this file."""
    module = importlib.import_module(sys.argv[1])
    with socket.socket(fileno=3) as supervisor:
        os.set_inheritable(3, False)
        supervisor.sendall(IMPORTED)
        order = _receive(supervisor)
    if order is None:
        return 0
    environ, handles = order
    _place(handles)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [str(module.__file__), *sys.argv[2:]]
    return int(module.main())


def _receive(supervisor: socket.socket) -> tuple[dict[str, str], list[int]] | None:
    handles = array.array("i")
    space = socket.CMSG_LEN(_DESCRIPTORS_MAX * handles.itemsize)
    data, ancillary, _, _ = supervisor.recvmsg(LENGTH.size, space, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL)
    if len(data) < LENGTH.size:
        return None
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            handles.frombytes(content[: len(content) - len(content) % handles.itemsize])
    (length,) = LENGTH.unpack(data)
    body = bytearray()
    while len(body) < min(length, FRAME_MAX):
        part = supervisor.recv(length - len(body))
        if not part:
            return None
        body += part
    return msgspec.msgpack.decode(body, type=dict[str, str]), list(handles)


def _place(handles: list[int]) -> None:
    """The descriptors become 3, 4, …; first out of the way, so that none overwrites another."""
    high = [fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _HIGH) for handle in handles]
    for handle in handles:
        os.close(handle)
    for at, handle in enumerate(high):
        os.dup2(handle, 3 + at, inheritable=False)
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())

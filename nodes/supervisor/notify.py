"""What systemd wants to know (sd_notify(3)), and what it may hand to us (sd_listen_fds(3))."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, MutableMapping

from raydns.nodes import handover

_log = logging.getLogger(__name__)


def notify(environ: Mapping[str, str], message: str) -> None:
    """Tells the service manager, if there is one: ``READY=1``, ``STOPPING=1``, ``STATUS=…``."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace of unix(7)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message.encode(), address)
    except OSError as error:
        _log.warning("service manager was not told", extra={"message_sent": message, "problem": str(error)})


def take_listen_fds(environ: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """Sockets of systemd's socket activation, if they are meant for this very process; no child inherits the hint."""
    pid = environ.pop("LISTEN_PID", "")
    given = {name: environ.pop(name) for name in ("LISTEN_FDS", "LISTEN_FDNAMES") if name in environ}
    if not given or pid != str(os.getpid()):
        return []
    return handover.inherited_sockets(given)

"""No test reaches another machine: an audit hook sees every connection before it is made."""

import ipaddress
import sys


class NotHereError(RuntimeError):
    """Something a test runs wanted to reach another machine."""


def stay_here() -> None:
    """Refuse every connection of this process, and of its forks, that leaves the machine."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        address = arguments[1]
    elif event == "socket.getaddrinfo":
        address = arguments[:1]
    else:
        return
    # A Unix socket's address is a path.
    if isinstance(address, tuple) and not _is_here(address[0]):
        raise NotHereError(f"a test asked for {address[0]}")


def _is_here(host: str | bytes | None) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False

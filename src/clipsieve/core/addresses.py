"""Which network addresses an image may come from: public ones only, whatever a URL, a name or a redirect says.

What is checked in the end is the address that a socket connects to, so a name that resolves to something else the
second time gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from aiohttp.abc import AbstractResolver

Lookup: TypeAlias = Callable[..., Sequence[tuple[Any, Any, int, str, tuple[Any, ...]]]]
"""What ``socket.getaddrinfo`` is."""

LOOKUPS = 64
"""Names that are looked up at the same time, each in a thread of its own."""

_EMBEDDING = ipaddress.IPv6Network("64:ff9b::/96")
"""Where a network without IPv4 shows IPv4 addresses (NAT64): the last 32 bits say which one is meant."""

_OF_MACHINES = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; Oracle's cloud answers for its machines here
            "168.63.129.16/32",  # what Azure answers from, to each of its machines
        ),
    )
)
"""Not for the public, though Python's own list (3.11) takes them for that."""


class PrivateAddressError(OSError):
    """An address that is not public."""


def is_public(address: str) -> bool:
    """Whether ``address``, in its usual spelling, can be reached by everyone: not private, local or reserved."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if found in _EMBEDDING:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
        if found.is_site_local:
            return False
    special = found.is_multicast or found.is_reserved or any(found in network for network in _OF_MACHINES)
    return found.is_global and not special


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for what ``getaddrinfo`` gives of an address. Raises ``PrivateAddressError``."""
    family, kind, proto, _, place = address
    if not is_public(place[0]):
        raise PrivateAddressError
    return socket.socket(family, kind, proto)


class Resolver(AbstractResolver):  # type: ignore[misc]
    """Looks names up, with ``lookup``, in threads that nobody waits for: a lookup that hangs cannot be interrupted.

    With ``public`` a name that leads to any address that is not public is refused.
    """

    def __init__(self, lookup: Lookup, *, public: bool) -> None:
        self._lookup = lookup
        self._public = public
        self._room = asyncio.Semaphore(LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[dict[str, Any]]:
        """The addresses of ``host``. Raises ``OSError``."""
        async with self._room:
            found = await _in_thread(lambda: self._lookup(host, port, family, socket.SOCK_STREAM))
        if self._public and not all(is_public(place[0]) for *_, place in found):
            raise PrivateAddressError
        return [
            {
                "hostname": host, "host": place[0], "port": port, "family": family, "proto": proto,
                "flags": socket.AI_NUMERICHOST,
            }
            for family, _, proto, _, place in found
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to close."""


async def _in_thread(work: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(result: Any, failure: Exception | None) -> None:
        if done.cancelled():
            return
        if failure is None:
            done.set_result(result)
        else:
            done.set_exception(failure)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as raised:
            failure = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="clipsieve-lookup", daemon=True).start()
    return await done

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
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver

Lookup: TypeAlias = Callable[..., Sequence[tuple[Any, Any, int, str, tuple[Any, ...]]]]
"""What ``socket.getaddrinfo`` is."""

LOOKUPS = 256
"""Names that are looked up at the same time, each in a thread of its own; most only wait for a name server."""

KNOWN = 300.0
"""Seconds for which it is known where a name leads, or that there is none."""

HICCUPS = 3
"""So often in a row a name server may fail to say about a name, before that is known for as long, too."""

NAMES = 10_000
"""So many names are known at most; the one that was looked up first goes."""

NO_NAME = frozenset(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL") if hasattr(socket, name))
"""How ``getaddrinfo`` says that there is no such name, and not that it could not find out."""

_EMBEDDING = ipaddress.IPv6Network("64:ff9b::/96")
"""Where a network without IPv4 shows IPv4 addresses (NAT64): the last 32 bits say which one is meant."""

_OF_MACHINES = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.88.99.0/24",  # anycast of 6to4
            "3fff::/20",  # documentation
            "5f00::/16",  # segments of routes
            "64:ff9b:1::/48",  # NAT64 within a network
            "192.0.0.0/24",  # protocol assignments; Oracle's cloud answers for its machines here
            "168.63.129.16/32",  # what Azure answers from, to each of its machines
        ),
    )
)
"""Not for the public, though Python's own list (3.11) takes them for that."""

_ISATAP = 0x5EFE
"""What stands before the IPv4 address of a machine of one's own network in an IPv6 address (RFC 5214)."""


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
        if found.is_site_local or (int(found) >> 32) & 0xFDFFFFFF == _ISATAP:
            return False
    special = found.is_multicast or found.is_reserved or any(found in network for network in _OF_MACHINES)
    return found.is_global and not special


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for what ``getaddrinfo`` gives of an address. Raises ``PrivateAddressError``."""
    family, kind, proto, _, place = address
    if not is_public(place[0]) or _is_own(family, place):
        raise PrivateAddressError
    return socket.socket(family, kind, proto)


def _is_own(family: int, place: tuple[Any, ...]) -> bool:
    """Whether an address is one of this machine: what would be sent there would come from there. Nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as asking, suppress(OSError):
        asking.connect(place)
        return bool(asking.getsockname()[0] == place[0])
    return False


@dataclass(eq=False)
class _Name:
    """What is known of where a name leads, and until when."""

    until: float = 0.0
    found: Sequence[Any] = ()
    failure: OSError | None = None
    hiccups: int = 0


class Resolver(AbstractResolver):  # type: ignore[misc]
    """Looks names up, with ``lookup``, in threads that nobody waits for: a lookup that hangs cannot be interrupted.

    With ``public`` a name that leads to any address that is not public is refused. Nothing takes longer than
    ``timeout`` seconds, but for the time until there is room to ask.
    """

    def __init__(self, lookup: Lookup, *, public: bool, timeout: float) -> None:
        self._lookup = lookup
        self._public = public
        self._timeout = timeout
        self._room = asyncio.Semaphore(LOOKUPS)
        self._names: dict[str, _Name] = {}
        self._answered = ""
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._clock = asyncio.get_running_loop().time

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[dict[str, Any]]:
        """The addresses of ``host``. Raises ``OSError``."""
        found = await self.addresses(host.rstrip(".").lower())
        if self._public and not all(is_public(place[0]) for *_, place in found):
            raise PrivateAddressError
        return [
            {
                "hostname": host, "host": place[0], "port": port, "family": kind, "proto": proto,
                "flags": socket.AI_NUMERICHOST,
            }
            for kind, _, proto, _, place in found
        ]  # fmt: skip

    async def addresses(self, host: str) -> Sequence[Any]:
        """What ``lookup`` finds of ``host``, or has found a while ago. Raises ``OSError``."""
        lock = self._asking.setdefault(host, asyncio.Lock())
        async with lock:  # who comes later needs not ask
            name = self._names.get(host, _Name())
            if name.until <= self._clock():
                await self._ask(host, name)
                self._names.pop(host, None)
                self._names[host] = name
                if len(self._names) > NAMES:
                    del self._names[next(iter(self._names))]
        if name.failure is not None:
            raise name.failure.with_traceback(None)
        return name.found

    async def works(self) -> bool:
        """Whether a name server still says anything of the last name that it has said something of."""
        name = _Name()
        if self._answered:
            await self._ask(self._answered, name)
        return name.until > 0

    async def _ask(self, host: str, name: _Name) -> None:
        name.failure = None
        await self._room.acquire()
        try:
            async with asyncio.timeout(self._timeout):
                name.found = await _in_thread(
                    lambda: self._lookup(host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM), self._room.release
                )
        except TimeoutError:
            name.failure = socket.gaierror(socket.EAI_AGAIN, "timed out")
        except OSError as failure:
            name.failure = failure
        passing = name.failure is not None and name.failure.errno not in NO_NAME
        if not passing:
            self._answered = host
        name.hiccups = name.hiccups + 1 if passing else 0
        name.until = 0.0 if passing and name.hiccups < HICCUPS else self._clock() + KNOWN

    async def close(self) -> None:
        """Nothing to close."""


async def _in_thread(work: Callable[[], Any], ended: Callable[[], None]) -> Any:
    """What ``work`` gives; ``ended`` is called when its thread has ended, also when nobody waits any more."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(result: Any, failure: Exception | None) -> None:
        ended()
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

    try:
        threading.Thread(target=run, name="clipsieve-lookup", daemon=True).start()
    except RuntimeError:
        ended()
        raise
    return await done

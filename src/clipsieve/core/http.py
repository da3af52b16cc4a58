"""One image from one URL: redirects, retries and limits, and a short reason for whatever goes wrong.

Every hop of a redirect is a request of its own and checked like the first. No reason holds anything that a server or a
URL says, but for a status, a content type and a directive that are known to be harmless.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import aiohttp
from yarl import URL

from clipsieve.core.addresses import NO_NAME, Lookup, PrivateAddressError, Resolver, public_socket
from clipsieve.core.body import Body, too_large
from clipsieve.core.descriptors import exhausted
from clipsieve.core.optout import opted_out
from clipsieve.errors import ImageError, StoreError

if TYPE_CHECKING:
    from clipsieve.core.urls import FetchPolicy

FIRST_PAUSE = 0.5
"""Seconds before the first new attempt, doubled with each further one, and half as much more or less by chance."""

LONGEST_PAUSE = 30.0
"""Seconds that a server may ask to be left alone for; one that asks for more is not asked again."""

IDLE = 2.0
"""Seconds that a connection is kept for the next image of its host: with thousands of hosts more would be too many."""

CHUNK = 2**16

HEADER = 2**14
"""Bytes that a field of an answer's head may have, of which there may be 128: it is in memory for each request."""

CUT_OFF = 8
"""So many hosts in a row that cannot be reached for what may be this machine's own fault are taken for just that."""

_NO_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)

_REDIRECTS = {301, 302, 303, 307, 308}
_QUOTED = re.compile(r"[\w\-.~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
_KIND = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,40}", re.ASCII)

Turn: TypeAlias = Callable[[str], AbstractAsyncContextManager[Any]]
"""Waits until a request may go to a host."""


class TemporaryError(Exception):
    """What may be otherwise the next time; ``pause`` is how long the server asks to be left alone, in seconds,
    ``silent`` says that nothing of use came from the host at all, and ``lacking`` what this machine may lack."""

    def __init__(
        self,
        reason: str,
        pause: float = 0.0,
        *,
        silent: bool = False,
        lacking: Literal["", "name server", "network"] = "",
    ) -> None:
        super().__init__(reason)
        self.pause = pause
        self.silent = silent
        self.lacking = lacking
        self.host = ""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a download has to do with others: its ``turn`` at a host, which raises ``ImageError`` when that is given up,
    what a host has ``answered`` (None: of use), which says whether another attempt makes sense, and the count of bytes
    that it has ``received``, which may raise to end it."""

    turn: Turn
    answered: Callable[[str, TemporaryError | None], bool]
    received: Callable[[int], None]


class Http:
    """A client that keeps to a ``FetchPolicy``; to be used within one event loop, as a context manager."""

    def __init__(self, policy: FetchPolicy, lookup: Lookup = socket.getaddrinfo) -> None:
        self._policy = policy
        self._cut_off: set[str] = set()
        public = not policy.allow_private
        self._resolver = Resolver(lookup, public=public, timeout=policy.timeout)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # who may go is decided before, by host and in all
                resolver=self._resolver,
                socket_factory=public_socket if public else None,
                use_dns_cache=False,  # the resolver's own
                keepalive_timeout=IDLE,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": policy.user_agent, "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(10.0, policy.timeout)),
            auto_decompress=False,  # bounded, below
            max_line_size=HEADER,
            max_field_size=HEADER,
            trust_env=False,  # behind a proxy nobody sees what is connected to
        )

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def look_up(self, host: str) -> None:
        """Finds out where a name leads, so that no attempt has to wait for its turn to ask. Raises ``ImageError`` or
        ``TemporaryError``."""
        if not _is_address(host):
            with _in_words():
                try:
                    await self._resolver.addresses(host)
                except OSError as failure:
                    raise _unnamed(failure) from None

    async def get(self, url: str, transfer: Transfer) -> bytes:
        """The bytes at ``url``. Raises ``ImageError``, and ``StoreError`` where this machine can do no more."""
        with _in_words():
            place = _parsed(url)
        attempt = 0
        while True:
            try:
                return await self._followed(place, transfer)
            except TemporaryError as failure:
                if attempt == self._policy.retries or failure.pause > LONGEST_PAUSE:
                    raise await self._final(failure) from None
                pause = FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5)
            attempt += 1
            await asyncio.sleep(pause)

    async def _final(self, failure: TemporaryError) -> ImageError | StoreError:
        """What is said of an image that is not tried again: nothing, where host after host cannot be reached."""
        if failure.lacking:
            self._cut_off.add(failure.host)
            if len(self._cut_off) >= CUT_OFF:
                if failure.lacking == "network" or not await self._resolver.works():
                    return StoreError(
                        f"the {failure.lacking} of this machine seems to be down: {CUT_OFF} hosts in a row could not "
                        "be reached; run the same command again when it is back"
                    )
                self._cut_off.clear()
        return ImageError(str(failure))

    async def _followed(self, place: URL, transfer: Transfer) -> bytes:
        left = self._policy.timeout
        clock = asyncio.get_running_loop().time
        for _ in range(self._policy.redirects + 1):
            host = (place.raw_host or "").rstrip(".").lower()
            try:
                async with transfer.turn(host):
                    began = clock()  # waiting for others is nobody's fault
                    try:
                        with _in_words():
                            async with asyncio.timeout(left):
                                found = await self._hop(place, transfer)
                    except ImageError:
                        transfer.answered(host, None)
                        raise
                    transfer.answered(host, None)
                    left -= clock() - began
            except TemporaryError as failure:
                failure.host = host
                if not transfer.answered(host, failure):
                    raise await self._final(failure) from None
                raise
            if isinstance(found, bytes):
                return found
            place = found
        raise ImageError(f"not fetched: more than {self._policy.redirects} redirects")

    async def _hop(self, place: URL, transfer: Transfer) -> bytes | URL:
        """The bytes at ``place``, or where it redirects to."""
        async with self._session.get(place, allow_redirects=False) as answer:
            self._cut_off.clear()
            status = answer.status
            if status in _REDIRECTS and "Location" in answer.headers:
                self._check_opt_out(answer.headers)
                return _redirected(place, answer.headers["Location"])
            if status == 429 or status >= 500:
                pause = _asked_pause(answer.headers)
                silent = status in (429, 503) or pause > 0
                raise TemporaryError(f"not fetched: status {status}", pause, silent=silent)
            if not 200 <= status < 300 or status == 206:  # no part was asked for
                raise ImageError(f"not fetched: status {status}")
            self._check_opt_out(answer.headers)
            _check_kind(answer.headers.get("Content-Type", ""))
            limit = self._policy.max_bytes
            if (answer.content_length or 0) > limit:
                raise too_large(limit)
            body = Body(answer.headers.get("Content-Encoding", "identity"), limit)
            async for chunk in answer.content.iter_chunked(CHUNK):
                transfer.received(body.take(chunk))
            if not body.complete:
                raise TemporaryError("truncated: the connection closed early")
            return body.whole()

    def _check_opt_out(self, headers: Any) -> None:
        if self._policy.opt_out == "respect":
            directive = opted_out(headers.getall("X-Robots-Tag", ()), self._policy.user_agent)
            if directive is not None:
                raise ImageError(f"refused: opted out (X-Robots-Tag: {directive})")


def _parsed(url: str, start: URL | None = None) -> URL:
    """A URL, also one that is relative to ``start``: as it stands where it is quoted already, which signed ones are,
    else quoted. Raises ``ValueError``."""
    place = URL(url, encoded=_QUOTED.fullmatch(url) is not None)
    place = place if start is None else start.join(place)
    if not (place.host and place.port) and place.scheme in ("", "http", "https"):
        raise ValueError("no host")
    return place


def _redirected(place: URL, location: str) -> URL:
    try:
        there = _parsed(location, place)
    except ValueError:
        raise ImageError("not fetched: a redirect to no valid URL") from None
    if there.scheme not in ("http", "https"):
        raise ImageError("refused: a redirect to something else than http or https")
    return there


def _check_kind(content_type: str) -> None:
    """Refuses pages and texts; what anything else is, its bytes say."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind == "application/xhtml+xml":
        raise ImageError(f"not an image: {kind}" if _KIND.fullmatch(kind) else "not an image: a text")


def _asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds that ``Retry-After`` says, as a number or a date; 0 without one."""
    said = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", said):
        return float(said)
    try:
        until = parsedate_to_datetime(said)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0


@contextmanager
def _in_words() -> Iterator[None]:
    """What can go wrong with a request, as ``TemporaryError`` or, where another attempt is no use, ``ImageError``."""
    try:
        yield
    except TimeoutError:
        raise TemporaryError("not fetched: timed out", silent=True) from None
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError) as failure:
        untrusted = isinstance(failure, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError))
        raise ImageError("not fetched: TLS " + ("certificate not valid" if untrusted else "failed")) from None
    except aiohttp.ClientConnectorError as failure:
        raise _unconnected(failure) from None
    except aiohttp.ClientPayloadError:
        raise TemporaryError("truncated: the connection closed early") from None
    except (aiohttp.ClientConnectionError, ConnectionError) as failure:
        raise exhausted(failure) or TemporaryError("not fetched: connection lost") from None
    except (aiohttp.InvalidURL, ValueError):
        raise ImageError("not fetched: not a valid URL") from None
    except aiohttp.ClientError:
        raise ImageError("not fetched: the answer is not HTTP") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unnamed(cause: OSError) -> StoreError | ImageError | TemporaryError:
    """What came of looking a name up."""
    if (ours := exhausted(cause)) is not None:
        return ours
    if cause.errno in NO_NAME:
        return ImageError("not fetched: no such host")
    return TemporaryError("not fetched: the host's name cannot be looked up", silent=True, lacking="name server")


def _unconnected(failure: Any) -> StoreError | ImageError | TemporaryError:
    cause: OSError = failure.os_error
    if isinstance(cause, PrivateAddressError):
        return ImageError("refused: private address")
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return _unnamed(cause)
    if (ours := exhausted(cause)) is not None:
        return ours
    if cause.errno == errno.ECONNREFUSED:
        return TemporaryError("not fetched: connection refused", silent=True)
    lacking: Literal["", "network"] = "network" if cause.errno in _NO_NETWORK else ""
    return TemporaryError("not fetched: no connection", silent=True, lacking=lacking)

"""Who may talk to the server, and what a browser may do with its pages.

On the loopback interface the ``Host`` header must name it, so that a foreign page whose name resolves to this machine
(DNS rebinding) reads nothing. On any other interface a token is asked for, once in the URL and then in a cookie. What
changes or reads anything but a page and an image needs a header that no foreign page may set, and its own origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASKS = "x-clipsieve"
"""The header that the page's own scripts set on each question; a browser stops a foreign page that would set it."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer; ``require-trusted-types-for`` makes a browser refuse markup that is made from a text."""


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the server listens, and the token that it asks for; None on loopback."""

    host: str
    port: int
    token: str | None

    @classmethod
    def at(cls, host: str, port: int) -> Access:
        """With a new token where anybody but this machine could come."""
        return cls(host=host, port=port, token=None if is_loopback(host) else secrets.token_urlsafe(32))

    @property
    def cookie(self) -> str:
        """Cookies do not tell ports apart, so their names do."""
        return f"clipsieve-{self.port}"

    def names(self, host: str) -> bool:
        """Whether a ``Host`` header is one of this server."""
        if self.token is not None:
            return True  # the cookie is sent to the name alone under which the token was given
        try:
            parts = urlsplit(f"//{host}")
            # Any port: whoever came through a tunnel (ssh -L 9000:localhost:8765) names the tunnel's.
            return parts.username is None and parts.port != 0 and is_loopback(parts.hostname or "")
        except ValueError:
            return False

    def knows(self, cookies: str) -> bool:
        """Whether the cookies of a request hold the token."""
        return self.token is None or self.is_token(cookie_parser(cookies).get(self.cookie, ""))

    def brought(self, query: str) -> str | None:
        """What the query of a URL gives as the token; None where it gives none, or none is asked for."""
        return None if self.token is None else parse_qs(query).get("token", [None])[0]

    def is_token(self, given: str) -> bool:
        """Whether it is the token, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(given.encode(errors="replace"), (self.token or "").encode())


class Guard:
    """Lets in who may come in, and puts ``HEADERS`` on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request itself, or hands it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        access = self._access
        host = headers.get("host", "")
        if not access.names(host):
            return PlainTextResponse("This server answers to its own address only.", 421)
        known = access.knows(headers.get("cookie", ""))
        brought = access.brought(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and brought is not None and (known or access.is_token(brought)):
            return self._welcome()
        if not known:
            return PlainTextResponse("Open the address with the token that clipsieve view printed.", 403)
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if foreign and scope["path"] != "/":  # which a link may lead to, and which holds nothing of the run
            return PlainTextResponse("Not for other sites.", 403)
        if scope["path"].startswith("/api/"):
            origin = headers.get("origin")
            if headers.get(ASKS) is None or (origin is not None and urlsplit(origin).netloc != host):
                return PlainTextResponse("Not for other sites.", 403)
        return None

    def _welcome(self) -> Response:
        """Puts the token into a cookie and out of the address.

        By a page that goes on by itself: on a redirect that began at another site, as by a link in a web terminal, a
        browser would hold a strict cookie back.
        """
        answer = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>Clipsieve</title>')
        answer.set_cookie(self._access.cookie, self._access.token or "", httponly=True, samesite="strict", path="/")
        return answer

"""An S3 server on this machine, moto's, behind a layer that misbehaves when it is told to."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import make_server

Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Fault = Callable[[Answer], Answer]

KEY, SECRET = "a-key", "a-secret-nobody-may-see"


@dataclass(kw_only=True)
class Server:
    """What was asked of it, and what goes wrong: a fault for each request that fits, until it is used up."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Method, path and query, and range of each request, such as ``GET /bucket/key bytes=0-99``."""
    faults: list[tuple[re.Pattern[str], int, Fault]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def options(self) -> dict[str, Any]:
        """Storage options with which s3fs comes here; botocore itself tries only once."""
        once = {"retries": {"max_attempts": 0}, "read_timeout": 2}
        return {"s3": {"endpoint_url": self.url, "key": KEY, "secret": SECRET, "config_kwargs": once}}

    def goes_wrong(self, what: str, fault: Fault, times: int = 1) -> None:
        """Lets the next ``times`` requests that match ``what`` meet ``fault``."""
        self.faults.append((re.compile(what), times, fault))

    def requests(self, what: str) -> list[str]:
        """Those so far that match."""
        return [request for request in self.asked if re.search(what, request)]

    def fault_of(self, request: str) -> Fault | None:
        with self.lock:
            self.asked.append(request)
            for number, (what, times, fault) in enumerate(self.faults):
                if times and what.search(request):
                    self.faults[number] = (what, times - 1, fault)
                    return fault
        return None


def throttled(_: Answer) -> Answer:
    return _error("503 Slow Down", "SlowDown", "Please reduce your request rate.")


def expired(_: Answer) -> Answer:
    return _error("400 Bad Request", "ExpiredToken", "The provided token has expired.")


def denied(_: Answer) -> Answer:
    return _error("403 Forbidden", "AccessDenied", "Access Denied")


def _error(status: str, code: str, message: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer


def reset(_: Answer) -> Answer:
    """The connection is reset before there is an answer."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        there = environ["werkzeug.socket"]
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there.shutdown(socket.SHUT_RDWR)
        raise ConnectionError

    return answer


def truncated(app: Answer) -> Answer:
    """The connection ends within the body."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        body = b"".join(app(environ, start))
        yield body[: len(body) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    return answer


def short(app: Answer) -> Answer:
    """A whole answer of fewer bytes than were asked for."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        kept: dict[str, Any] = {}
        body = b"".join(app(environ, lambda status, headers, *_: kept.update(status=status, headers=headers)))
        body = body[: len(body) // 2]
        lengths = ("content-length", "x-amz-checksum-crc32")
        headers = [(name, value) for name, value in kept["headers"] if name.lower() not in lengths]
        start(kept["status"], [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return answer


def slow(app: Answer) -> Answer:
    """A body that comes in drops."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        body = b"".join(app(environ, start))
        step = max(1, len(body) // 5)
        for at in range(0, len(body), step):
            time.sleep(0.02)
            yield body[at : at + step]

    return answer


def stalled(app: Answer) -> Answer:
    """A body that begins and then does not go on."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        body = b"".join(app(environ, start))
        yield body[:10]
        time.sleep(2.5)

    return answer


def listed_late(*hidden: str) -> Fault:
    """A listing that does not show yet what these patterns match."""

    def fault(app: Answer) -> Answer:
        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            kept: dict[str, Any] = {}
            body = b"".join(app(environ, lambda status, headers, *_: kept.update(status=status, headers=headers)))
            for what in hidden:
                body = re.sub(
                    rb"<Contents>(?:(?!</Contents>).)*?%s.*?</Contents>" % what.encode(), b"", body, flags=re.S
                )
            headers = [(name, value) for name, value in kept["headers"] if name.lower() != "content-length"]
            start(kept["status"], [*headers, ("Content-Length", str(len(body)))])
            return [body]

        return answer

    return fault


def then(work: Callable[[], object], *, before: bool) -> Fault:
    """Something that happens right before or after the request is served."""

    def fault(app: Answer) -> Answer:
        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if before:
                work()
            body = [] if before else list(app(environ, start))
            if not before:
                work()
            return body

        return answer

    return fault


class _Quiet(MotoRequestHandler):
    """One request a connection: a fault then cannot spoil the next one."""

    def log(self, *_: object) -> None: ...


@contextmanager
def serving() -> Iterator[Server]:
    """The server, until the block ends."""
    store, app = Server(), DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query} {environ.get('HTTP_RANGE', '')}".rstrip()
        fault = store.fault_of(request)
        return (fault(app) if fault else app)(environ, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.port}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()

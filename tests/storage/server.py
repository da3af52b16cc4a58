"""Stores on this machine, behind a layer that misbehaves when it is told to: S3 (moto), Google Cloud Storage
(gcp-storage-emulator) and Azure Blob Storage (Azurite, where its ``azurite-blob`` is on the path).
"""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import make_server

Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Fault = Callable[[Answer], Answer]

KEY, SECRET = "a-key", "a-secret-nobody-may-see"

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, which everybody knows."""

# The buckets with folders are told from others by gRPC, which the emulator does not speak; read when gcsfs is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


@dataclass(kw_only=True)
class Server:
    """What was asked of it, and what goes wrong: a fault for each request that fits, until it is used up."""

    protocol: str = "s3"
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Method, path and query, and range of each request, such as ``GET /bucket/key bytes=0-99``."""
    faults: list[tuple[re.Pattern[str], int, Fault]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def options(self) -> dict[str, Any]:
        """Storage options with which the filesystem comes here; botocore itself tries only once."""
        if self.protocol == "gs":
            return {"gs": {"endpoint_url": self.url, "token": "anon"}}
        if self.protocol == "hf":
            return {"hf": {"endpoint": self.url, "token": SECRET}}
        if self.protocol == "az":
            return {"az": {"connection_string": self.connection}}
        once = {"retries": {"max_attempts": 0}, "read_timeout": 2}
        return {"s3": {"endpoint_url": self.url, "key": KEY, "secret": SECRET, "config_kwargs": once}}

    @property
    def environment(self) -> dict[str, str]:
        """The same for another process."""
        if self.protocol == "gs":
            return {"FSSPEC_GS_ENDPOINT_URL": self.url, "FSSPEC_GS_TOKEN": "anon"}
        if self.protocol == "az":
            return {"AZURE_STORAGE_CONNECTION_STRING": self.connection}
        return {"FSSPEC_S3_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    @property
    def secret(self) -> str:
        """What of that may stand in no file and no error; of a store without passwords where it is."""
        return {"s3": SECRET, "hf": SECRET, "az": ACCOUNT_KEY}.get(self.protocol, self.url)

    @property
    def connection(self) -> str:
        """How Azure's clients are told where to go and who they are."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.url}/{ACCOUNT};"
        )

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


def unknown(_: Answer) -> Answer:
    return _error("401 Unauthorized", "InvalidAuthenticationInfo", "Authentication information is not valid.")


def mistaken(_: Answer) -> Answer:
    """What Azure says to a key or a signature that is wrong."""
    return _error("403 Forbidden", "AuthenticationFailed", "Server failed to authenticate the request.")


def denied(_: Answer) -> Answer:
    return _error("403 Forbidden", "AccessDenied", "Access Denied")


def busy(_: Answer) -> Answer:
    """What MinIO says, by a code that S3 does not have."""
    return _error("503 Service Unavailable", "SlowDownRead", "Resource requested is unreadable, please slow down")


def elsewhere(_: Answer) -> Answer:
    return _error("400 Bad Request", "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong")


def _error(status: str, code: str, message: str) -> Answer:
    """In the words of S3, which Azure shares; Google's are JSON."""
    of_google = {"error": {"code": int(status[:3]), "message": message, "errors": [{"reason": code}]}}

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        if "/storage/v1/b" in environ["PATH_INFO"]:
            body = json.dumps(of_google).encode()
        kind = "application/json" if body.startswith(b"{") else "application/xml"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("x-ms-error-code", code)])
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

    def make_environ(self) -> dict[str, Any]:
        """With the headers as they came: WSGI leaves those out that have a ``_`` in their names."""
        return {**super().make_environ(), "clipsieve.headers": list(self.headers.items())}


@contextmanager
def serving(protocol: str = "s3") -> Iterator[Server]:
    """The store of a protocol, until the block ends; skips the test where what it takes is not installed."""
    with _BEHIND[protocol]() as app, layered(Server(protocol=protocol), app) as store:
        yield store


@contextmanager
def layered(store: Server, app: Callable[..., Any]) -> Iterator[Server]:
    """``app`` on a port of its own, behind the faults of ``store``."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = _described(environ)
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
        server.server_close()
        thread.join()


def _described(environ: dict[str, Any]) -> str:
    """Method, path and query, and range of a request. An upload to Google is told like others: its name is within."""
    query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
    if environ["PATH_INFO"].startswith("/upload/storage/v1/b/"):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        bucket = environ["PATH_INFO"].split("/")[5]
        return f"PUT /{bucket}/{_named(body)}{query}"
    wanted = environ.get("HTTP_X_MS_RANGE") or environ.get("HTTP_RANGE", "")
    return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query} {wanted}".rstrip()


def _named(body: bytes) -> str:
    """The name of the object in an upload to Google."""
    found = re.search(rb'\n({"name".*})\n', body)
    return str(json.loads(found[1])["name"]) if found else ""


@contextmanager
def _moto() -> Iterator[Answer]:
    yield DomainDispatcherApplication(create_backend_app)


@contextmanager
def _google() -> Iterator[Answer]:
    for package in ("gcsfs", "gcp_storage_emulator"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: no gs:// to try")
    from gcp_storage_emulator.server import create_server

    port = _free_port()
    emulator = create_server("127.0.0.1", port, in_memory=True)
    emulator.start()
    app, one_at_a_time = _forwarded(port), threading.Lock()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        kept: dict[str, Any] = {}
        with one_at_a_time:
            # The emulator makes an object that is to be new in place of an old one, too.
            if "ifGenerationMatch=0" in environ["QUERY_STRING"] and _there(port, _described(environ)):
                start("412 Precondition Failed", [("Content-Length", "0")])
                return []
            body = list(app(environ, lambda status, headers: kept.update(status=status, headers=headers)))
        # Nor does it refuse a range in which nothing is.
        if kept["status"].startswith("206") and not any(body):
            start("416 Requested Range Not Satisfiable", [("Content-Length", "0")])
            return []
        start(kept["status"], kept["headers"])
        return body

    try:
        yield answer
    finally:
        emulator.stop()


def _there(port: int, upload: str) -> bool:
    """Whether the object that an upload is to make is there already."""
    bucket, _, name = upload.removeprefix("PUT /").partition("?")[0].partition("/")
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}")
    there = connection.getresponse().status == 200
    connection.close()
    return there


@contextmanager
def _azurite() -> Iterator[Answer]:
    program = shutil.which("azurite-blob")
    if importlib.util.find_spec("adlfs") is None or program is None:
        pytest.skip("adlfs (pip) or azurite-blob (npm install azurite) is not installed: no az:// to try")
    port = _free_port()
    words = [program, "--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    emulator = subprocess.Popen([*words, "--blobPort", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert emulator.poll() is None, "azurite-blob ended"
            assert time.monotonic() < deadline, "azurite-blob does not answer"
            time.sleep(0.1)
        yield _forwarded(port)
    finally:
        emulator.terminate()
        emulator.wait()


_BEHIND = {"s3": _moto, "gs": _google, "az": _azurite}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


_OF_CONNECTIONS = ("connection", "transfer-encoding", "keep-alive", "date", "server")


def _forwarded(port: int) -> Answer:
    """Sends each request on to a server at another port, as it is."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {name: value for name, value in environ["clipsieve.headers"] if name.lower() not in _OF_CONNECTIONS}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(environ["REQUEST_METHOD"], environ["RAW_URI"], body or None, headers)
            response = connection.getresponse()
            data = response.read()
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _OF_CONNECTIONS]
        finally:
            connection.close()
        if "content-length" not in {name.lower() for name, _ in kept}:
            kept.append(("Content-Length", str(len(data))))
        start(f"{response.status} {response.reason or 'So'}", kept)
        return [data]

    return answer

"""Images by URL, fetched from a server that misbehaves: what comes of each, and that it is fetched as often as needed.

Only names are looked up in a double: what they lead to is the outside world's.
"""

from __future__ import annotations

import errno
import gc
import pickle
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from clipsieve.core import downloads, http, kept
from clipsieve.core.addresses import is_public
from clipsieve.core.descriptors import requests_allowed
from clipsieve.core.downloads import Downloader
from clipsieve.core.fetch import ImageSource
from clipsieve.core.optout import opted_out
from clipsieve.core.turns import Turns
from clipsieve.core.urls import FetchPolicy, read_url
from clipsieve.errors import ImageError, StoreError
from tests.imageserver import RED, ImageServer
from tests.loops import run_async

LOCAL = FetchPolicy(allow_private=True, timeout=0.4, retries=1, max_bytes=100_000)


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)


def outcome(url: str, policy: FetchPolicy = LOCAL, **options: Any) -> bytes | str:
    """The bytes, or why there are none."""
    downloader = Downloader(policy, **options)
    try:
        return downloader.read(url)
    except ImageError as failure:
        return str(failure)
    finally:
        downloader.close()


def changed(policy: FetchPolicy = LOCAL, **values: Any) -> FetchPolicy:
    return FetchPolicy(**{**policy.model_dump(), **values})


# What a server may do.


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("image/a.png", RED),
        ("image/a.png?wait=0.1", RED),
        ("image/no type?content_type=", RED),
        ("image/wrong-type.png?content_type=application/octet-stream", RED),
        ("status/?code=404", "not fetched: status 404"),
        ("status/?code=403", "not fetched: status 403"),
        ("status/?code=418", "not fetched: status 418"),
        ("status/?code=500", "not fetched: status 500"),
        ("status/?code=429", "not fetched: status 429"),
        ("again/a?code=500", RED),
        ("again/b?code=429&retry_after=0", RED),
        ("again/c?code=503&times=2", "not fetched: status 503"),
        ("hang/", "not fetched: timed out"),
        ("slow/", "not fetched: timed out"),
        ("reset/", "not fetched: connection lost"),
        ("reset/once?times=1", RED),
        ("cut/", "truncated: the connection closed early"),
        ("large/?size=200000", "too large: more than 100,000 bytes"),
        ("large/?size=200000&told=no", "too large: more than 100,000 bytes"),
        ("large/?size=2000&told=no", bytes(2000)),
        ("bomb/", "too large: more than 100,000 bytes"),
        ("zipped/", RED),
        ("zipped/?encoding=deflate", RED),
        ("bare/", RED),
        ("parts/", RED),
        ("parts/?count=9", RED),
        ("chatty/?size=15000", RED),
        ("chatty/?size=20000", "not fetched: the answer is not HTTP"),
        ("status/?code=206", "not fetched: status 206"),
        ("zipped/?encoding=br", "not fetched: the server compressed it in a way that was not asked for"),
        ("image/?content_encoding=gzip", "not fetched: broken compression"),
        ("image/page?content_type=text/html;charset=utf-8", "not an image: text/html"),
        ("image/page?content_type=text/x%1b[31m", "not an image: a text"),
        ("redirect/?to=/image/b.png", RED),
        ("redirect/?to=/image/b.png&code=308", RED),
        ("redirect/?to=/redirect/?to=/image/b.png", RED),
        ("loop/", "not fetched: more than 5 redirects"),
        ("redirect/?to=file:///etc/passwd", "refused: a redirect to something else than http or https"),
        ("redirect/?to=data:image/png;base64,AAAA", "refused: a redirect to something else than http or https"),
        ("redirect/?to=http://:0:0/", "not fetched: a redirect to no valid URL"),
        ("redirect/?to=", "not fetched: status 302"),
        ("nonsense/", "not fetched: the answer is not HTTP"),
        ("image/?x_robots_tag=noai", "refused: opted out (X-Robots-Tag: noai)"),
        ("image/?x_robots_tag=clipsieve: noai", "refused: opted out (X-Robots-Tag: noai)"),
        ("image/?x_robots_tag=googlebot: noindex", RED),
        ("redirect/?to=/image/?x_robots_tag=noimageai", "refused: opted out (X-Robots-Tag: noimageai)"),
        ("redirect/?to=/image/b.png&x_robots_tag=noai", "refused: opted out (X-Robots-Tag: noai)"),
        ("again/d?code=500&retry_after=Mon, 01 Jan 99999999999999999999 00:00:00 GMT", RED),
    ],
)
def test_what_a_server_does(server: ImageServer, path: str, expected: bytes | str) -> None:
    url = server(quote(path, safe="/?&=:,;%")) if "%1b" not in path else server(path)
    assert outcome(url) == expected


def test_an_empty_body_is_an_empty_image(server: ImageServer) -> None:
    with pytest.raises(ImageError, match="empty: 0 bytes"):
        ImageSource(path=server("large/?size=0"), policy=LOCAL).read()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://", "not fetched: not a valid URL"),
        ("http://host:99999999/", "not fetched: not a valid URL"),
        ("http://[::1", "not fetched: not a valid URL"),
        ("http://" + "a" * 300 + ".example/", "not fetched: not a valid URL"),
        ("http://127.0.0.1:1/", "not fetched: connection refused"),
        ("http://gone.example/", "not fetched: no such host"),
        ("http://busy.example/", "not fetched: the host's name cannot be looked up"),
    ],
)
def test_urls_that_lead_nowhere(url: str, expected: str) -> None:
    def lookup(host: str, *_: Any) -> Any:
        if len(host) > 253:
            raise UnicodeError("label too long")  # as getaddrinfo does
        raise socket.gaierror(socket.EAI_NONAME if host == "gone.example" else socket.EAI_AGAIN, "no")

    assert outcome(url, lookup=lookup) == expected


def test_a_server_with_a_certificate_of_its_own_is_not_trusted(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "own.pem").write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "own.pem")
    with ImageServer(tls) as secure:
        assert outcome(secure("image/a.png"), changed(timeout=5)) == "not fetched: TLS certificate not valid"
        assert not secure.asked


def test_an_opt_out_can_be_ignored_and_a_name_of_ones_own_can_be_addressed(server: ImageServer) -> None:
    url = server("image/?x_robots_tag=noai")
    assert outcome(url, changed(opt_out="ignore")) == RED
    ours = server("image/?x_robots_tag=mycrawler:%20noindex")
    assert outcome(ours) == RED
    assert outcome(ours, changed(user_agent="MyCrawler/1.0 (+https://example.org)")) == (
        "refused: opted out (X-Robots-Tag: noindex)"
    )


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("noai, noimageai", "noai"),
        ("NoIndex", "noindex"),
        ("max-snippet: 20, noimageindex", "noimageindex"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", None),
        ("googlebot: noindex, clipsieve: noai", "noai"),
        ("googlebot: nofollow, noindex", None),
        ("*: noai", "noai"),
        ("nofollow, none, all", None),
        ("noaix", None),
        ("unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT, noai", "noai"),
        ("unavailable_after: Wednesday, 03-Dec-25 13:09:53 GMT, noimageai", "noimageai"),
        ("noai noimageai", "noai"),
        ("noimageai;noai", "noimageai"),
        ("googlebot: noai noindex; nofollow, noimageindex", None),
        ('"noai"', "noai"),
        ("noai.", "noai"),
        ("noai: true", "noai"),
        ("noindex:", "noindex"),
        ("all: noai", "noai"),
        ("crawl-delay: 5, noai", "noai"),
        ("unavailable-after: 25 Jun 2030 15:00:00 PST, noai", "noai"),
        ("no-ai", None),
        ("gptbot: none, noai", None),
    ],
)
def test_directives_of_opting_out(header: str, found: str | None) -> None:
    assert opted_out([header], "clipsieve/1.0 (by us)") == found


# Which addresses are refused.


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16", "198.18.0.1", "::", "::1", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
        "64:ff9b:1::7f00:1", "::ffff:0:7f00:1", "192.88.99.1", "3fff::1", "5f00::1", "2600::5efe:7f00:1",
        "2600::200:5efe:808:808",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "2130706433", "localhost"])
def test_private_addresses_are_refused_in_each_spelling(server: ImageServer, host: str) -> None:
    port = server.url.rpartition(":")[2]
    before = server.connections
    said = outcome(f"http://{host}:{port}/image/a.png", FetchPolicy(retries=0))
    assert said in ("refused: private address", "not fetched: not a valid URL")
    assert server.connections == before


def _names(**addresses: Sequence[str]) -> Any:
    """A double for looking names up: each name's addresses, one a time, the last one from then on."""
    left = {name.replace("_", "."): list(found) for name, found in addresses.items()}

    def lookup(host: str, port: int, *_: Any) -> Any:
        found = left[host]
        address = found.pop(0) if len(found) > 1 else found[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    return lookup


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fd00::1"])
def test_a_name_that_leads_to_a_private_address_is_refused(address: str) -> None:
    lookup = _names(innocent_example=[address])
    assert outcome("http://innocent.example/a.png", FetchPolicy(), lookup=lookup) == "refused: private address"


def test_what_is_checked_is_the_address_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the check of the name had seen another address than the one it is connected to.
    monkeypatch.setattr(http, "Resolver", lambda lookup, public, timeout: _unchecked(lookup, timeout))
    lookup = _names(rebinding_example=["127.0.0.1"])
    assert outcome("http://rebinding.example/", FetchPolicy(), lookup=lookup) == "refused: private address"


def _unchecked(lookup: Any, timeout: float) -> Any:
    from clipsieve.core.addresses import Resolver

    return Resolver(lookup, public=False, timeout=timeout)


def test_an_address_of_this_very_machine_is_refused(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsieve.core.addresses.is_public", lambda address: True)
    before = server.connections
    assert outcome(server("image/a.png"), FetchPolicy()) == "refused: private address"
    assert server.connections == before


def test_a_redirect_to_a_private_address_is_refused(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsieve.core.addresses._is_own", lambda *_: False)
    monkeypatch.setattr("clipsieve.core.addresses.is_public", lambda address: address == "127.0.0.1")
    port = server.url.rpartition(":")[2]
    for there in (f"http://127.0.0.2:{port}/image/a.png", f"http://[::1]:{port}/", "http://inner.example/"):
        lookup = _names(inner_example=["10.0.0.1"])
        url = server(f"redirect/?to={there}")
        assert outcome(url, FetchPolicy(), lookup=lookup) == "refused: private address"


def test_a_proxy_in_the_environment_is_not_used(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    before = server.connections
    lookup = _names(inner_example=["10.0.0.1"])
    assert outcome("http://inner.example/image/", FetchPolicy(), lookup=lookup) == "refused: private address"
    assert server.connections == before


# Manners.


def test_a_server_that_asks_to_be_left_alone_is(server: ImageServer) -> None:
    began = time.monotonic()
    assert outcome(server("again/alone?code=429&retry_after=1")) == RED
    assert time.monotonic() - began >= 1


def test_a_server_that_asks_for_an_hour_is_not_asked_again(server: ImageServer) -> None:
    url = "again/hour?code=503&retry_after=3600"
    assert outcome(server(url)) == "not fetched: status 503"
    assert server.asked["/" + url] == 1


def test_a_host_that_asks_for_an_hour_gets_no_request_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    with ImageServer() as server:
        downloader = Downloader(changed(timeout=5))
        urls = [server(f"status/{n}?code=503&retry_after=3600") for n in range(60)]
        downloader.prefetch(urls)
        for url in urls:
            with pytest.raises(ImageError, match=r"^not fetched: status 503$"):
                downloader.read(url)
        assert sum(server.asked.values()) <= 8  # those that were on their way at the same time
        with pytest.raises(ImageError, match=r"^not fetched: status 503$"):
            downloader.read(server("image/a.png"))
        now = time.monotonic() + 3601
        monkeypatch.setattr(downloader._turns, "_clock", lambda: now)
        assert downloader.read(server("image/a.png")) == RED
        downloader.close()


def test_a_host_that_always_asks_to_be_left_alone_for_a_while_is_given_up(server: ImageServer) -> None:
    downloader = Downloader(changed(timeout=5))
    urls = [server(f"status/busy-{n}?code=503&retry_after=0.2") for n in range(160)]
    downloader.prefetch(urls)
    for url in urls:
        with pytest.raises(ImageError):
            downloader.read(url)
    downloader.close()
    assert sum(times for path, times in server.asked.items() if "busy" in path) < 60


def test_cookies_are_not_kept(server: ImageServer) -> None:
    assert outcome(server("redirect/?to=/image/cookie.png")) == RED
    assert "cookie" not in server.headers[-1]
    assert server.headers[-1]["user-agent"] == "clipsieve"


def test_passwords_stay_in_requests(server: ImageServer) -> None:
    url = server("image/a.png").replace("://", "://me:s3cret@")
    source = ImageSource(path=url, policy=LOCAL)
    assert source.read() == RED
    assert server.headers[-1]["authorization"].startswith("Basic ")
    assert source.reference == server("image/a.png").replace("://", "://***@")
    with pytest.raises(ImageError) as failure:
        ImageSource(path=url.replace("image", "status").replace(".png", "?code=404"), policy=LOCAL).read()
    assert str(failure.value) == "not fetched: status 404"


def test_a_signed_url_is_sent_as_it_is(server: ImageServer) -> None:
    path = "image/a%2Fb%7e.png?content_type=image/png&wait=0&content_language=a%2Bb%3D"
    assert outcome(server(path)) == RED
    assert server.asked["/" + path] == 1


def test_a_host_gets_so_many_requests_at_the_same_time_and_no_more() -> None:
    with ImageServer() as server:
        downloader = Downloader(changed(per_host=3, timeout=5))
        urls = [server(f"image/{n}?wait=0.01") for n in range(40)]
        downloader.prefetch(urls)
        assert [downloader.read(url) for url in urls] == [RED] * 40
        downloader.close()
        assert server.most == 3
        assert server.connections == 3  # used again and again


def test_thousands_of_images_are_fetched_many_at_a_time() -> None:
    def seconds(images: int, policy: FetchPolicy) -> float:
        downloader = Downloader(policy)
        urls = [server(f"image/{n}?wait=0.02") for n in range(images)]
        began = time.monotonic()
        downloader.prefetch(urls)
        assert all(downloader.read(url) == RED for url in urls)
        downloader.close()
        return (time.monotonic() - began) / images

    with ImageServer() as server:
        one_by_one = seconds(30, changed(concurrency=1, timeout=20))
        together = seconds(2000, changed(concurrency=200, per_host=200, timeout=20))
        assert server.most > 100
        assert together < one_by_one / 5


# What this machine and its name server can do.


def test_names_that_take_long_to_look_up_do_not_make_others_fail(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipsieve.core.addresses.LOOKUPS", 1)
    port = int(server.url.rpartition(":")[2])

    def lookup(host: str, *_: Any) -> Any:
        time.sleep(0.25)
        if host.startswith("dead"):
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    downloader = Downloader(changed(timeout=1.5, retries=0), lookup=lookup)
    dead, good = ([f"http://{kind}-{n}.example:{port}/image/a.png" for n in range(6)] for kind in ("dead", "good"))
    downloader.prefetch([*dead, *good])
    assert [downloader.read(url) for url in good] == [RED] * 6
    downloader.close()


@pytest.mark.parametrize(("code", "asked"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
def test_a_name_that_leads_nowhere_is_not_looked_up_for_each_image(code: int, asked: int) -> None:
    times: list[str] = []

    def lookup(host: str, *_: Any) -> Any:
        times.append(host)
        raise socket.gaierror(code, "no")

    downloader = Downloader(LOCAL, lookup=lookup)
    for n in range(6):
        with pytest.raises(ImageError):
            downloader.read(f"http://gone.example/{n}.png")
    downloader.close()
    assert len(times) == asked


def test_a_host_that_never_answers_is_given_up_and_tried_now_and_then(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloader = Downloader(changed(timeout=0.05, per_host=8, retries=2))
    server.asked.clear()
    urls = [server(f"hang/never-{n}") for n in range(60)]
    downloader.prefetch(urls)
    said = []
    for url in urls:
        with pytest.raises(ImageError) as failure:
            downloader.read(url)
        said.append(str(failure.value))
    assert sum(server.asked[f"/hang/never-{n}"] for n in range(60)) < 50  # of 180 attempts
    assert said[-1] == "not fetched: the host does not answer"
    with pytest.raises(ImageError, match="the host does not answer"):
        downloader.read(server("image/a.png"))
    now = time.monotonic() + 40
    monkeypatch.setattr(downloader._turns, "_clock", lambda: now)
    assert [downloader.read(server("image/a.png")) for _ in range(2)] == [RED] * 2
    downloader.close()


def test_a_host_that_is_given_up_and_closed_for_a_while_is_tried_by_one_image() -> None:
    async def trial() -> None:
        turns = Turns(8, 8, looked_up)
        for _ in range(40):
            turns.answered("a", http.TemporaryError("status 503", 0.05, silent=True))
        turns._silent["a"].trial = 0.0
        async with turns.of("a", 1):
            with pytest.raises(ImageError, match="does not answer"):
                async with turns.of("a", 2):
                    pass

    async def looked_up(host: str) -> None:
        pass

    run_async(trial())


def test_hosts_that_do_not_answer_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing() -> None:
        turns = Turns(8, 8, looked_up)
        for host in "abcdef":
            turns.answered(host, http.TemporaryError("status 503", 3600, silent=True))
        assert (list(turns._silent), list(turns._closed_for_long)) == (["d", "e", "f"], ["d", "e", "f"])

    async def looked_up(host: str) -> None:
        pass

    monkeypatch.setattr("clipsieve.core.turns.NAMES", 3)
    run_async(failing())


def test_when_files_run_out_no_image_is_to_blame(server: ImageServer) -> None:
    def lookup(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    downloader = Downloader(LOCAL, lookup=lookup)
    with pytest.raises(
        StoreError, match=r"^too many open files; raise the limit .ulimit -n. or lower fetch.concurrency"
    ):
        downloader.read("http://example.org/a.png")
    downloader.close()


@pytest.mark.parametrize("failure", [OSError(errno.ENOBUFS, "no buffers"), MemoryError()])
def test_when_memory_runs_out_no_image_is_to_blame(failure: Exception) -> None:
    def lookup(*_: Any) -> Any:
        raise failure

    with pytest.raises(StoreError, match=r"^no memory or threads left"):
        outcome("http://example.org/a.png", lookup=lookup)


def test_when_threads_run_out_no_image_is_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def none_left(thread: threading.Thread) -> None:
        if thread.name == "clipsieve-lookup":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(StoreError, match=r"^no memory or threads left"):
        outcome("http://example.org/a.png")


@pytest.mark.parametrize(("works", "ended"), [(False, True), (True, False)])
def test_when_no_name_can_be_looked_up_the_name_server_is_to_blame(
    server: ImageServer, works: bool, ended: bool
) -> None:
    down = threading.Event()

    def lookup(host: str, *_: Any) -> Any:
        if down.is_set() and not (works and host == "good.example"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    port = server.url.rpartition(":")[2]
    downloader = Downloader(LOCAL, lookup=lookup)
    assert downloader.read(f"http://good.example:{port}/image/a.png") == RED
    down.set()
    said = []
    for n in range(20):
        with pytest.raises((ImageError, StoreError)) as failure:
            downloader.read(f"http://{n}.example:{port}/image/a.png")
        said.append(str(failure.value))
    downloader.close()
    assert set(said[:7]) == {"not fetched: the host's name cannot be looked up"}
    assert all(one.startswith("the name server of this machine seems to be down") == ended for one in said[7:])


def test_when_no_host_can_be_reached_the_network_is_to_blame(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_route(*_: Any) -> Any:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("clipsieve.core.http.public_socket", no_route)
    monkeypatch.setattr("clipsieve.core.addresses.is_public", lambda address: True)
    downloader = Downloader(FetchPolicy(retries=0), lookup=_names(**{f"h{n}_example": ["127.0.0.1"] for n in range(9)}))
    for n in range(7):
        for _ in range(2):
            with pytest.raises(ImageError, match="no connection"):
                downloader.read(f"http://h{n}.example/")
    with pytest.raises(StoreError, match="the network of this machine seems to be down: 8 hosts in a row"):
        downloader.read("http://h7.example/")
    downloader.close()


def test_a_lookup_that_hangs_keeps_its_place_until_its_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsieve.core.addresses.LOOKUPS", 2)
    threads: list[int] = []

    def lookup(*_: Any) -> Any:
        threads.append(sum(one.name == "clipsieve-lookup" for one in threading.enumerate()))
        time.sleep(0.3)
        raise socket.gaierror(socket.EAI_AGAIN, "no")

    downloader = Downloader(changed(timeout=0.05, retries=0), lookup=lookup)
    urls = [f"http://{n}.example/" for n in range(6)]
    downloader.prefetch(urls)
    for url in urls:
        with pytest.raises(ImageError):
            downloader.read(url)
    downloader.close()
    assert max(threads) <= 3  # one that has ended may still be there for a moment


def test_a_host_is_called_as_the_url_says_and_is_one_however_it_is_spelt(server: ImageServer) -> None:
    asked: set[str] = set()

    def lookup(host: str, *_: Any) -> Any:
        asked.add(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    port = server.url.rpartition(":")[2]
    for host in ("xn--fa-hia.example", "fa\u00df.example", "XN--fa-hia.Example", "xn--fa-hia.example."):
        assert outcome(f"http://{host}:{port}/image/a.png", lookup=lookup) == RED
    assert asked == {"xn--fa-hia.example"}


def test_there_are_no_more_requests_than_open_files_allow() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        assert requests_allowed(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
        assert requests_allowed(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 328  # raised as far as it takes
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_whatever_else_goes_wrong_with_an_image_is_its_own_failure(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(http, "_check_kind", broken)
    assert outcome(server("image/a.png")) == "not fetched: RuntimeError"


# What is announced, and what is read.


@pytest.fixture
def downloader() -> Iterator[Downloader]:
    running = Downloader(changed(timeout=5))
    yield running
    running.close()


def test_the_same_url_is_fetched_once_for_all_who_announced_it(server: ImageServer, downloader: Downloader) -> None:
    url = server("image/same.png?wait=0.05")
    downloader.prefetch([url] * 3)
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(downloader.read, [url] * 3)) == [RED] * 3
    assert server.asked["/image/same.png?wait=0.05"] == 1
    assert downloader.read(url) == RED  # announced no more: fetched anew
    assert server.asked["/image/same.png?wait=0.05"] == 2


def test_what_is_read_waits_for_nothing_that_is_only_announced(server: ImageServer) -> None:
    downloader = Downloader(changed(concurrency=2, timeout=5), ahead=0)
    announced = [server(f"image/announced-{n}.png") for n in range(5)]
    downloader.prefetch(announced)
    time.sleep(0.1)
    assert not any(server.asked[f"/image/announced-{n}.png"] for n in range(5))  # there is no room ahead
    assert downloader.read(announced[3]) == RED
    downloader.close()


def test_no_more_is_held_ahead_than_there_is_room_for(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "EXPECTED", len(RED))
    downloader = Downloader(changed(timeout=5), ahead=10 * len(RED))
    urls = [server(f"image/room-{n}.png") for n in range(60)]
    downloader.prefetch(urls)
    time.sleep(0.3)
    assert sum(server.asked[f"/image/room-{n}.png"] for n in range(60)) <= 12
    assert [downloader.read(url) for url in reversed(urls)] == [RED] * 60  # in an order that nobody announced
    downloader.close()


def test_images_larger_than_expected_are_put_back_until_there_is_room(server: ImageServer) -> None:
    downloader = Downloader(changed(per_host=50, timeout=5), ahead=60_000)
    urls = [server(f"large/{n}?size=50000") for n in range(30)]
    downloader._expected = 1.0
    downloader.prefetch(urls)
    assert [len(downloader.read(url)) for url in urls] == [50_000] * 30
    downloader.close()


def test_a_host_that_hangs_does_not_hold_up_the_others(server: ImageServer) -> None:
    downloader = Downloader(changed(timeout=3, per_host=2, retries=0))
    hanging = [server(f"hang/{n}") for n in range(20)]
    others = [server(f"image/beside-{n}.png").replace("127.0.0.1", "127.0.0.2") for n in range(5)]
    with ImageServer() as beside:
        others = [beside(f"image/{n}.png").replace("127.0.0.1", "localhost") for n in range(5)]
        downloader.prefetch([*hanging, *others])
        began = time.monotonic()
        assert [downloader.read(url) for url in others] == [RED] * 5
        assert time.monotonic() - began < 2
        downloader.close()


def test_what_is_dropped_is_held_no_longer_but_for_others_who_announced_it(
    server: ImageServer, downloader: Downloader
) -> None:
    urls = [server(f"image/dropped-{n}.png") for n in range(3)]
    first, second = downloader.prefetch(urls), downloader.prefetch(urls[:1])
    assert downloader.read(urls[1]) == RED
    downloader.drop(first)
    assert list(downloader._downloads) == urls[:1]
    assert downloader.read(urls[0]) == RED
    assert server.asked["/image/dropped-0.png"] == 1
    downloader.drop(second)
    assert not downloader._downloads


def test_an_image_that_comes_when_it_was_just_let_go_of_is_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    with ImageServer() as server:
        downloader = Downloader(changed(timeout=5))
        url = server("held/a.png")
        downloader.prefetch([url])
        while not server.asked:
            time.sleep(0.01)
        downloader._downloads[url].result.cancel()  # as when all is let go of, before the loop has heard of it
        server.open.set()
        time.sleep(0.2)
        downloader.close()
    gc.collect()  # a task whose failure nobody took says so when it goes
    assert not caplog.records


def test_nothing_is_begun_once_it_is_closing(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    downloader = Downloader(changed(timeout=5, concurrency=2))
    urls = [server(f"hang/closing-{n}") for n in range(200)]
    begun: list[bool] = []
    monkeypatch.setattr(downloader, "_fetch", _counted(downloader, begun))
    downloader.prefetch(urls)
    while not begun:
        time.sleep(0.01)
    downloader.close()
    assert len(begun) == downloads.BEGUN * 2


def _counted(downloader: Downloader, begun: list[bool]) -> Any:
    fetch = downloader._fetch

    def counting(download: Any) -> Any:
        begun.append(True)
        return fetch(download)

    return counting


def test_closing_lets_go_of_everything_at_once(server: ImageServer) -> None:
    before = set(threading.enumerate())
    downloader = Downloader(changed(timeout=30))
    urls = [server(f"hang/close-{n}") for n in range(20)]
    downloader.prefetch(urls)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(downloader.read, url) for url in urls[:2]]
        time.sleep(0.2)
        began = time.monotonic()
        downloader.close()
        for one in waiting:
            with pytest.raises(StoreError, match="interrupted"):
                one.result()
        assert time.monotonic() - began < 2
    with pytest.raises(StoreError, match="interrupted"):
        downloader.read(urls[0])
    assert set(threading.enumerate()) <= before


def test_what_is_abandoned_is_fetched_no_further_and_can_be_asked_for_again(
    server: ImageServer, downloader: Downloader
) -> None:
    hanging, good = server("hang/abandoned"), server("image/good.png")
    announcement = downloader.prefetch([hanging, good])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(downloader.read, hanging, announcement)
        time.sleep(0.1)
        downloader.abandon(announcement)
        with pytest.raises(StoreError, match="interrupted"):
            waiting.result(timeout=2)
    assert not downloader._downloads
    with pytest.raises(StoreError, match="interrupted"):  # also a thread that was just about to ask
        downloader.read(good, announcement)
    assert downloader.read(good) == RED


def test_who_abandons_an_image_takes_it_from_nobody_else() -> None:
    with ImageServer() as server:
        downloader = Downloader(changed(timeout=5))
        url = server("held/shared.png")
        ours, theirs = downloader.prefetch([url]), downloader.prefetch([url])
        with ThreadPoolExecutor(2) as threads:
            they = threads.submit(downloader.read, url, theirs)
            we = threads.submit(downloader.read, url, ours)
            while downloader._downloads[url].readers < 2:
                time.sleep(0.01)
            downloader.abandon(ours)
            with pytest.raises(StoreError, match="interrupted"):
                we.result(timeout=2)
            server.open.set()
            assert they.result(timeout=5) == RED
        assert server.asked["/held/shared.png"] == 1
        downloader.close()


def test_nothing_pending_is_in_an_image_that_is_sent_elsewhere(server: ImageServer) -> None:
    source = ImageSource(path=server("image/sent.png"), policy=LOCAL)
    assert pickle.loads(pickle.dumps(source)) == source
    assert pickle.loads(pickle.dumps(source)).read() == RED
    assert read_url(server("image/sent.png"), LOCAL) == RED


def test_a_file_of_kept_images_is_opened_once_for_all_who_want_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "00000.parquet")
    pq.write_table(kept.kept_rows(["http://a/"], [RED], [None]), path)
    opened: list[str] = []
    first = kept._Kept.__init__
    monkeypatch.setattr(
        kept._Kept, "__init__", lambda self, path: (opened.append(path), time.sleep(0.05), first(self, path))[2]
    )
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: kept.read_kept(path, "http://a/"), range(8))) == [RED] * 8
    assert opened == [path]


# What may be asked for.


@pytest.mark.parametrize(
    "values",
    [
        {"per_host": 0},
        {"timeout": 0},
        {"user_agent": ""},
        {"user_agent": "a\r\nX: y"},
        {"max_bytes": 2**40},
        {"per": 1},
        {"per_host": True},
        {"timeout": float("inf")},
        {"user_agent": "/1.0"},
        {"user_agent": "(x)"},
    ],
)
def test_policies_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FetchPolicy(**values)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (ImageSource(path="https://example.org/a"), "not fetched: images by URL are turned off; download them first"),
        (
            ImageSource(path="https://example.org/a.tar", member="b.png", policy=LOCAL),
            "not fetched: a part of a file by URL; download the file first",
        ),
        (
            ImageSource(path="simplecache::https://example.org/a", policy=LOCAL),
            "not fetched: a URL within a chain of filesystems; download the file first",
        ),
    ],
)
def test_what_is_not_fetched_at_all(source: ImageSource, error: str) -> None:
    with pytest.raises(ImageError) as failure:
        source.read()
    assert str(failure.value) == error

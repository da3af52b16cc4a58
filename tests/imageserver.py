"""A web server on loopback that serves images and, by the path that is asked for, misbehaves in each known way."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes import image_bytes

RED = image_bytes("red")
BOMB = gzip.compress(bytes(4 * 2**20))


class ImageServer:
    """Answers ``/NAME/anything?with=...`` by the method ``NAME``; ``asked`` counts the requests for each path.

    A context manager; ``url`` is where it is, ``most`` how many requests it had at the same time; ``open`` lets
    the images go that are ``held``.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.asked: Counter[str] = Counter()
        self.headers: list[Mapping[str, str]] = []
        self.at_once = self.most = self.connections = 0
        self.open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> ImageServer:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __call__(self, path: str) -> str:
        return f"{self.url}/{path}"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512, ssl=self._tls)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                line, *fields = head.strip().split("\r\n")
                path = line.split()[1]
                self.asked[path] += 1
                self.headers.append({name.lower(): value for name, _, value in (f.partition(": ") for f in fields)})
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                parts = urlsplit(path)
                said = {name: values[0] for name, values in parse_qs(parts.query).items()}
                try:
                    await getattr(self, parts.path.split("/")[1])(writer, path, **said)
                finally:
                    self.at_once -= 1
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _say(self, writer: asyncio.StreamWriter, status: int = 200, body: bytes = b"", /, **headers: str) -> None:
        told = {"content_length": str(len(body)), "content_type": "image/png", **headers}
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items() if value)
        writer.write(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode("latin-1") + body)

    async def image(self, writer: asyncio.StreamWriter, path: str, wait: str = "0", **headers: str) -> None:
        """An image, after a while, with such headers."""
        await asyncio.sleep(float(wait))
        self._say(writer, 200, RED, **headers)

    async def status(self, writer: asyncio.StreamWriter, path: str, code: str, **headers: str) -> None:
        """Such a status, always."""
        self._say(writer, int(code), b"no", **headers)

    async def again(self, writer: asyncio.StreamWriter, path: str, code: str, times: str = "1", **headers: str) -> None:
        """Such a status the first times, then an image."""
        if self.asked[path] <= int(times):
            self._say(writer, int(code), b"", **headers)
        else:
            self._say(writer, 200, RED)

    async def hang(self, writer: asyncio.StreamWriter, path: str) -> None:
        """No answer."""
        await asyncio.sleep(60)

    async def held(self, writer: asyncio.StreamWriter, path: str) -> None:
        """An image, once ``open`` is set."""
        while not self.open.is_set():
            await asyncio.sleep(0.01)
        self._say(writer, 200, RED)

    async def slow(self, writer: asyncio.StreamWriter, path: str) -> None:
        """A byte now and then."""
        self._say(writer, 200, b"", content_length=str(len(RED)))
        for byte in RED:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async def reset(self, writer: asyncio.StreamWriter, path: str, times: str = "1000") -> None:
        """The connection is reset the first times."""
        if self.asked[path] > int(times):
            self._say(writer, 200, RED)
            return
        writer.transport.abort()  # type: ignore[attr-defined]
        raise ConnectionResetError

    async def cut(self, writer: asyncio.StreamWriter, path: str) -> None:
        """Half of what was promised."""
        self._say(writer, 200, RED[: len(RED) // 2], content_length=str(len(RED)))
        raise ConnectionResetError

    async def large(self, writer: asyncio.StreamWriter, path: str, size: str, told: str = "yes") -> None:
        """So many bytes, promised or not."""
        self._say(writer, 200, b"", content_length=size if told == "yes" else "")
        for _ in range(int(size) // 1000):
            writer.write(bytes(1000))
            await writer.drain()
        raise ConnectionResetError  # without a length the end of the connection is the end of the body

    async def bomb(self, writer: asyncio.StreamWriter, path: str) -> None:
        """Four million zeros, compressed to four thousand bytes."""
        self._say(writer, 200, BOMB, content_encoding="gzip")

    async def zipped(self, writer: asyncio.StreamWriter, path: str, encoding: str = "gzip") -> None:
        """An image, compressed though nobody asked for that."""
        self._say(writer, 200, gzip.compress(RED), content_encoding=encoding)

    async def parts(self, writer: asyncio.StreamWriter, path: str, count: str = "2") -> None:
        """An image as a gzip of so many parts, and something after them."""
        size = -(-len(RED) // int(count))
        pieces = [gzip.compress(RED[at : at + size]) for at in range(0, len(RED), size)]
        self._say(writer, 200, b"".join(pieces) + b"\0\0", content_encoding="gzip")

    async def bare(self, writer: asyncio.StreamWriter, path: str) -> None:
        """An image as deflate without a header of zlib."""
        bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._say(writer, 200, bare.compress(RED) + bare.flush(), content_encoding="deflate")

    async def chatty(self, writer: asyncio.StreamWriter, path: str, size: str) -> None:
        """An image with so many bytes in a field of the head."""
        self._say(writer, 200, RED, content_security_policy="x" * int(size))

    async def redirect(
        self, writer: asyncio.StreamWriter, path: str, to: str = "", code: str = "302", **headers: str
    ) -> None:
        """Somewhere else."""
        self._say(writer, int(code), b"", location=to, set_cookie="seen=1; Path=/", **headers)

    async def loop(self, writer: asyncio.StreamWriter, path: str) -> None:
        """To itself."""
        self._say(writer, 302, b"", location=path)

    async def nonsense(self, writer: asyncio.StreamWriter, path: str) -> None:
        """Not HTTP."""
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        raise ConnectionResetError

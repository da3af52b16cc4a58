"""A ClickHouse server for tests: HTTP in front of the engine in this process, as much as a client asks of it."""

from __future__ import annotations

import email.parser
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb

PASSWORD = "s3cret/word"


class Served:
    """Serves the ClickHouse folder ``path`` on a port of its own to the user ``tester`` with ``PASSWORD``."""

    def __init__(self, path: str) -> None:
        self.engine: Any = chdb.connect(path)
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = served.answer(dict(parse_qsl(urlsplit(self.path).query)), self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.http.server_port}"

    def answer(self, asked: dict[str, str], headers: Any, body: bytes) -> tuple[int, bytes]:
        if headers["Authorization"] != "Basic dGVzdGVyOnMzY3JldC93b3Jk":
            return 403, b"Code: 516. DB::Exception: tester: Authentication failed (AUTHENTICATION_FAILED)"
        if (headers["Content-Type"] or "").startswith("multipart/form-data"):
            asked, body = asked | _fields(headers["Content-Type"], body), b""
        if body.startswith(b"INSERT"):  # the statement's line, then the rows
            statement, _, body = body.partition(b"\n")
            asked["query"] = statement.decode().strip()
        sql = asked.get("query") or body.decode()
        values = {name.removeprefix("param_"): value for name, value in asked.items() if name.startswith("param_")}
        try:
            if sql.startswith("INSERT"):
                with self.engine.send_insert(sql.rpartition(" FORMAT ")[0], "ArrowStream") as insert:
                    insert.append(body)
                    insert.finish()
                return 200, b""
            return 200, self.engine.query(sql, "TabSeparated", params=values).bytes() or b""
        except (RuntimeError, chdb.ChdbError) as failure:
            return 500, str(failure).encode()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.engine.close()


def _fields(kind: str, body: bytes) -> dict[str, str]:
    message = email.parser.BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    return {
        str(part.get_param("name", header="content-disposition")): bytes(part.get_payload(decode=True)).decode()
        for part in message.get_payload()
    }

"""Models by hub id: the cache first, then the hub, here a small one on this machine."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickled",
    "onnx/model.safetensors": b"another copy",
}
MODELS = {
    ("someone/clip", "main"): FILES,
    ("someone/clip", "v1"): {**FILES, "config.json": b'{"version": 1}'},
    ("someone/pickled", "main"): {name: data for name, data in FILES.items() if name != "model.safetensors"},
    ("openai/clip-vit-base-patch32", "refs/pr/15"): FILES,
}


def commit(model, revision):
    return sha1(f"{model} {revision}".encode()).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download needs."""

    def do_GET(self):
        path = self.path.split("?")[0].replace("%2F", "/")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            model, revision = found[1], found[2] or "main"
            files = self.files(model, revision)
            if files is None:
                known = any(model == name for name, _ in MODELS)
                return self.answer(404, {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"})
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            told = {"id": model, "modelId": model, "sha": commit(model, revision), "siblings": siblings}
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(told).encode())
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            files = self.files(found[1], found[2]) or {}
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(tree).encode())
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+|refs/pr/\d+)/(.+)", path)
        data = found and (self.files(found[1], found[2]) or {}).get(found[3])
        if data is None:
            return self.answer(404, {"X-Error-Code": "EntryNotFound"})
        return self.answer(200, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": found[2]}, data)

    do_HEAD = do_GET  # noqa: N815

    def files(self, model, revision):
        for (name, branch), files in MODELS.items():
            if name == model and revision in (branch, commit(name, branch)):
                return files
        return None

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def find(tmp_path):
    """Finds a model in a process of its own (the hub's address is read at import); gives its folder or the error."""

    def find(endpoint, *arguments):
        code = (
            "import sys\n"
            "from clipsieve.encoders import hub\n"
            "from clipsieve.errors import ModelError\n"
            "hub.TIMEOUT_S = 1\n"
            "try: print('found', hub.find_model(*sys.argv[1:]))\n"
            "except ModelError as failure: print(failure)\n"
        )
        known = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**known, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    return find


def test_fetched_once_then_from_the_cache(hub, find):
    found = find(hub, "someone/clip")
    assert found.startswith("found ")
    assert found.endswith(commit("someone/clip", "main"))
    with os.scandir(found.removeprefix("found ")) as entries:
        assert {entry.name for entry in entries} == FILES.keys() - {"pytorch_model.bin", "onnx/model.safetensors"}
    assert find("http://127.0.0.1:9", "someone/clip") == found


def test_a_pinned_revision(hub, find):
    assert find(hub, "someone/clip", "v1").endswith(commit("someone/clip", "v1"))


def test_the_hubs_own_conversion_where_the_main_branch_is_pickled(hub, find):
    model = "openai/clip-vit-base-patch32"
    assert find(hub, model).endswith(commit(model, "refs/pr/15"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["someone/pickled"], "no model.safetensors at revision main"),
        (["someone/unknown"], "the hub has no such model"),
        (["someone/clip", "v9"], "the hub has no revision 'v9'"),
    ],
)
def test_refused(arguments, said, hub, find):
    answer = find(hub, *arguments)
    assert said in answer
    assert arguments[0] in answer
    assert "\n" not in answer


def test_no_network(find, tmp_path):
    began = time.monotonic()
    answer = find("http://127.0.0.1:9", "someone/clip")
    assert time.monotonic() - began < 10
    assert "\n" not in answer
    for told in ("someone/clip", str(tmp_path), "cannot be reached", "--model PATH", "--model demo"):
        assert told in answer


def test_a_network_that_never_answers(find):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert "cannot be reached" in find(f"http://127.0.0.1:{silent.getsockname()[1]}", "someone/clip")
        assert time.monotonic() - began < 30

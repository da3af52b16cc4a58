"""``clipsieve view`` as a user types it, where it does not come to serving."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from clipsieve.errors import UsageError
from clipsieve.web.security import Access
from clipsieve.web.server import address, listen
from tests.cli.test_cli import clipsieve as command


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(
    module: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module or name.startswith("clipsieve.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert command(monkeypatch, "view", str(made / "run")) == 2
    assert capsys.readouterr().err == "error: clipsieve view needs an extra: pip install 'clipsieve[view]'\n"


def test_a_port_in_use_is_one_line(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command(monkeypatch, "view", str(made / "run"), "--port", str(port)) == 2
    assert capsys.readouterr().err == f"error: port {port} is in use; give another --port\n"


def test_what_is_no_run_or_not_finished_is_one_line(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "view", str(tmp_path), "--port", "0") == 1
    assert "is not a run folder" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_bytes((made / "run" / "recipe.yaml").read_bytes())
    assert command(monkeypatch, "view", str(tmp_path), "--port", "0") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("is not finished; run its command again first")


def test_a_host_that_is_not_this_machines_is_one_line() -> None:
    with pytest.raises(UsageError, match="cannot listen at 203"):
        listen("203.0.113.7", 8765)
    for host in ("nope.invalid", "a..b"):
        with pytest.raises(UsageError, match="cannot listen at") as told:
            listen(host, 8765)
        assert "Unknown error" not in str(told.value)
    with pytest.raises(UsageError, match="--host is empty"):
        listen("", 8765)


def test_the_address_can_be_opened_as_it_is_printed() -> None:
    assert address(Access(host="127.0.0.1", port=80, token=None)) == "http://127.0.0.1:80/"
    assert address(Access(host="::1", port=80, token=None)) == "http://[::1]:80/"
    assert address(Access(host="10.0.0.5", port=80, token="t")) == "http://10.0.0.5:80/?token=t"
    assert address(Access(host="0.0.0.0", port=80, token="t")) == f"http://{socket.gethostname()}:80/?token=t"

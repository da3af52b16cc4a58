"""Images by ``http(s)`` URL: what a recipe says of them, and where a process asks for one."""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from clipsieve.errors import StoreError

if TYPE_CHECKING:
    from clipsieve.core.downloads import Announcement, Downloader


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


_Whole = Annotated[int, BeforeValidator(_number)]
_Number = Annotated[float, BeforeValidator(_number)]

_AGENT = re.compile(r"[\w!#$%&'*+.^`|~-]([ -~]*[!-~])?", re.ASCII)


class FetchPolicy(BaseModel):
    """How images by URL are fetched, and which are not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: _Whole = Field(default=256, ge=1, le=4096)
    """Requests at the same time."""
    per_host: _Whole = Field(default=8, ge=1)
    """Requests at the same time to one host: what browsers allow themselves, a little more."""
    timeout: _Number = Field(default=20.0, gt=0, le=3600, allow_inf_nan=False)
    """Seconds that an attempt may take in all."""
    retries: _Whole = Field(default=2, ge=0, le=20)
    """Further attempts after what may pass: a time-out, a lost connection, status 429 or 5xx."""
    max_bytes: _Whole = Field(default=32 * 2**20, ge=1, le=2**28)
    """Largest image, as it comes and as it is inside a compression."""
    redirects: _Whole = Field(default=5, ge=0, le=20)
    """Redirects that are followed."""
    allow_private: bool = False
    """Fetches from addresses that are not public, too: this machine, its network, a cloud's own."""
    opt_out: Literal["respect", "ignore"] = "respect"
    """What becomes of images whose ``X-Robots-Tag`` says that they are not for this."""
    user_agent: Annotated[str, Field(max_length=200)] = "clipsieve"
    """How requests name themselves; up to a ``/`` or a space it is a name that owners can address."""
    keep: bool = False
    """Keeps what was fetched beside the run, so that it is not fetched again."""

    @field_validator("user_agent")
    @classmethod
    def _begins_with_a_name(cls, value: str) -> str:
        if not _AGENT.fullmatch(value):
            raise ValueError("should begin with a name and hold plain characters only, such as mylab/1.0")
        return value

    def identity(self) -> dict[str, Any]:
        """What decides results, as plain values."""
        return self.model_dump(mode="json", exclude={"concurrency", "per_host", "timeout", "retries", "keep"})


_changing = threading.Lock()
_open: dict[FetchPolicy, Downloader] = {}
_users: Counter[FetchPolicy] = Counter()
_leaving: set[FetchPolicy] = set()
_interrupted = False


@contextmanager
def downloads(policy: FetchPolicy, *, then_close: bool = False) -> Iterator[Downloader]:
    """The process's ``Downloader`` for ``policy``, for as long as the block; ``then_close`` says that it should go
    afterwards, which it does with the last that uses it. Raises ``StoreError`` in a process that is interrupted."""
    from clipsieve.core.downloads import INTERRUPTED, Downloader

    with _changing:
        downloader = _open.get(policy)
        if downloader is None:
            downloader = _open[policy] = Downloader(policy)
        if _interrupted:
            raise StoreError(INTERRUPTED)
        _users[policy] += 1
    try:
        yield downloader
    finally:
        with _changing:
            _users[policy] -= 1
            if then_close:
                _leaving.add(policy)
            unused = not _users[policy] and policy in _leaving
            if unused:
                del _open[policy], _users[policy]
                _leaving.discard(policy)
        if unused:
            downloader.close()


def read_url(url: str, policy: FetchPolicy, announcement: Announcement | None = None) -> bytes:
    """The bytes at ``url``, from what was announced or fetched now. Raises ``ImageError``, and ``StoreError`` where no
    image is to blame."""
    with downloads(policy) as downloader:
        return downloader.read(url, announcement)


def interrupt() -> None:
    """Fetches nothing any more in this process, so that threads that wait for images end. It waits for no lock: a
    signal comes wherever the main thread is."""
    global _interrupted
    _interrupted = True
    for downloader in list(_open.values()):
        downloader.interrupt()


@atexit.register
def _close_all() -> None:
    while _open:
        _, downloader = _open.popitem()
        downloader.close()


def _forget_all() -> None:
    """In a process that was forked: the threads have stayed behind."""
    global _changing
    _changing = threading.Lock()
    _open.clear()
    _users.clear()
    _leaving.clear()


os.register_at_fork(after_in_child=_forget_all)

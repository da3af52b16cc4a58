"""The server of the browser view: opens the run, says where it listens, and serves until it is stopped."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import uvicorn

from clipsieve.api import Run, apply_run
from clipsieve.api.pictures import Pictures
from clipsieve.core.text import printable
from clipsieve.errors import ClipsieveError, UsageError
from clipsieve.index import Index
from clipsieve.web.app import Answers
from clipsieve.web.applying import Applying, Work
from clipsieve.web.pictures import Thumbnails
from clipsieve.web.search import Searcher
from clipsieve.web.security import Access
from clipsieve.web.state import View

HOST, PORT = "127.0.0.1", 8765


def answers_of(run: Run, index: Index | None = None, work: Work = apply_run) -> Answers:
    """What the server answers with. Raises ``RunFolderError`` for a run that cannot be viewed.

    Images that can no longer be read, as when the source has changed, leave the numbers to be looked at.
    """
    view = View(run)
    thumbnails, without_images = None, None
    try:
        thumbnails = Thumbnails(Pictures(run))
    except (ClipsieveError, OSError) as failure:
        without_images = printable(f"images cannot be shown: {failure}")
    return Answers(view, thumbnails, Searcher(view, thumbnails, index), Applying(run, work), without_images)


def serve(
    run: Run,
    *,
    index: str | None = None,
    host: str = HOST,
    port: int = PORT,
    say: Callable[[str], None],
    ready: Callable[[str], None],
) -> None:
    """Serves the view of ``run`` until interrupted; ``ready`` hears its address once it can be opened.

    Raises ``UsageError`` when ``host`` or ``port`` cannot be had.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        opened = stack.enter_context(Index.open(index)) if index else None
        say(f"reading {run.path}")
        answers = answers_of(run, opened)
        if answers.without_images:
            say(f"warning: {answers.without_images}")
        port = listening.getsockname()[1]
        access = Access.at(host, port)
        ready(address(access))
        config = uvicorn.Config(
            answers.app(access), log_level="error", access_log=False, ws="none", lifespan="off", server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # that is how one stops it
            uvicorn.Server(config).run(sockets=[listening])
        if unfinished := answers.applying.stop():
            say(unfinished)


def address(access: Access) -> str:
    """What to open, with the token where one is asked for."""
    host = socket.gethostname() if access.host in ("0.0.0.0", "::") else access.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{access.port}/" + (f"?token={access.token}" if access.token else "")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ``UsageError``."""
    if not host:  # which would mean everywhere
        raise UsageError("--host is empty; 0.0.0.0 listens on every address")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, UnicodeError) as failure:  # a name that is none, such as a..b, is no OSError
        listening.close()
        if isinstance(failure, OSError) and failure.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use; give another --port") from None
        told = getattr(failure, "strerror", None) or failure
        raise UsageError(f"cannot listen at {host}:{port}: {told}; give another --host or --port") from None
    return listening

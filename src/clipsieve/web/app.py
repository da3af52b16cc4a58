"""The server's answers: the page, its questions about a run, and the run's images by row number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from clipsieve.core.text import printable
from clipsieve.errors import ClipsieveError, UsageError
from clipsieve.web import questions, tiles
from clipsieve.web.about import about
from clipsieve.web.applying import Applying
from clipsieve.web.chosen import command, recipe_text
from clipsieve.web.pictures import LARGE, SIDES, TILE, Small, Thumbnails
from clipsieve.web.search import Searcher
from clipsieve.web.security import Access, Guard
from clipsieve.web.state import View

STATIC = Path(__file__).parent / "static"
CAPTIONS = 24
"""Captions that are answered at once: about a screen of tiles."""

GONE = 499
"""The status for who has gone meanwhile, and does not hear it; nginx calls it so."""

Asked = TypeVar("Asked", bound=BaseModel)
Answer = Callable[[Request], Awaitable[Response]]


class Answers:
    """The routes of the page of one run; ``without_images`` says why its images cannot be read any more."""

    def __init__(
        self,
        view: View,
        thumbnails: Thumbnails | None,
        searcher: Searcher,
        applying: Applying,
        without_images: str | None = None,
    ) -> None:
        self.view = view
        self._about = about(view)  # made now, so that the first page need not wait
        self.thumbnails = thumbnails
        self.searcher = searcher
        self.applying = applying
        self.without_images = without_images

    def app(self, access: Access) -> Guard:
        """The whole application, behind its guard."""

        def ask(path: str, kind: type[Asked], answer: Callable[[Asked], Any]) -> Route:
            return Route(f"/api/{path}", _asking(kind, answer), methods=["POST"])

        app = Starlette(
            routes=[
                Route("/", self._page),
                Mount("/static", StaticFiles(directory=STATIC)),
                Route("/image/{row:int}", self._image),
                Route("/api/run", self._run),
                ask("decide", questions.Rules, self._decide),
                ask("gallery", questions.Gallery, partial(tiles.gallery, self.view)),
                ask("groups", questions.Page, partial(tiles.groups, self.view)),
                ask("image", questions.One, partial(tiles.whole, self.view)),
                Route("/api/captions", self._captions),
                ask("search", questions.Search, self.searcher),
                ask("recipe", questions.Rules, self._recipe),
                Route("/api/apply", self._applied),
                ask("apply", questions.Apply, self.applying.begin),
            ],
            exception_handlers={ClipsieveError: _error},
        )
        return Guard(app, access)

    async def _page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def _run(self, request: Request) -> Response:
        within = self.searcher.within
        more = {
            "search": within, "loaded": self.searcher.loaded, "withoutSearch": self.searcher.sentence,
            "withoutImages": self.without_images, "suggested": self.applying.suggest(),
        }  # fmt: skip
        return JSONResponse({**self._about, **more})

    async def _image(self, request: Request) -> Response:
        side = _whole_number(request.query_params.get("side", str(TILE)))
        if side not in SIDES:
            return PlainTextResponse(f"side is one of {', '.join(map(str, SIDES))}", 400)
        try:
            found = await _unless_gone(request, self._small(request.path_params["row"], side))
        except ClipsieveError as failure:
            return PlainTextResponse(printable(str(failure)), 404)
        if found is None:
            return Response(status_code=GONE)
        if found.jpeg is None:
            return PlainTextResponse(printable(found.error or "no image"), 404)
        forever = request.query_params.get("v") == self.view.key
        cache = "private, max-age=31536000, immutable" if forever else "no-store"
        return Response(found.jpeg, media_type="image/jpeg", headers={"Cache-Control": cache})

    async def _small(self, row: int, side: int) -> Small:
        tiles.check_image(self.view, row)
        if self.thumbnails is None:
            return Small(jpeg=None, caption=None, error=self.without_images)
        return await asyncio.wrap_future(self.thumbnails.ask(row, side))

    async def _captions(self, request: Request) -> Response:
        asked = request.query_params.get("rows", "").split(",")[:CAPTIONS]
        large = request.query_params.get("side") == str(LARGE)

        async def one(row: int) -> dict[str, Any]:
            try:
                small = await self._small(row, LARGE if large else TILE)
            except ClipsieveError as failure:
                return {"row": row, "caption": None, "error": printable(str(failure))}
            error = None if small.jpeg else printable(small.error or "no image")
            return {"row": row, "caption": tiles.clean(small.caption), "error": error}

        rows = [row for row in map(_whole_number, asked) if row >= 0]
        return JSONResponse({"captions": await asyncio.gather(*map(one, rows))})

    def _decide(self, asked: questions.Rules) -> dict[str, Any]:
        try:
            return self.view.counted(asked)
        except UsageError as failure:
            # Not an error of the request: the page says it beside the rule, and goes on with those that it had.
            return {"wrong": printable(str(failure)), "number": self.view.wrong(asked)}

    def _recipe(self, asked: questions.Rules) -> dict[str, Any]:
        return {"recipe": recipe_text(self.view.tuning, asked), "command": command(self.view.run.path, asked.keep)}

    async def _applied(self, request: Request) -> Response:
        suggested = await run_in_threadpool(self.applying.suggest)
        return JSONResponse({"job": self.applying.told(), "suggested": suggested})


def _asking(kind: type[Asked], answer: Callable[[Asked], Any]) -> Answer:
    """A route that reads a question of ``kind`` and answers it in a thread."""

    async def route(request: Request) -> Response:
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > questions.BODY:
                    return JSONResponse({"error": "the question is too long"}, 413)
        except ClientDisconnect:
            return Response(status_code=GONE)
        return JSONResponse(await run_in_threadpool(answer, questions.read(kind, body)))

    return route


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Small]) -> Small | None:
    """What comes of ``work``; None, and the work is given up if it has not begun, when nobody waits for it any more."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _error(request: Request, failure: Exception) -> Response:
    return JSONResponse({"error": printable(str(failure))}, 404 if isinstance(failure, tiles.NoImageError) else 400)


def _whole_number(text: str) -> int:
    """A number of digits, or -1 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1

"""``clipsieve search``: the images of an index that are most similar to a text, an image, or both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve.cli import options as o

SIMILARITY = 12
"""Columns of the terminal that the similarity takes, with the space behind it."""

HEAD = ("similarity", "caption", "reference")

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from clipsieve.report.search_page import Question


def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="A path, or a clickhouse:// or chdb:// URL.")],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to look for.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many images.")] = 20,
    where: Annotated[
        str | None, typer.Option(metavar="RULES", help="Only images that pass: 'clip_score >= 0.3 and width >= 512'.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="PATH", help="An image to look for; with TEXT, both.")] = None,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page to look at.")] = None,
    model: Annotated[str | None, typer.Option(help="Where to find the index's model, if its name has changed.")] = None,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Search an index by text, by image, or by both. Similarity is the cosine of their CLIP vectors.

    clipsieve search images.index "two dogs on a beach" --where "clip_score >= 0.3" --html dogs.html
    """
    import json as json_module

    from clipsieve.cli.terminal import out
    from clipsieve.index import Index
    from clipsieve.report.search_page import Question
    from clipsieve.report.search_page import page as drawn
    from clipsieve.runfolder import atomic

    with Index.open(index, model=model, device=device) as opened:
        found = opened.search(text=text, image=image, k=k, where=where)
        question = Question(
            index=opened.store.title, rows=len(opened), model=opened.about.model, text=text, image=image, where=where,
            thumbnail=_small(image) if page and image else None,
        )  # fmt: skip
    if json:
        out.print_json(json_module.dumps(_result(question, found)), ensure_ascii=True)
    else:
        _print(found, question.rows)
    if page:
        with atomic(page) as file:
            file.write(drawn(question, found).encode())
        if not json:
            out.print(f"page  {page}", markup=False)


def _result(question: Question, found: pa.Table) -> dict[str, Any]:
    """The answer as plain values for machines."""
    asked = {"index": question.index, "rows": question.rows, "model": question.model, "text": question.text}
    rows = found.drop_columns(["thumbnail"]).to_pylist()
    return {**asked, "image": question.image, "where": question.where, "results": rows}


def _small(image: str) -> bytes:
    from clipsieve.core.decode import decode
    from clipsieve.core.fetch import from_cell
    from clipsieve.core.thumbnail import thumbnail_jpeg

    return thumbnail_jpeg(decode(from_cell(image, "").read()))


def _print(found: pa.Table, rows: int) -> None:
    from clipsieve.cli.terminal import out
    from clipsieve.core.text import printable
    from clipsieve.report.search_page import place_of

    lines = [
        (f"{row['similarity']:.4f}", printable(" ".join((row["caption"] or "").split())), printable(place_of(row)))
        for row in found.select(["similarity", "caption", "reference", "sample_id", "image"]).to_pylist()
    ]
    if not lines:
        out.print("no image passes these rules" if rows else "the index is empty")
    elif out.is_terminal:
        out.print(_table(lines, max(out.width, 40)))
    else:  # whole, for other programs
        for line in [HEAD, *lines]:
            typer.echo("\t".join(line))


def _table(lines: Sequence[tuple[str, str, str]], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    captions = (width - SIMILARITY) * 6 // 10
    references = width - SIMILARITY - captions
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(HEAD[0], justify="right", width=SIMILARITY - 2)
    table.add_column(HEAD[1], width=captions - 2, no_wrap=True, overflow="ellipsis")
    table.add_column(HEAD[2], width=references - 2, no_wrap=True, overflow="ellipsis")
    for similarity, caption, place in lines:
        # The end of a path tells more than its beginning.
        place = place if len(place) < references - 2 else f"…{place[3 - references :]}"
        table.add_row(similarity, Text(caption), Text(place))
    return table

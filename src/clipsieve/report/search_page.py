"""The results of a search as one HTML file: no script, no request to anywhere, nothing in it that is not escaped."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clipsieve.core.text import printable
from clipsieve.report.words import plural, shown

NOT_SCORES = ("id", "similarity", "caption", "reference", "sample_id", "image", "sources", "thumbnail")
"""Columns of a result that have a place of their own on the card, or none."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1d1f; --soft: #6b6b70; --line: #e3e3df;
  --mat: #ececea; --accent: #2f5fd0; }
@media (prefers-color-scheme: dark) { :root { --page: #131315; --card: #1d1d20; --ink: #ececee; --soft: #9a9aa2;
  --line: #2e2e33; --mat: #27272b; --accent: #8fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; background: var(--page);
  color: var(--ink); font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { display: flex; gap: 1.25rem; align-items: center; margin-bottom: 1.75rem; }
header img { width: 84px; height: 84px; object-fit: cover; border-radius: 10px; flex: none; }
h1 { margin: 0; font-size: clamp(1.35rem, 3.5vw, 2rem); line-height: 1.2; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
.beside { color: var(--soft); font-weight: 400; }
.about { margin: .45rem 0 0; color: var(--soft); font-size: .87rem; overflow-wrap: anywhere; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(210px, 42vw), 1fr)); }
li { display: flex; flex-direction: column; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; overflow: hidden; }
figure { position: relative; margin: 0; aspect-ratio: 1; background: var(--mat); display: grid; place-items: center;
  color: var(--soft); font-size: .85rem; }
figure img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.similarity { position: absolute; left: .55rem; top: .55rem; padding: .12rem .5rem; border-radius: 99px;
  background: rgb(0 0 0 / .66); color: #fff; font-size: .8rem; font-variant-numeric: tabular-nums; }
.text { padding: .7rem .85rem .8rem; display: flex; flex-direction: column; gap: .4rem; flex: 1; }
.caption { margin: 0; overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4;
  overflow-wrap: anywhere; }
.reference { margin: auto 0 0; color: var(--soft); font-size: .76rem; overflow-wrap: anywhere; }
details { font-size: .8rem; color: var(--soft); }
summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: .1rem .8rem; margin: .4rem 0 0; }
dt, dd { margin: 0; overflow-wrap: anywhere; }
dd { text-align: right; color: var(--ink); font-variant-numeric: tabular-nums; }
.none { color: var(--soft); padding: 3rem 0; }
@media (max-width: 480px) { ol { gap: .6rem; } .text { padding: .55rem .6rem .65rem; } body { font-size: 14px;
  padding-top: 1.25rem; } }
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: its own style sheet, known by its hash, and images within it."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What was asked: a text, an image (its name, and it as a small JPEG) or both, among the ``rows`` of ``index``."""

    index: str
    rows: int
    model: str
    text: str | None = None
    image: str | None = None
    thumbnail: bytes | None = None
    where: str | None = None


def page(question: Question, found: pa.Table) -> str:
    """The page of ``found``, the table that ``Index.search`` gives."""
    image = (question.image or "").rpartition("/")[2]
    asked = " and ".join(filter(None, [question.text, image]))
    heading = _escaped(question.text or image)
    beside = f' <span class="beside">and {_escaped(image)}</span>' if question.text and image else ""
    nothing = "No image passes these rules." if question.rows else "The index is empty."
    cards = "\n".join(_card(row) for row in found.to_pylist())
    where = f", those where <code>{_escaped(question.where)}</code>" if question.where else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_escaped(asked)} - Clipsieve</title>
<style>{STYLE}</style>
</head>
<body>
<header>{_image(question.thumbnail, "the image that was searched for")}<div>
<h1 dir="auto">{heading}{beside}</h1>
<p class="about">{found.num_rows:,} nearest of {plural(question.rows, "image")}{where} ·
<code>{_escaped(question.index)}</code> · cosine by <code>{_escaped(question.model)}</code></p>
</div></header>
{f"<ol>{cards}</ol>" if cards else f'<p class="none">{nothing}</p>'}
</body>
</html>
"""


def _card(row: Mapping[str, Any]) -> str:
    caption = row["caption"] or ""
    scores = {name: value for name, value in row.items() if name not in NOT_SCORES and value not in (None, [])}
    place = place_of(row)
    picture = _image(row["thumbnail"], caption) or "no thumbnail"
    return f"""<li>
<figure>{picture}<span class="similarity">{row["similarity"]:.3f}</span></figure>
<div class="text">
<p class="caption" dir="auto" title="{_escaped(caption)}">{_escaped(caption)}</p>
<p class="reference" title="{_escaped(place)}">{_escaped(place.rpartition("/")[2])}</p>
{_details(scores)}</div>
</li>"""


def place_of(row: Mapping[str, Any]) -> str:
    """Where the image of a row is: its reference, or for one that lies in a document its sample and number."""
    sample = f"{row['sample_id'] or ''}#{row['image']}"
    return str(row["reference"] or sample)


def _details(scores: Mapping[str, Any]) -> str:
    if not scores:
        return ""
    items = "".join(f"<dt>{_escaped(name)}</dt><dd>{_escaped(shown(value))}</dd>" for name, value in scores.items())
    return f"<details><summary>scores</summary><dl>{items}</dl></details>\n"


def _image(data: bytes | None, description: str) -> str:
    if data is None:
        return ""
    return f'<img alt="{_escaped(description)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _escaped(text: str) -> str:
    return html.escape(printable(" ".join(text.split())))

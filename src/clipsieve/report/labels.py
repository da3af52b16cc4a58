"""Labels of a ledger in a terminal: image by image and label by label, or counts when there are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clipsieve.core.ledger import image_names
from clipsieve.core.text import printable
from clipsieve.report.words import plural
from clipsieve.scorers.label import NONE

FEW = 40
"""Up to so many images each of them is printed: about two screens."""

TOP = 20
"""So many labels are listed with their counts, and so many of the others are named."""

RUNNERS_UP = 4
"""So many other labels of an image are printed where all probabilities were asked for."""

LABEL_WIDTH = 24
BAR = 14


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """The images of one label: their ledger rows ``(n,)``, the surest first, and how probable it is, ``(n,)``."""

    label: str
    rows: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


_T = TypeVar("_T", "Labelled", "Share")


def by_label(ledger: pa.Table) -> list[Labelled]:
    """The labelled images by label, that of most images first and ``none of these`` last."""
    labels = ledger["label"].combine_chunks().dictionary_encode()
    codes = labels.indices.fill_null(-1).to_numpy()
    probabilities = ledger["label_probability"].to_numpy()
    groups = []
    for code, label in enumerate(labels.dictionary.to_pylist()):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.argsort(-probabilities[rows], kind="stable")]
        groups.append(Labelled(label=label, rows=rows, probabilities=probabilities[rows]))
    return sorted(groups, key=lambda group: (group.label == NONE, -len(group.rows)))


def label_counts(ledger: pa.Table) -> dict[str, int]:
    """How many images have each label, in the order of ``by_label``."""
    return {group.label: len(group.rows) for group in by_label(ledger)}


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many images have a label, as a ``share`` of the labelled ones, and the ``median`` of how probable it is."""

    label: str
    images: int
    share: float
    median: float


def shares(groups: Sequence[Labelled]) -> list[Share]:
    """The labels of ``by_label``."""
    total = sum(len(group.rows) for group in groups)
    return [
        Share(
            label=group.label,
            images=len(group.rows),
            share=len(group.rows) / total,
            median=float(np.median(group.probabilities)),
        )
        for group in groups
    ]


def top(groups: Sequence[_T], most: int = TOP) -> tuple[list[_T], list[_T]]:
    """The labels that are listed and the others; ``none of these`` is never hidden among the others."""
    listed = [group for place, group in enumerate(groups) if place < most or group.label == NONE]
    return listed, [group for group in groups[most:] if group.label != NONE]


def rest_told(rest: Sequence[Share]) -> str:
    """Of labels that are not listed how many there are."""
    return f"and {plural(len(rest), 'more label')} on {plural(sum(one.images for one in rest), 'image')}"


def not_labelled(ledger: pa.Table) -> list[str]:
    """How many images have no label, for each reason."""
    images = ledger.filter(pc.is_valid(ledger["image"]))
    skipped = images["label_probability"].null_count
    failed = int(pc.sum(pc.is_nan(images["label_probability"])).as_py() or 0)
    reasons = ((failed, "cannot be read"), (skipped, "no vector, since an earlier rule had dropped the image"))
    return [f"not labelled: {count:,} ({why})" for count, why in reasons if count]


def label_report(
    ledger: pa.Table, labels: Sequence[str], width: int | None = None, *, few: int = FEW
) -> RenderableType:
    """What a person wants to see of a labelled ledger; ``width`` is the terminal's, None where lines may be long.

    Up to ``few`` images are printed one by one.
    """
    images = ledger.filter(pc.is_valid(ledger["image"]))
    groups = by_label(images)
    blocks: list[RenderableType] = []
    if 0 < images.num_rows <= few:
        folder, names = names_in_folder(images)
        blocks += [Text(f"in {folder}")] if folder else []
        blocks += [_image_by_image(images, names, width), Text("")]
        blocks += [_of_label(group, names, width) for group in groups]
    elif groups:
        blocks.append(_counts(shares(groups)))
    found = {group.label for group in groups}
    if unseen := [printable(label) for label in labels if label not in found]:
        blocks.append(Text(f"no image: {_some(unseen)}", style="dim"))
    blocks += [Text(line, style="dim") for line in not_labelled(images)]
    return Group(*blocks)


def names_in_folder(images: pa.Table) -> tuple[str, list[str]]:
    """What to call each of some ledger rows, and the folder that all of them lie in, left out of their names."""
    names = image_names(images).to_pylist()
    common = commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071 - of URLs as well, and cut at a slash
    folder = common[: common.rfind("/") + 1]
    return printable(folder), [printable(name.removeprefix(folder)) for name in names]


def fitting(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells; of a longer one the end stays, which is what tells paths apart."""
    return text if cell_len(text) <= width else f"…{chop_cells(text[::-1], max(width - 1, 1))[0][::-1]}"


def _image_by_image(images: pa.Table, names: Sequence[str], width: int | None) -> Text:
    labels = [printable(label or "-") for label in images["label"].to_pylist()]
    column = min(max(map(cell_len, labels)), LABEL_WIDTH)
    ranked = images["label_probabilities"].to_pylist() if "label_probabilities" in images.column_names else None
    lines = []
    for row, (label, probability) in enumerate(zip(labels, images["label_probability"].to_pylist(), strict=True)):
        number = "-    " if probability is None or probability != probability else f"{probability:.3f}"
        lines.append(_line(f"{number}  {_cell(label, column)}  ", names[row], width))
        if ranked and ranked[row]:
            lines.append(f"       {_runners_up(ranked[row], label)}")
    return Text("\n".join(lines), no_wrap=True)


def _runners_up(ranked: Sequence[dict[str, Any]], label: str) -> str:
    others = [pair for pair in ranked if printable(pair["label"]) != label][:RUNNERS_UP]
    return ", ".join(f"{_cell(printable(pair['label']))} {pair['probability']:.3f}" for pair in others)


def _of_label(group: Labelled, names: Sequence[str], width: int | None) -> Text:
    count = len(group.rows)
    text = Text(no_wrap=True)
    text.append(f"{_cell(printable(group.label))}", style="bold")
    text.append(f"  {plural(count, 'image')}\n")
    pairs = zip(group.rows.tolist(), group.probabilities.tolist(), strict=True)
    text.append("\n".join(_line(f"  {probability:.3f}  ", names[row], width) for row, probability in pairs))
    return text


def _line(start: str, name: str, width: int | None) -> str:
    return start + (name if width is None else fitting(name, width - cell_len(start)))


def _counts(labels: Sequence[Share]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("label", no_wrap=True)
    for title in ("images", "of labelled", "median probability"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max(one.images for one in labels)
    listed, rest = top(labels)
    for one in listed:
        bar = "█" * round(BAR * one.images / most)
        label = Text(_cell(printable(one.label)))
        table.add_row(label, f"{one.images:,}", f"{one.share:.1%}", f"{one.median:.3f}", bar)
    return Group(table, Text(rest_told(rest))) if rest else table


def _cell(text: str, width: int | None = None) -> str:
    """``text`` cut to the width of a label, and filled up to ``width``."""
    cut = text if cell_len(text) <= LABEL_WIDTH else f"{set_cell_size(text, LABEL_WIDTH - 1).rstrip()}…"
    return set_cell_size(cut, width) if width else cut


def _some(names: Iterable[str]) -> str:
    first, more = (listed := list(names))[:TOP], len(listed) - TOP
    return ", ".join(map(_cell, first)) + (f" and {more:,} more" if more > 0 else "")

"""What a labelled ledger looks like in a terminal, and which images go on a contact sheet."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console

from clipsieve.report import sheet
from clipsieve.report.labels import by_label, fitting, label_report, shares


def ledger(*rows: tuple[str | None, str | None, float | None], **columns: list[Any]) -> pa.Table:
    """A row an image: its reference, label and probability."""
    references, labels, probabilities = zip(*rows, strict=True)
    return pa.table(
        {
            "shard": [0] * len(rows),
            "sample": range(len(rows)),
            "row": range(len(rows)),
            "image": pa.array([0] * len(rows), pa.int32()),
            "sample_id": pa.array([None] * len(rows), pa.string()),
            "reference": pa.array(references, pa.string()),
            "label": pa.array(labels, pa.string()),
            "label_probability": pa.array(probabilities, pa.float64(), from_pandas=False),
            **columns,
        }
    )


def printed(table: pa.Table, labels: list[str], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)
    console.print(label_report(table, labels, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_small_set_is_printed_image_by_image_and_label_by_label() -> None:
    table = ledger(
        ("in/x/1.jpg", "cat", 0.6), ("in/2.jpg", "cat", 0.9), ("in/3.jpg", "dog", 0.7),
        ("in/4.jpg", None, float("nan")), ("in/5.jpg", None, None), ("in/6.jpg", "none of these", 0.2),
    )  # fmt: skip
    assert printed(table, ["dog", "cat", "cow"]) == [
        "in in/",
        "0.600  cat            x/1.jpg",
        "0.900  cat            2.jpg",
        "0.700  dog            3.jpg",
        "-      -              4.jpg",
        "-      -              5.jpg",
        "0.200  none of these  6.jpg",
        "",
        "cat  2 images",
        "  0.900  2.jpg",
        "  0.600  x/1.jpg",
        "dog  1 image",
        "  0.700  3.jpg",
        "none of these  1 image",
        "  0.200  6.jpg",
        "no image: cow",
        "not labelled: 1 (cannot be read)",
        "not labelled: 1 (no vector, since an earlier rule had dropped the image)",
    ]


def test_a_large_set_is_counted() -> None:
    rows = [(f"{i}.jpg", "cat" if i % 4 else "dog", i / 100) for i in range(100)]
    lines = printed(ledger(*rows), ["cat", "dog"])
    assert [line.split()[:4] for line in lines[1:]] == [
        ["cat", "75", "75.0%", "0.500"],
        ["dog", "25", "25.0%", "0.480"],
    ]


def test_of_many_labels_the_most_common_are_listed() -> None:
    rows = [(f"{i}.jpg", f"label {i % 30}", 0.5) for i in range(100)] + [("x.jpg", "none of these", 0.1)]
    lines = printed(ledger(*rows), [f"label {i}" for i in range(60)])
    assert len(lines) == 1 + 20 + 1 + 2
    assert lines[21].startswith("none of these")
    assert lines[22] == "and 10 more labels on 30 images"
    assert lines[23].endswith("label 49 and 10 more")


def test_hostile_names_stay_text_and_in_their_line() -> None:
    table = ledger(
        ("[red]x[/red]\n\x1b[31m.jpg", "[bold]a", 0.5),
        ("東" * 60 + ".jpg", "label " * 9, 0.5),
        ("b" * 99, "[bold]a", 1.0),
    )
    lines = printed(table, ["[bold]a", "label " * 9])
    assert "[red]x[/red]\\n\\x1b[31m.jpg" in lines[0]
    assert lines[1].endswith("東東.jpg")
    assert all(len(line) + line.count("東") <= 80 for line in lines)
    assert "[bold]a  2 images" in lines


def test_all_probabilities_show_the_runners_up() -> None:
    ranked = [[{"label": name, "probability": 0.5 - place / 10} for place, name in enumerate("abcdef")]]
    lines = printed(ledger(("1.jpg", "a", 0.5), label_probabilities=ranked), list("abcdef"))
    assert lines[1] == "       b 0.400, c 0.300, d 0.200, e 0.100"


def test_a_long_path_keeps_its_end() -> None:
    assert fitting("folder/name.jpg", 9) == "…name.jpg"
    assert fitting("name.jpg", 9) == "name.jpg"


@pytest.mark.parametrize(
    ("sizes", "images", "shares"),
    [
        ({"a": 5, "b": 3}, 60, [5, 3]),
        ({"a": 100, "b": 50, "c": 2}, 12, [5, 5, 2]),
        ({"a": 100, "b": 50, "c": 2}, 2, [1, 1]),
        ({"a": 9}, 4, [4]),
    ],
)
def test_a_sheet_gives_each_label_its_share(sizes: dict[str, int], images: int, shares: list[int]) -> None:
    rows = [(None, label, 1 - i / 1000) for label, size in sizes.items() for i in range(size)]
    blocks = sheet.choose(by_label(ledger(*rows)), images)
    assert [len(block.rows) for block in blocks] == shares
    assert [block.images for block in blocks] == list(sizes.values())[: len(shares)]


def test_a_sheet_takes_images_evenly_from_the_surest_to_the_least_sure() -> None:
    rows = [(None, "a", probability / 100) for probability in (3, 1, 5, 2, 4)]
    (block,) = sheet.choose(by_label(ledger(*rows)), 3)
    assert block.probabilities == [0.05, 0.03, 0.01]
    assert block.rows == [2, 0, 1]


def test_small_blocks_share_a_line_of_the_sheet() -> None:
    def drawn(*sizes: int) -> Image.Image:
        blocks = [sheet.Block(label="x", images=size, rows=range(size), probabilities=[0.5] * size) for size in sizes]
        return sheet.draw(blocks, {}, {}, "title")

    assert drawn(2, 3).height == drawn(5).height < drawn(5, 6).height
    assert drawn(9).height < drawn(8, 8).height
    assert drawn(1).width < drawn(8).width == drawn(30).width


def test_shares_are_of_the_labelled_and_what_has_no_label_is_told() -> None:
    rows = [(f"{i}.jpg", "cat" if i % 4 else "dog", i / 100) for i in range(100)]
    table = ledger(*rows, *[(f"broken {i}.jpg", None, float("nan")) for i in range(100)], ("x.jpg", None, None))
    assert [(one.label, one.images, one.share, one.median) for one in shares(by_label(table))] == [
        ("cat", 75, 0.75, 0.5), ("dog", 25, 0.25, 0.48),
    ]  # fmt: skip
    lines = printed(table, [])
    assert lines[1].split()[:4] == ["cat", "75", "75.0%", "0.500"]
    assert lines[-2:] == [
        "not labelled: 100 (cannot be read)",
        "not labelled: 1 (no vector, since an earlier rule had dropped the image)",
    ]

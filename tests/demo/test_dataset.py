"""The generated data: its layout, its planted faults measured one by one, and its truth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import zxingcpp
from PIL import Image

from clipsieve.demo import TruthRow, generate, read_truth
from clipsieve.demo.dataset import DOCUMENT_FAULTS, DOCUMENT_SCHEMA, IMAGE_FAULTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    generate(folder, seed=3, documents=90, pairs=100)
    return folder


@pytest.fixture(scope="module")
def truth(folder: Path) -> list[TruthRow]:
    return read_truth(folder / "truth.jsonl")


@pytest.fixture(scope="module")
def documents(folder: Path) -> dict[str, list[dict[str, Any]]]:
    rows = pq.read_table(folder / "documents.parquet").to_pylist()
    return {key: list(group) for key, group in itertools.groupby(rows, lambda row: row["sample_id"])}


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def encoded(folder: Path, documents: dict[str, list[dict[str, Any]]], pairs: list[dict[str, str]]) -> Any:
    """The bytes of every image that is there, by sample id and number."""
    found = {
        (sample_id, number): row["binary_content"]
        for sample_id, rows in documents.items()
        for number, row in enumerate(row for row in rows if row["modality"] == "image")
    }
    files = {(row["id"], 0): folder / row["image"] for row in pairs}
    return found | {key: path.read_bytes() for key, path in files.items() if path.exists()}


def planted(truth: list[TruthRow], encoded: Any, fault: str | None) -> Iterator[np.ndarray]:
    """The decoded images that have a fault."""
    for row in truth:
        if row["fault"] == fault:
            yield np.asarray(Image.open(BytesIO(encoded[row["sample_id"], row["image"]])).convert("RGB"))


def blur(rgb: np.ndarray) -> float:
    return float(cv2.Laplacian(rgb, cv2.CV_64F).var())


def qr_area(rgb: np.ndarray) -> float:
    """The area of the largest QR code as a share of the image."""
    areas = [0.0]
    for code in zxingcpp.read_barcodes(rgb, formats=zxingcpp.BarcodeFormat.QRCode):
        place = code.position
        corners = [place.top_left, place.top_right, place.bottom_right, place.bottom_left]
        areas.append(cv2.contourArea(np.array([(corner.x, corner.y) for corner in corners], np.float32)))
    return max(areas) / (rgb.shape[0] * rgb.shape[1])


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["text_content"] for row in rows if row["modality"] == "text"]


def test_documents_follow_the_interleaved_schema(folder: Path, documents: dict[str, list[dict[str, Any]]]) -> None:
    file = pq.ParquetFile(folder / "documents.parquet")
    assert file.schema_arrow.equals(DOCUMENT_SCHEMA)
    assert file.num_row_groups == 2
    for rows in documents.values():
        start = -1 if rows[0]["modality"] == "metadata" else 0
        assert [row["position"] for row in rows] == list(range(start, start + len(rows)))
        for row in rows:
            content = "binary_content" if row["modality"] == "image" else "text_content"
            assert row[content] is not None


def test_pairs_name_files_and_captions(folder: Path, pairs: list[dict[str, str]]) -> None:
    assert len(pairs) == 100
    assert set(pairs[0]) == {"id", "image", "caption", "licence"}
    assert sum(not (folder / row["image"]).exists() for row in pairs) < 5, "only a few, planted as undecodable"


def test_there_is_a_line_of_truth_for_every_image_and_every_sample_without_images(
    truth: list[TruthRow], documents: dict[str, list[dict[str, Any]]], pairs: list[dict[str, str]]
) -> None:
    expected: list[tuple[str, int | None]] = []
    for sample_id, rows in documents.items():
        images = sum(row["modality"] == "image" for row in rows)
        expected += [(sample_id, number) for number in range(images)] if images else [(sample_id, None)]
    expected += [(row["id"], 0) for row in pairs]
    assert [(row["sample_id"], row["image"]) for row in truth] == expected


def test_every_fault_is_planted_and_most_images_are_clean(truth: list[TruthRow]) -> None:
    faults = [row["fault"] for row in truth]
    for fault in (*IMAGE_FAULTS, *DOCUMENT_FAULTS):
        assert faults.count(fault.name) >= 4, fault.name
    assert faults.count(None) / len(faults) > 0.6


def test_blurred_images_are_below_the_usual_threshold_and_all_others_far_above(
    truth: list[TruthRow], encoded: Any
) -> None:
    assert max(map(blur, planted(truth, encoded, "blur"))) < 50
    for fault in (None, "wrong_caption", "near_duplicate", "small_qr_code"):
        assert min(map(blur, planted(truth, encoded, fault))) > 200, fault


def test_qr_codes_are_found_and_the_small_ones_are_below_the_usual_threshold(
    truth: list[TruthRow], encoded: Any
) -> None:
    assert min(map(qr_area, planted(truth, encoded, "qr_code"))) > 0.06
    small = [qr_area(rgb) for rgb in planted(truth, encoded, "small_qr_code")]
    assert 0 < min(small) <= max(small) < 0.045
    assert all(qr_area(rgb) == 0 for rgb in planted(truth, encoded, None))


def test_undecodable_images_do_not_decode(truth: list[TruthRow], encoded: Any) -> None:
    details = set()
    for row in truth:
        key = (row["sample_id"], row["image"])
        if row["fault"] != "undecodable":
            continue
        details.add(row["detail"])
        if row["detail"] == "missing":
            assert key not in encoded
        else:
            with pytest.raises(OSError, match=r"truncated|cannot identify"):
                Image.open(BytesIO(encoded[key])).load()
    assert details == {"truncated", "empty", "garbage", "missing"}


def test_dumps_break_the_ratio_rule_and_other_documents_do_not(
    truth: list[TruthRow], documents: dict[str, list[dict[str, Any]]]
) -> None:
    fault_of = {row["sample_id"]: row["fault"] for row in truth}
    for sample_id, rows in documents.items():
        images = sum(row["modality"] == "image" for row in rows)
        ratio = images / sum(len(text.split()) for text in texts_of(rows))
        match fault_of[sample_id]:
            case "image_dump":
                assert ratio > 0.1
            case "text_dump":
                assert ratio < 0.001
            case _:
                assert 0.001 <= ratio <= 0.1


def test_texts_describe_an_image_unless_its_caption_is_of_another(
    truth: list[TruthRow], documents: dict[str, list[dict[str, Any]]], pairs: list[dict[str, str]]
) -> None:
    texts = {sample_id: texts_of(rows) for sample_id, rows in documents.items()}
    texts |= {row["id"]: [row["caption"]] for row in pairs}
    for row in truth:
        things = [f"{colour} {shape}" for colour, shape in zip(row["colours"], row["shapes"], strict=True)]
        here = " ".join(texts[row["sample_id"]]).lower()
        if row["fault"] == "wrong_caption":
            assert not any(thing in here for thing in things)
        elif row["fault"] != "image_dump":
            assert (row["shows"] or "") in here


def test_a_near_duplicate_looks_like_the_earlier_image_it_names(truth: list[TruthRow], encoded: Any) -> None:
    copies = [row for row in truth if row["duplicate_of"]]
    assert len(copies) >= 15
    for row in copies:
        original = row["duplicate_of"]
        assert original is not None
        assert original["sample_id"] < row["sample_id"]
        small = [
            np.asarray(Image.open(BytesIO(data)).convert("RGB").resize((16, 16)), np.int16)
            for data in (encoded[row["sample_id"], row["image"]], encoded[original["sample_id"], original["image"]])
        ]
        assert np.abs(small[0] - small[1]).mean() < 16


def test_a_seed_gives_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name, seed in {"once": 1, "again": 1, "other": 2}.items():
        generate(tmp_path / name, seed=seed, documents=8, pairs=12)
    once, again, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("once", "again", "other")
    )
    assert once == again
    assert once[Path("documents.parquet")] != other[Path("documents.parquet")]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="is not empty"):
        generate(tmp_path, documents=1, pairs=1)

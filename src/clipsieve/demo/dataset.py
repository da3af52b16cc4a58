"""Generates the demo's data: interleaved documents and caption pairs with planted faults, and the truth about them.

Everything is planned first, from one seeded generator, then rendered image by image. So the bytes depend on the seed
and the sizes alone, whatever the number of threads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsieve.demo.faults import DAMAGES, blurred, encoded, near_copy, undecodable, with_qr_code
from clipsieve.demo.prose import paragraph
from clipsieve.demo.scenes import Scene, draw_scene, render
from clipsieve.demo.truth import DataSet, TruthRow, Verdict

CLIP_SCORE_THRESHOLD = 0.5  # Of the demo model: between wrong captions and right ones, see its card.
KEEP_PAIRS = ("blur >= 100", "qr_code <= 0.05", f"clip_score >= {CLIP_SCORE_THRESHOLD}")
DEDUP = 0.996  # Of the demo model, whose vectors lie close together: between other scenes and copies of one.
KEEP_DOCUMENTS = (*KEEP_PAIRS[:2], "0.001 <= image_text_ratio <= 0.1", KEEP_PAIRS[2])

DOCUMENT_SCHEMA = pa.schema(
    {
        "sample_id": pa.string(),
        "position": pa.int32(),
        "modality": pa.string(),
        "content_type": pa.string(),
        "text_content": pa.string(),
        "binary_content": pa.large_binary(),
        "source_ref": pa.string(),
        "materialize_error": pa.string(),
        "licence": pa.string(),
    }
)
_DOCUMENTS_PER_ROW_GROUP = 50


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault to plant: in what share of the images or documents, and what the demo's rules must make of it."""

    name: str
    share: float
    verdict: Verdict
    rule: str | None = None


IMAGE_FAULTS = (
    Fault(name="blur", share=0.05, verdict="dropped", rule="blur"),
    Fault(name="qr_code", share=0.05, verdict="dropped", rule="qr_code"),
    Fault(name="wrong_caption", share=0.05, verdict="dropped", rule="clip_score"),
    Fault(name="undecodable", share=0.05, verdict="failed"),
    Fault(name="near_duplicate", share=0.05, verdict="dropped", rule="near duplicate"),
    Fault(name="small_qr_code", share=0.02, verdict="kept"),  # Below the usual threshold.
)
DOCUMENT_FAULTS = (
    Fault(name="image_dump", share=0.05, verdict="dropped", rule="image_text_ratio"),
    Fault(name="text_dump", share=0.05, verdict="dropped", rule="image_text_ratio"),
)


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image of the plan: where it stands, what it shows, what the data set says of it, what is wrong with it."""

    data_set: DataSet
    sample_id: str
    number: int
    scene: Scene
    caption: str
    fault: Fault | None
    copy_of: _Image | None = None

    @property
    def file_format(self) -> Literal["JPEG", "PNG"]:
        return "PNG" if self.fault is None and self.scene.grain % 20 == 0 else "JPEG"


@dataclass(frozen=True, kw_only=True)
class _Document:
    sample_id: str
    fault: Fault | None
    parts: tuple[str | _Image, ...]
    licence: str
    has_metadata: bool


def generate(folder: Path, *, seed: int = 0, documents: int = 600, pairs: int = 400) -> list[TruthRow]:
    """Writes `documents.parquet`, `pairs.jsonl` with the folder `images`, and `truth.jsonl`; returns the truth.

    The documents follow the interleaved schema (`DOCUMENT_SCHEMA`), 1 to 6 images each. A pair has the fields `id`,
    `image` (a path relative to the folder), `caption` and `licence`. An image has one fault at most; a faulty
    document passes its fault on to all its images. The same arguments give the same bytes.

    Raises:
        FileExistsError: The folder exists and is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the generated data, or remove this one")
    truth = _write_documents(folder / "documents.parquet", _plan_documents(seed, documents))
    truth += _write_pairs(folder, _plan_pairs(seed, pairs))
    _write_json_lines(folder / "truth.jsonl", truth)
    return truth


# ---- planning


def _deal(faults: Sequence[Fault], count: int, rng: random.Random) -> list[Fault | None]:
    """Deals each fault to its share of `count` places, at least once where there is room, in random order."""
    cards: list[Fault | None] = [fault for fault in faults for _ in range(max(1, round(fault.share * count)))]
    cards += [None] * (count - len(cards))
    rng.shuffle(cards)
    return cards[:count]


def _plan_documents(seed: int, count: int) -> list[_Document]:
    rng = random.Random(f"documents {seed}")
    kinds = _deal(DOCUMENT_FAULTS, count, rng)
    image_counts = [_image_count(kind, rng) for kind in kinds]
    image_faults = _deal(
        IMAGE_FAULTS, sum(images for images, kind in zip(image_counts, kinds, strict=True) if kind is None), rng
    )
    clean: list[_Image] = []
    drawn: set[str] = set()
    planned = []
    for number, (kind, image_count) in enumerate(zip(kinds, image_counts, strict=True)):
        sample_id = f"document-{number:05d}"
        faults = [image_faults.pop() if kind is None else kind for _ in range(image_count)]
        images = _plan_images(sample_id, faults, clean, drawn, rng)
        clean += [image for image in images if image.fault is None]
        planned.append(
            _Document(
                sample_id=sample_id,
                fault=kind,
                parts=_parts(kind, images, rng),
                licence=rng.choice(("CC0-1.0", "CC-BY-4.0")),
                has_metadata=rng.random() < 0.5,
            )
        )
    return planned


def _image_count(kind: Fault | None, rng: random.Random) -> int:
    match kind:
        case Fault(name="image_dump"):
            return rng.randint(4, 6)
        case Fault(name="text_dump"):
            return rng.choice((0, 1, 1, 1))
        case _:
            return rng.randint(1, 6)


def _plan_images(
    sample_id: str, faults: Sequence[Fault | None], clean: Sequence[_Image], drawn: set[str], rng: random.Random
) -> list[_Image]:
    """Plans the images of a document; near duplicates copy one of the `clean` images of earlier documents.

    Scenes of the captions in `drawn` are not drawn again: two of them might well be near duplicates.
    """
    captioned: list[tuple[Scene, _Image | None]] = []
    for fault in faults:
        original = rng.choice(clean) if fault and fault.name == "near_duplicate" and clean else None
        captioned.append((original.scene if original else _new_scene(rng, drawn), original))
    described = {thing for scene, _ in captioned for thing in scene.things}
    images = []
    for number, (fault, (scene, original)) in enumerate(zip(faults, captioned, strict=True)):
        is_copy = fault is not None and fault.name == "near_duplicate"
        is_wrong = fault is not None and fault.name == "wrong_caption"
        images.append(
            _Image(
                data_set="documents",
                sample_id=sample_id,
                number=number,
                scene=draw_scene(rng, avoid=described) if is_wrong else scene,
                caption=scene.caption,
                fault=None if is_copy and original is None else fault,  # The first document has nothing to copy.
                copy_of=original,
            )
        )
    return images


def _parts(kind: Fault | None, images: Sequence[_Image], rng: random.Random) -> tuple[str | _Image, ...]:
    """Puts images and paragraphs in reading order, with as many words as the kind of document needs."""
    if kind is not None and kind.name == "image_dump":
        return (f"{_capitalised(images[0].caption)}.", *images)
    parts: list[str | _Image] = []
    for image in images:
        text = f"{_capitalised(image.caption)}. {paragraph(rng, words=rng.randint(12, 40))}"
        parts += [text, image] if rng.random() < 0.5 else [image, text]
        if rng.random() < 0.4:
            parts.append(paragraph(rng, words=rng.randint(20, 60)))
    if kind is not None and kind.name == "text_dump":
        parts += [paragraph(rng, words=rng.randint(100, 130)) for _ in range(11)]
    return tuple(parts)


def _plan_pairs(seed: int, count: int) -> list[_Image]:
    rng = random.Random(f"pairs {seed}")
    faults = _deal(IMAGE_FAULTS, count, rng)
    drawn: set[str] = set()
    scenes = [_new_scene(rng, drawn) for _ in range(count)]
    clean: list[_Image] = []
    planned = []
    for number, (fault, scene) in enumerate(zip(faults, scenes, strict=True)):
        is_copy = fault is not None and fault.name == "near_duplicate"
        original = rng.choice(clean) if is_copy and clean else None
        shown = original.scene if original else scene
        image = _Image(
            data_set="pairs",
            sample_id=f"pair-{number:05d}",
            number=0,
            scene=shown,
            caption=_wrong_caption(shown, rng) if fault and fault.name == "wrong_caption" else shown.caption,
            fault=None if is_copy and original is None else fault,
            copy_of=original,
        )
        planned.append(image)
        if image.fault is None:
            clean.append(image)
    return planned


def _new_scene(rng: random.Random, drawn: set[str]) -> Scene:
    """Draws a scene that no caption in `drawn` describes, and adds its own."""
    while (scene := draw_scene(rng)).caption in drawn:
        pass
    drawn.add(scene.caption)
    return scene


def _wrong_caption(scene: Scene, rng: random.Random) -> str:
    """Returns the caption of another scene, which has no thing in common with this one."""
    return draw_scene(rng, avoid=scene.things).caption


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


# ---- rendering


def _rendered(image: _Image) -> tuple[bytes | None, str | None]:
    """Returns the bytes of a planned image, None for a missing file, and how its fault was made."""
    rng = random.Random(f"{image.scene.grain} {image.sample_id} {image.number}")
    if image.copy_of is not None:
        original, _ = _rendered(image.copy_of)
        assert original is not None, "only clean images are copied"
        return near_copy(Image.open(BytesIO(original)), rng)
    picture = render(image.scene)
    match image.fault:
        case Fault(name="blur"):
            return encoded(blurred(picture, rng)), None
        case Fault(name="qr_code"):
            marked, area = with_qr_code(picture, rng, area=rng.uniform(0.08, 0.4))
            return encoded(marked), f"area {area:.3f}"
        case Fault(name="small_qr_code"):
            marked, area = with_qr_code(picture, rng, area=rng.uniform(0.01, 0.03))
            return encoded(marked), f"area {area:.3f}"
        case Fault(name="undecodable"):
            if image.data_set == "pairs" and rng.random() < 0.25:
                return None, "missing"
            how = rng.choice(DAMAGES)
            return undecodable(encoded(picture), rng, how=how), how
        case _:
            return encoded(picture, file_format=image.file_format), None


def _truth(
    data_set: DataSet, sample_id: str, fault: Fault | None, image: _Image | None, detail: str | None
) -> TruthRow:
    """Says what is true of an image, or of a sample that has none."""
    original = image.copy_of if image else None
    things = image.scene.things if image else ()
    return {
        "data_set": data_set,
        "sample_id": sample_id,
        "image": image.number if image else None,
        "fault": fault.name if fault else None,
        "detail": detail,
        "verdict": fault.verdict if fault else "kept",
        "rule": fault.rule if fault else None,
        "duplicate_of": {"sample_id": original.sample_id, "image": original.number} if original else None,
        "shows": image.scene.caption if image else None,
        "colours": [thing.colour for thing in things],
        "shapes": [thing.shape for thing in things],
        "single_object": len(things) == 1,
    }


# ---- writing


def _write_documents(path: Path, planned: Sequence[_Document]) -> list[TruthRow]:
    """Writes the documents, a row a part and `_DOCUMENTS_PER_ROW_GROUP` documents a row group."""
    truth: list[TruthRow] = []
    with (
        pq.ParquetWriter(path.absolute(), DOCUMENT_SCHEMA, compression="zstd", use_dictionary=["sample_id"]) as writer,
        ThreadPoolExecutor() as pool,
    ):
        for start in range(0, len(planned), _DOCUMENTS_PER_ROW_GROUP):
            group = list(pool.map(_document_rows, planned[start : start + _DOCUMENTS_PER_ROW_GROUP]))
            writer.write_table(pa.Table.from_pylist([row for rows, _ in group for row in rows], DOCUMENT_SCHEMA))
            truth += [row for _, rows in group for row in rows]
    return truth


def _document_rows(document: _Document) -> tuple[list[dict[str, Any]], list[TruthRow]]:
    """Returns the Parquet rows of a document, and the truth about its images or, without images, about itself."""
    common = {"sample_id": document.sample_id, "licence": document.licence}
    rows: list[dict[str, Any]] = []
    truth: list[TruthRow] = []
    if document.has_metadata:
        metadata = json.dumps({"url": f"https://example.org/{document.sample_id}"})
        content = {"content_type": "application/json", "text_content": metadata}
        rows.append({**common, "position": -1, "modality": "metadata", **content})
    for position, part in enumerate(document.parts):
        if isinstance(part, str):
            content = {"content_type": "text/plain", "text_content": part}
            rows.append({**common, "position": position, "modality": "text", **content})
        else:
            data, detail = _rendered(part)
            truth.append(_truth("documents", part.sample_id, part.fault, part, detail))
            content_type = f"image/{part.file_format.lower()}"
            image = {"content_type": content_type, "binary_content": data}
            rows.append({**common, "position": position, "modality": "image", **image})
    if not truth:
        truth.append(_truth("documents", document.sample_id, document.fault, None, None))
    return rows, truth


def _write_pairs(folder: Path, planned: Sequence[_Image]) -> list[TruthRow]:
    """Writes the image files and the caption rows that name them."""
    (folder / "images").mkdir()
    rows: list[dict[str, str]] = []
    truth: list[TruthRow] = []
    with ThreadPoolExecutor() as pool:
        for image, (data, detail) in zip(planned, pool.map(_rendered, planned), strict=True):
            path = f"images/{image.sample_id}.{'png' if image.file_format == 'PNG' else 'jpg'}"
            if data is not None:
                (folder / path).write_bytes(data)
            rows.append({"id": image.sample_id, "image": path, "caption": image.caption, "licence": "CC0-1.0"})
            truth.append(_truth("pairs", image.sample_id, image.fault, image, detail))
    _write_json_lines(folder / "pairs.jsonl", rows)
    return truth


def _write_json_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")

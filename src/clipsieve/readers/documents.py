"""MINT-1T style documents of a WebDataset tar as interleaved rows; the rules: docs/design/webdataset-documents.md.

A document that cannot be read becomes one image row whose ``materialize_error`` says why.
"""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import unquote

import pyarrow as pa

from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import SourceError
from clipsieve.readers.files import compression
from clipsieve.readers.images import is_image
from clipsieve.readers.jsontypes import MisfitError, infer
from clipsieve.readers.tables import conformed, interleaved_schema
from clipsieve.readers.tar import Member, TarSample

Content: TypeAlias = Callable[[Member], bytes | None]
"""The bytes of a member; None for a link or device."""

STORED_BYTES = 64 * 2**20
"""Most bytes of the rows that a document stores in itself, which are those without its texts and images."""

STORED_ROWS = 2**20
"""Most rows of them: so many take more than those bytes, unless all their columns are empty."""

_OWN_FIELDS = ("sample_id", "texts", "images", "clipsieve")


class DocumentError(Exception):
    """Why a sample of a tar is not a document that can be read."""


def parse_document(sample: TarSample, content: Content) -> dict[str, Any]:
    """The JSON of a document. Raises ``DocumentError``."""
    if sample.error:
        raise DocumentError(sample.error)
    stored = next((content(member) for member in sample.members if member.name == f"{sample.key}.json"), None)
    if stored is None:
        raise DocumentError(f"no member {sample.key}.json")
    try:
        document = json.loads(stored)
    except (ValueError, RecursionError) as failure:
        raise DocumentError(f"malformed JSON in {sample.key}.json: {failure}") from None
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in ("texts", "images")):
        raise DocumentError(f"no document in {sample.key}.json: it needs the lists texts and images")
    return document


def sample_id(sample: TarSample) -> str:
    """The id that the key of a document stands for."""
    return unquote(sample.key.rpartition("/")[2])


class Documents:
    """Turns documents into tables of one schema, which is that of the examples; ``name`` is for messages."""

    def __init__(self, examples: Sequence[Mapping[str, Any]], name: str) -> None:
        stored: list[pa.Schema] = []
        others: list[dict[str, Any]] = []
        for example in examples:
            if "clipsieve" not in example:
                others.append(_other_fields(example))
                continue
            with suppress(DocumentError):  # said when the document itself is read
                stored.append(_stored_rows(example).schema)
        self._fields = infer(others)
        if taken := sorted(self._fields.types.keys() & set(INTERLEAVED_SCHEMA.names)):
            raise SourceError(f"{name}: JSON field {taken[0]!r} has the name of an interleaved column; rename it")
        self._assembled_schema = pa.schema([*INTERLEAVED_SCHEMA, *self._fields.arrow])
        schemas = [*stored, self._assembled_schema] if others or not stored else stored
        try:
            self.schema = interleaved_schema(pa.unify_schemas(schemas, promote_options="permissive"))
        except pa.ArrowException as failure:
            raise SourceError(f"{name}: documents of different columns: {failure}; read them separately") from None

    def rows(self, sample: TarSample, content: Content, path: str, offset: int = 0) -> pa.Table:
        """The rows of one document."""
        try:
            document = parse_document(sample, content)
            if "clipsieve" in document:
                table = _restored(document, sample, content)
            else:
                table = self._assembled(document, sample, content, path, offset)
            if unknown := sorted(set(table.column_names) - set(self.schema.names)):
                raise DocumentError(f"column {unknown[0]!r} is new here; columns are those of the sampled documents")
            return conformed(table, self.schema, path)
        except (DocumentError, MisfitError, SourceError, UnicodeError) as failure:
            failed = {"sample_id": sample_id(sample), "position": 0, "modality": "image"}
            return pa.Table.from_pylist([failed | {"materialize_error": str(failure)}], schema=self.schema)

    def _assembled(
        self, document: Mapping[str, Any], sample: TarSample, content: Content, path: str, offset: int
    ) -> pa.Table:
        """The rows of a document as other tools write it."""
        name = document.get("sample_id", sample_id(sample))
        base = {"sample_id": name if name is None else str(name)}
        rows: list[dict[str, Any]] = []
        fields = _other_fields(document)
        if fields or not any(entry is not None for entry in (*document["texts"], *document["images"])):
            rows.append(base | {"position": -1, "modality": "metadata"} | self._fields.cells(fields))
        images = _Images(sample, content, path, offset)
        texts, tokens = document["texts"], document["images"]
        for position in range(max(len(texts), len(tokens))):
            at = base | {"position": position}
            if position < len(texts) and texts[position] is not None:
                rows.append(at | _text_cells(texts[position]))
            if position < len(tokens) and tokens[position] is not None:
                rows.append(at | {"modality": "image"} | images.cells(tokens[position]))
        return pa.Table.from_pylist(rows, schema=self._assembled_schema)


class _Images:
    """Finds the images that the list of a document names."""

    def __init__(self, sample: TarSample, content: Content, path: str, offset: int) -> None:
        self._sample = sample
        self._content = content
        self._path = path
        self._offset = offset
        self._members = {member.name: member for member in sample.members}
        self._pages = 0

    def cells(self, token: Any) -> dict[str, Any]:
        """Cells of the image row for an entry of the list: by member name, else the next page of the only image."""
        folder = self._sample.key.rpartition("/")[0]
        for name in (str(token), f"{self._sample.key}.{token}", f"{folder}/{token}"):
            if name in self._members:
                return self._image(self._members[name], None)
        images = [member for member in self._sample.members if is_image(member.name)]
        if len(images) != 1:
            return {"materialize_error": f"no member {token!r} in the tar"}
        self._pages += 1
        return self._image(images[0], self._pages - 1)

    def _image(self, member: Member, page: int | None) -> dict[str, Any]:
        kept = member.size is not None and compression(self._path) is None
        reference = {
            "path": self._path,
            "member": member.name,
            "byte_offset": self._offset + member.offset if kept else None,
            "byte_size": member.size if kept else None,
            "frame_index": page,
        }
        # A document of many pages is one file: its bytes stay in the tar rather than in every row.
        lazy = kept and bool(page is not None)
        return {
            "content_type": mimetypes.guess_type(member.name)[0],
            "binary_content": None if lazy else self._content(member),
            "source_ref": json.dumps(reference),
        }


def _text_cells(text: Any) -> dict[str, Any]:
    said = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    return {"modality": "text", "content_type": "text/plain", "text_content": said}


def _other_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _OWN_FIELDS}


def _stored_rows(document: Mapping[str, Any]) -> pa.Table:
    """The rows that ``clipsieve`` in a document holds."""
    try:
        stream = _inflated(base64.b64decode(document["clipsieve"]["rows"], validate=True))
        rows = pa.ipc.open_stream(stream).read_all()
        rows.select(["sample_id", "modality", "text_content", "binary_content"])
    except (TypeError, KeyError, binascii.Error, zlib.error, pa.ArrowException) as failure:
        raise DocumentError(f"its field clipsieve is damaged ({failure}); remove the field") from None
    if rows.num_rows > STORED_ROWS:
        raise DocumentError(f"its field clipsieve holds more than {STORED_ROWS:,} rows; remove the field")
    return rows


def _inflated(data: bytes) -> bytes:
    """Decompresses stored rows, which hostile ones would make a thousand times larger, within a limit."""
    inflating = zlib.decompressobj()
    stream = inflating.decompress(data, STORED_BYTES + 1)
    if len(stream) > STORED_BYTES:
        raise DocumentError(f"its field clipsieve holds more than {STORED_BYTES:,} bytes; remove the field")
    if not inflating.eof:
        raise zlib.error("incomplete stream")
    return stream


def _restored(document: Mapping[str, Any], sample: TarSample, content: Content) -> pa.Table:
    """The stored rows with texts and images put back."""
    table = _stored_rows(document)
    modality = table.column("modality").to_pylist()
    content_rows = [row for row, kind in enumerate(modality) if kind in ("text", "image")]
    texts, images = document["texts"], document["images"]
    if not len(texts) == len(images) == len(content_rows):
        raise DocumentError("its field clipsieve does not go with the lists texts and images; remove the field")
    members = {member.name: member for member in sample.members}
    said, held = (table.column(name).to_pylist() for name in ("text_content", "binary_content"))
    for row, text, image in zip(content_rows, texts, images, strict=True):
        if modality[row] == "text":
            said[row] = text
        elif image is not None:
            if image not in members:
                raise DocumentError(f"no member {image!r} in the tar")
            held[row] = content(members[image])
    for name, cells in (
        ("sample_id", [document.get("sample_id")] * table.num_rows),
        ("text_content", said),
        ("binary_content", held),
    ):
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        try:
            table = table.set_column(index, field, pa.array(cells, field.type))
        except pa.ArrowException as failure:
            raise DocumentError(f"{name} is not {field.type}: {failure}") from None
    return table

"""WebDataset: rows and documents beside the members they become."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zlib

import pyarrow as pa
import pytest

from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout, add_scores, parts
from clipsieve.writers import WebDatasetWriter

CAPTIONS = Layout(kind="captions", texts=("caption",), sample_id="id")
LISTS = Layout(kind="lists", image="images", texts=("text",))
DOCUMENTS = Layout(kind="interleaved", image="binary_content", texts=("text_content",), sample_id="sample_id")


def members(data: bytes) -> dict[str, bytes]:
    """Name and bytes of each member, in order."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = [(info.name, tar.extractfile(info).read()) for info in tar]
    assert len(dict(found)) == len(found)
    return dict(found)


def samples(data: bytes) -> dict[str, dict[str, bytes]]:
    """Members grouped as WebDataset loaders do: neighbours with the same name up to the first dot of the file name."""
    grouped: dict[str, dict[str, bytes]] = {}
    last = None
    for name, content in members(data).items():
        folder, _, file = name.rpartition("/")
        stem, _, extension = file.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        assert key == last or key not in grouped
        grouped.setdefault(key, {})[extension] = content
        last = key
    return grouped


def document_rows(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=INTERLEAVED_SCHEMA)


def test_a_caption_row_is_an_image_a_text_and_the_json_of_its_columns(written, picture):
    table = pa.table({"id": [7], "image": [picture("JPEG")], "caption": ["a cat 🐈"], "license": ["cc0"]})
    assert members(written(WebDatasetWriter(), table, CAPTIONS)) == {
        "7.jpg": picture("JPEG"),
        "7.txt": "a cat 🐈".encode(),
        "7.json": '{"id": 7, "caption": "a cat 🐈", "license": "cc0"}'.encode(),
    }


def test_the_path_of_an_image_stays_in_the_json(written, picture, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(picture("PNG"))
    table = pa.table({"image": ["cat.jpg"]})
    tar = members(written(WebDatasetWriter(), table, Layout(kind="captions", root=str(tmp_path)), "00012"))
    assert tar == {"00012-000000.png": picture("PNG"), "00012-000000.json": b'{"image": "cat.jpg"}'}


@pytest.mark.parametrize(
    ("format", "extension"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("TIFF", "tif"),
        ("BMP", "bmp"),
        ("AVIF", "avif"),
    ],
)
def test_the_extension_is_what_the_bytes_are(written, picture, format, extension):
    table = pa.table({"image": [{"bytes": picture(format), "path": "cat.xyz"}]})
    tar = members(written(WebDatasetWriter(), table, Layout(kind="captions"), "0"))
    assert tar == {f"0-000000.{extension}": picture(format), "0-000000.json": b'{"image": "cat.xyz"}'}


def test_bytes_that_are_no_image_are_written_all_the_same(written):
    table = pa.table({"image": [b"not an image", b"", None]})
    assert members(written(WebDatasetWriter(), table, Layout(kind="captions"), "0")) == {
        "0-000000.jpg": b"not an image",
        "0-000000.json": b"{}",
        "0-000001.jpg": b"",
        "0-000001.json": b"{}",
        "0-000002.json": b"{}",
    }


@pytest.mark.parametrize(
    ("sample_id", "key"),
    [
        ("000123_a-b~c", "000123_a-b~c"),
        ("a/b.jpg", "a%2Fb%2Ejpg"),
        ("../../x", "%2E%2E%2F%2E%2E%2Fx"),
        ("a\0\n b", "a%00%0A%20b"),
        ("🐈", "%F0%9F%90%88"),
        ("", "00012-000000"),
        (None, "00012-000000"),
        ("x" * 300, "x" * 163 + "~" + hashlib.sha256(b"x" * 300).hexdigest()[:16]),
    ],
)
def test_an_id_becomes_a_key_that_is_safe_everywhere(written, picture, sample_id, key):
    table = pa.table({"id": pa.array([sample_id], pa.string()), "image": [picture("PNG")]})
    tar = samples(written(WebDatasetWriter(), table, Layout(kind="captions", sample_id="id"), "00012"))
    assert tar == {key: {"png": picture("PNG"), "json": json.dumps({"id": sample_id}, ensure_ascii=False).encode()}}


def test_equal_ids_do_not_merge(written, picture):
    ids = ["a", "a", "a~2", "a", "b"]
    table = pa.table({"id": ids, "image": [picture("PNG", grey) for grey in range(5)]})
    tar = samples(written(WebDatasetWriter(), table, Layout(kind="captions", sample_id="id")))
    assert [*tar] == ["a", "a~2", "a~2~2", "a~3", "b"]
    assert [sample["png"] for sample in tar.values()] == table.column("image").to_pylist()
    assert [json.loads(sample["json"])["id"] for sample in tar.values()] == ids


def test_of_several_texts_the_first_that_says_something_is_the_txt(written, picture):
    table = pa.table({"image": [picture("PNG")] * 2, "title": [" ", ""], "alt": [["a cat", "a tabby"], None]})
    tar = samples(written(WebDatasetWriter(), table, Layout(kind="captions", texts=("title", "alt")), "0"))
    assert tar == {
        "0-000000": {"png": picture("PNG"), "txt": b"a cat", "json": b'{"title": " ", "alt": ["a cat", "a tabby"]}'},
        "0-000001": {"png": picture("PNG"), "json": b'{"title": "", "alt": null}'},
    }


def test_a_list_row_numbers_its_images(written, picture, tmp_path):
    (tmp_path / "b.gif").write_bytes(picture("GIF"))
    png = {"bytes": picture("PNG"), "path": None}
    table = pa.table(
        {"images": [[png, {"bytes": None, "path": "b.gif"}], [], None, [None, png]], "text": ["x", "y", "", None]}
    )
    layout = Layout(kind="lists", image="images", texts=("text",), root=str(tmp_path))
    assert samples(written(WebDatasetWriter(), table, layout, "0")) == {
        "0-000000": {
            "0.png": picture("PNG"),
            "1.gif": picture("GIF"),
            "txt": b"x",
            "json": b'{"images": [null, "b.gif"], "text": "x"}',
        },
        "0-000001": {"txt": b"y", "json": b'{"images": [], "text": "y"}'},
        "0-000002": {"json": b'{"text": ""}'},
        "0-000003": {"1.png": picture("PNG"), "json": b'{"images": [null, null], "text": null}'},
    }


def tar_row(key: str, image: str, data: bytes, **others: bytes | None) -> dict[str, object]:
    """A pair as the WebDataset reader gives it; ``others`` are its other members by extension."""
    members = [{"name": f"{key}.{extension}", "bytes": content} for extension, content in others.items()]
    return {"__key__": key, "image": {"bytes": data, "path": image}, "caption": None, "members": members}


TAR_ROWS = pa.schema(
    [
        ("__key__", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("caption", pa.string()),
        ("members", pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.large_binary())]))),
    ]
)
FROM_TAR = Layout(kind="captions", texts=("caption",), sample_id="__key__")


def test_a_sample_from_a_tar_keeps_its_members_byte_for_byte(written, picture):
    row = tar_row(
        "part/0.1", "part/0.1.JPEG", picture("PNG"), txt=b"a \xff cat", cls=b"3", json=b'{ "b":1.0 }', link=None
    )
    tar = members(written(WebDatasetWriter(), pa.Table.from_pylist([row], schema=TAR_ROWS), FROM_TAR))
    assert tar == {
        "part/0.1.JPEG": picture("PNG"),
        "part/0.1.txt": b"a \xff cat",
        "part/0.1.cls": b"3",
        "part/0.1.json": b'{ "b":1.0 }',
    }


@pytest.mark.parametrize(
    ("key", "safe"),
    [
        ("./a/b c", "./a/b c"),
        ("../../x", "%2E%2E%2F%2E%2E%2Fx"),
        ("/etc/x", "%2Fetc%2Fx"),
        ("a/../x", "a%2F%2E%2E%2Fx"),
        ("a\nb", "a%0Ab"),
        ("a\\b", "a%5Cb"),
    ],
)
def test_a_key_from_a_tar_cannot_lead_out_of_it(written, picture, key, safe):
    table = pa.Table.from_pylist([tar_row(key, f"{key}.png", picture("PNG"), txt=b"x")], schema=TAR_ROWS)
    assert [*members(written(WebDatasetWriter(), table, FROM_TAR))] == [f"{safe}.png", f"{safe}.txt"]


def test_a_member_that_does_not_belong_to_its_key_cannot_lead_out_either(written, picture):
    table = pa.Table.from_pylist([tar_row("a", "../../x.png", picture("PNG"))], schema=TAR_ROWS)
    assert [*members(written(WebDatasetWriter(), table, FROM_TAR))] == ["a...%2F..%2Fx.png"]


def test_equal_keys_of_two_tars_do_not_merge(written, picture):
    rows = [tar_row("0", "0.png", picture("PNG", grey), json=b"{}") for grey in (1, 2)]
    tar = members(written(WebDatasetWriter(), pa.Table.from_pylist(rows, schema=TAR_ROWS), FROM_TAR))
    assert tar == {"0.png": picture("PNG", 1), "0.json": b"{}", "0~2.png": picture("PNG", 2), "0~2.json": b"{}"}


def test_scores_join_the_json_of_a_sample_from_a_tar(written, picture):
    rows = [
        tar_row(str(i), f"{i}.png", picture("PNG"), **json)
        for i, json in enumerate([{"json": b'{"a": 1}'}, {}, {"json": b"[1]"}])
    ]
    table = pa.Table.from_pylist(rows, schema=TAR_ROWS)
    scored = add_scores(table, FROM_TAR, parts(table, FROM_TAR), {"blur": pa.array([1.5, 2.5, 3.5])}, {})
    tar = samples(written(WebDatasetWriter(), scored, FROM_TAR))
    assert [sample["json"] for sample in tar.values()] == [b'{"a": 1, "blur": 1.5}', b'{"blur": 2.5}', b"[1]"]


def test_a_list_of_images_from_a_tar_keeps_those_that_are_left(written, picture):
    schema = TAR_ROWS.set(1, pa.field("image", pa.list_(TAR_ROWS.field("image").type)))
    row = tar_row("a", "", b"", txt=b"x") | {"image": [{"bytes": picture("GIF"), "path": "a.2.gif"}]}
    layout = Layout(kind="lists", image="image", texts=("caption",), sample_id="__key__")
    tar = members(written(WebDatasetWriter(), pa.Table.from_pylist([row], schema=schema), layout))
    assert tar == {"a.2.gif": picture("GIF"), "a.txt": b"x"}


def test_scores_join_the_json(written, picture):
    table = pa.table({"image": [picture("PNG")]})
    layout = Layout(kind="captions")
    scored = add_scores(table, layout, parts(table, layout), {"blur": pa.array([0.1], pa.float32())}, {})
    assert members(written(WebDatasetWriter(), scored, layout, "0"))["0-000000.json"] == b'{"blur": 0.1}'


def test_a_document_is_lists_with_gaps_and_a_member_an_image(written, picture):
    table = document_rows(
        {"sample_id": "doc/7.1", "position": -1, "modality": "metadata"},
        {"sample_id": "doc/7.1", "position": 0, "modality": "image", "binary_content": picture("JPEG")},
        {"sample_id": "doc/7.1", "position": 1, "modality": "text", "text_content": "A red star."},
        {"sample_id": "doc/7.1", "position": 2, "modality": "image", "binary_content": picture("PNG")},
        {"sample_id": None, "position": 0, "modality": "text", "text_content": ""},
        {"sample_id": "z", "position": 0, "modality": "image", "binary_content": b"?"},
    )
    table = table.append_column("url", pa.array(["http://a", None, None, None, None, None]))
    tar = written(WebDatasetWriter(), table, DOCUMENTS)
    assert [*members(tar)] == [
        "doc%2F7%2E1.json", "doc%2F7%2E1.0.jpg", "doc%2F7%2E1.2.png", "_.json", "z.json", "z.0.bin",
    ]  # fmt: skip
    first, second, third = (json.loads(sample["json"]) for sample in samples(tar).values())
    assert {name: cell for name, cell in first.items() if name != "clipsieve"} == {
        "sample_id": "doc/7.1",
        "texts": [None, "A red star.", None],
        "images": ["doc%2F7%2E1.0.jpg", None, "doc%2F7%2E1.2.png"],
        "url": "http://a",
    }
    assert (second["sample_id"], second["texts"], second["images"]) == (None, [""], [None])
    assert (third["texts"], third["images"]) == ([None], ["z.0.bin"])
    assert members(tar)["doc%2F7%2E1.0.jpg"] == picture("JPEG")


def test_an_image_that_was_not_found_leaves_a_gap_and_its_reason(written, picture, tmp_path):
    (tmp_path / "cat.png").write_bytes(picture("PNG"))
    table = document_rows(
        {"sample_id": "a", "modality": "image", "source_ref": json.dumps({"path": f"{tmp_path}/cat.png"})},
        {"sample_id": "a", "modality": "image", "source_ref": json.dumps({"path": f"{tmp_path}/dog.png"})},
        {"sample_id": "a", "modality": "image", "materialize_error": "timed out"},
    )
    tar = members(written(WebDatasetWriter(), table, DOCUMENTS))
    assert [*tar] == ["a.json", "a.0.png"]
    record = json.loads(tar["a.json"])
    assert record["images"] == ["a.0.png", None, None]
    rows = pa.ipc.open_stream(zlib.decompress(base64.b64decode(record["clipsieve"]["rows"]))).read_all()
    assert rows.schema == INTERLEAVED_SCHEMA
    assert rows.column("materialize_error").to_pylist() == [None, "missing: no such file", "timed out"]


def test_scores_of_a_document_stand_beside_its_lists(written, picture):
    table = document_rows(
        {"sample_id": "a", "position": 0, "modality": "text", "text_content": "x"},
        {"sample_id": "a", "position": 1, "modality": "image", "binary_content": picture("PNG")},
    )
    scored = add_scores(
        table, DOCUMENTS, parts(table, DOCUMENTS), {"blur": pa.array([12.5])}, {"image_text_ratio": pa.array([0.5])}
    )
    assert scored.column("blur").to_pylist() == [None, 12.5]
    record = json.loads(members(written(WebDatasetWriter(), scored, DOCUMENTS))["a.json"])
    assert (record["blur"], record["image_text_ratio"]) == ([None, 12.5], [0.5, 0.5])


def test_equal_rows_make_equal_bytes(written, picture):
    table = pa.table({"id": ["é" * 200, "b"], "image": [picture("PNG"), picture("GIF")], "caption": ["x", None]})
    one, two = (written(WebDatasetWriter(), table, CAPTIONS) for _ in range(2))
    assert one == two
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        assert {(info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in tar} == {
            (0, 0, 0, "", "", 0o644)
        }


def test_no_rows_make_an_empty_tar(written):
    table = pa.table({"image": pa.array([], pa.binary())})
    assert members(written(WebDatasetWriter(), table, Layout(kind="captions"))) == {}
    assert members(written(WebDatasetWriter(), document_rows(), DOCUMENTS)) == {}

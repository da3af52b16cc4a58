import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.core.contracts import Reader, SourceCounts
from clipsieve.errors import SourceError
from clipsieve.readers import open_source
from clipsieve.readers.tar import tar_samples

ReadAll = Callable[[Reader], tuple[pa.Table, dict[int, str]]]
Members = list[tuple[str, bytes]]


def tar_of(members: Members, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def source(folder: Path, members: Members | bytes, name: str = "rows.tar", **said: Any) -> Reader:
    (folder / name).write_bytes(members if isinstance(members, bytes) else tar_of(members))
    return open_source(f"{folder}/{name}", **said)


def keys(*names: str) -> list[tuple[str, list[str]]]:
    found = tar_samples(io.BytesIO(tar_of([(name, b"") for name in names])))
    return [(sample.key, [member.name for member in sample.members]) for sample in found]


def test_a_pair_has_its_image_its_caption_and_all_other_members(tmp_path: Path, read_all: ReadAll) -> None:
    members = [
        ("0/a.txt", b"a cat\n"), ("0/a.jpg", b"\xff\xd8"), ("0/a.json", b'{"caption": "not this"}'), ("0/a.cls", b"7"),
        ("0/b.WEBP", b"RIFF"), ("0/b.json", b'{"text": "from the JSON"}'),
        ("0/c.json", b"[]"),
    ]  # fmt: skip
    reader = source(tmp_path, members)
    table, errors = read_all(reader)
    assert table.to_pylist() == [
        {
            "__key__": "0/a", "image": {"bytes": b"\xff\xd8", "path": "0/a.jpg"}, "caption": "a cat\n",
            "members": [{"name": "0/a.txt", "bytes": b"a cat\n"},
                        {"name": "0/a.json", "bytes": b'{"caption": "not this"}'}, {"name": "0/a.cls", "bytes": b"7"}],
        },
        {
            "__key__": "0/b", "image": {"bytes": b"RIFF", "path": "0/b.WEBP"}, "caption": "from the JSON",
            "members": [{"name": "0/b.json", "bytes": b'{"text": "from the JSON"}'}],
        },
        {"__key__": "0/c", "image": None, "caption": None, "members": [{"name": "0/c.json", "bytes": b"[]"}]},
    ]  # fmt: skip
    assert errors == {}
    assert reader.count() == SourceCounts(samples=3, images=3)
    assert reader.describe() == (
        f'{tmp_path}/rows.tar: 1 file, WebDataset, captions layout, image column "image", '
        'text column "caption", id column "__key__"'
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["s.jpg", "s.txt", "t.jpg"], [("s", ["s.jpg", "s.txt"]), ("t", ["t.jpg"])]),
        (["v1.0.jpg", "v1.0.txt", "v1.1.jpg"], [("v1.0", ["v1.0.jpg", "v1.0.txt"]), ("v1.1", ["v1.1.jpg"])]),
        (["s.jpg", "s.seg.png"], [("s", ["s.jpg", "s.seg.png"])]),
        (["s.0.jpg", "s.1.jpg", "s.json"], [("s", ["s.0.jpg", "s.1.jpg", "s.json"])]),
        (["a.b/s.jpg", "a.b/t.jpg"], [("a.b/s", ["a.b/s.jpg"]), ("a.b/t", ["a.b/t.jpg"])]),
        (["s.jpg", "s.txt", "s.jpg", "s.txt"], [("s", ["s.jpg", "s.txt"]), ("s", ["s.jpg", "s.txt"])]),
        (["README", "s.jpg", ".hidden"], [("README", ["README"]), ("s", ["s.jpg"]), (".hidden", [".hidden"])]),
        (["s.jpg", "t.jpg", "s.txt"], [("s", ["s.jpg"]), ("t", ["t.jpg"]), ("s", ["s.txt"])]),
    ],
)
def test_members_make_samples_by_key(names: list[str], expected: list[tuple[str, list[str]]]) -> None:
    assert keys(*names) == expected


def test_several_images_are_a_list_when_said_else_the_plainly_named_one_counts(
    tmp_path: Path, read_all: ReadAll
) -> None:
    members = [("k.left.png", b"L"), ("k.jpg", b"M"), ("k.right.png", b"R"), ("k.txt", b"x"), ("l.json", b"{}")]
    table, _ = read_all(source(tmp_path, members))
    assert table.column("image").to_pylist() == [{"bytes": b"M", "path": "k.jpg"}, None]
    assert [member["name"] for member in table.column("members")[0].as_py()] == ["k.left.png", "k.right.png", "k.txt"]
    listed = source(tmp_path, members, layout="lists")
    images = read_all(listed)[0].column("image").to_pylist()
    assert [[image["bytes"] for image in row] for row in images] == [[b"M", b"L", b"R"], []]
    assert listed.count() == SourceCounts(samples=2, images=3)


def test_a_truncated_tar_keeps_the_samples_before_the_break(
    tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None]
) -> None:
    members = [(f"{n}.{kind}", bytes([n]) * 700) for n in range(4) for kind in ("jpg", "bin")]
    whole = tar_of(members)
    # A member takes 512 + 1024 bytes. The cuts: within 3.bin, within the header of 3.bin, within 2.jpg, behind 2.bin.
    for cut, rows, failed in [(11_500, 4, True), (10_900, 4, True), (6_700, 3, True), (9_216, 3, False)]:
        reader = source(tmp_path, whole[:cut], shard_rows=2)
        table, errors = read_all(reader)
        assert table.column("__key__").to_pylist() == [str(n) for n in range(rows)], cut
        assert list(errors) == ([rows - 1] if failed else []), cut
        assert all("the tar is cut or damaged here" in error for error in errors.values())
        check_promises(reader)


def test_a_damaged_header_does_not_end_a_tar_in_silence(tmp_path: Path, read_all: ReadAll) -> None:
    data = bytearray(tar_of([(f"{n}.jpg", b"x") for n in range(5)]))
    data[3 * 1024 + 148 : 3 * 1024 + 156] = b"nonsense"
    table, errors = read_all(source(tmp_path, bytes(data), shard_rows=1))
    assert table.column("__key__").to_pylist() == ["0", "1", "2"]
    assert errors == {2: "the tar is cut or damaged here: no valid header"}


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"rows\.tar: not a tar \(.*\); fetch or write it again"):
        source(tmp_path, content).shards()


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    reader = source(tmp_path, [])
    assert (reader.shards(), reader.count()) == ((), SourceCounts(samples=0, images=0))


def test_names_that_lead_elsewhere_links_and_devices_are_only_text(tmp_path: Path, read_all: ReadAll) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name, kind in [
            ("../../x.jpg", tarfile.REGTYPE), ("folder", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE), ("caf\xe9.jpg", tarfile.REGTYPE),
        ]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            tar.addfile(info)
    table, errors = read_all(source(tmp_path, buffer.getvalue()))
    assert table.column("__key__").to_pylist() == ["../../x", "link", "pipe", "caf\\xe9"]
    assert [image and image["bytes"] for image in table.column("image").to_pylist()] == [b"", None, None, b""]
    assert errors == {}
    assert not list(tmp_path.parent.glob("x.jpg"))


@pytest.mark.parametrize(
    ("member", "error"),
    [
        (("1.txt", b"\xff\xfe"), "caption 1.txt: not UTF-8"),
        (("1.json", b'{"caption": '), "malformed JSON in 1.json: Expecting value"),
        (("1.json", b'{"caption": "\\ud800"}'), "caption 1.json: not UTF-8"),
    ],
)
def test_a_caption_that_cannot_be_read_makes_its_row_an_error(
    tmp_path: Path, member: tuple[str, bytes], error: str, read_all: ReadAll
) -> None:
    table, errors = read_all(source(tmp_path, [("0.jpg", b"x"), ("1.jpg", b"y"), member, ("2.jpg", b"z")]))
    assert table.column("__key__").to_pylist() == ["0", "1", "2"]
    assert table.column("image").to_pylist()[1] is None
    assert list(errors) == [1]
    assert errors[1].startswith(error)


NAMES = st.text(st.sampled_from("ab./é"), min_size=1, max_size=130)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    stems=st.lists(NAMES, max_size=12),
    sizes=st.lists(st.integers(0, 1500), min_size=12, max_size=12),
    format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    shard_rows=st.integers(1, 6),
    zipped=st.booleans(),
    cut=st.integers(0, 3000),
)
def test_shards_are_the_source(
    stems: list[str], sizes: list[int], format: int, shard_rows: int, zipped: bool, cut: int, tmp_path: Path,
    read_all: ReadAll, check_promises: Callable[[Reader], None],
) -> None:  # fmt: skip
    members = [
        (f"{stem}.{kind}", bytes(size)) for stem, size in zip(stems, sizes, strict=False) for kind in ("jpg", "x")
    ]
    data = tar_of(members, format)
    whole = list(tar_samples(io.BytesIO(data)))
    assert [(member.name, member.size) for sample in whole for member in sample.members] == [
        (name.rstrip("/"), len(content)) for name, content in members
    ]
    data = data[: max(2048, len(data) - cut)]
    reader = source(
        tmp_path, gzip.compress(data) if zipped else data, f"rows.tar{'.gz' * zipped}", shard_rows=shard_rows
    )
    check_promises(reader)
    table, _ = read_all(reader)
    assert table.num_rows <= len(whole)
    if cut == 0:
        assert table.num_rows == len(whole)

"""A store for each test: a server of its process, and a bucket of its own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.core import storage
from tests.fakes import image_bytes
from tests.storage.server import Server, serving

_BUCKETS = count()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module says in ``STORES`` which it is to be tried against, a test by its own mark; else it is S3."""
    marked = any(mark.args[0] == "server" for mark in metafunc.definition.iter_markers("parametrize"))
    if "server" in metafunc.fixturenames and hasattr(metafunc.module, "STORES") and not marked:
        metafunc.parametrize("server", metafunc.module.STORES, indirect=True, scope="session")


@pytest.fixture(scope="session", name="server")
def server_fixture(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(getattr(request, "param", "s3")) as store:
        yield store


@pytest.fixture(name="store")
def store_fixture(server: Server) -> Iterator[Server]:
    """The server without faults, and with its options in force."""
    server.faults.clear()
    with storage.configured(server.options):
        yield server
    server.faults.clear()


@pytest.fixture(name="bucket")
def bucket_fixture(store: Server) -> str:
    """The URL of an empty bucket."""
    name = f"bucket{next(_BUCKETS)}"
    fsspec.filesystem(store.protocol).mkdir(name)
    store.asked.clear()
    return f"{store.protocol}://{name}"


def images(number: int) -> list[bytes]:
    """Images of which some are blurred and one is broken."""
    found = [image_bytes("red" if i % 3 else "blue", (30 + i, 40), sharp=i % 5 != 3, seed=i) for i in range(number)]
    found[1] = found[1][:50]
    return found


def put(folder: Path, to: str) -> None:
    """Copies a folder of this machine into the store."""
    files, root = fsspec.core.url_to_fs(to)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())
    files.invalidate_cache()


def write_source(folder: Path, root: str, number: int = 12) -> None:
    """The same images in every form that a source may have; ``root`` is where paths in them lead."""
    folder.mkdir(parents=True, exist_ok=True)
    found, captions = images(number), ["a red thing"] * number
    names = [f"i{n:02d}.png" for n in range(number)]
    for part, some in enumerate((range(number // 2), range(number // 2, number))):
        rows = {
            "id": [f"s{n}" for n in some],
            "image": [found[n] for n in some],
            "caption": [captions[n] for n in some],
        }
        pq.write_table(pa.table(rows), folder / f"rows{part}.parquet")
    with tarfile.open(folder / "pairs.tar", "w") as tar:
        for name, data, caption in zip(names, found, captions, strict=True):
            _add(tar, name, data)
            _add(tar, name.replace(".png", ".txt"), caption.encode())
    lines = [
        f'{{"image": "{root}/{name}", "caption": "{caption}"}}\n' for name, caption in zip(names, captions, strict=True)
    ]
    (folder / "paths.jsonl").write_text("".join(lines))
    for name, data in zip(names, found, strict=True):
        (folder / name).write_bytes(data)
    _write_documents(folder, root, found)


def _write_documents(folder: Path, root: str, found: list[bytes]) -> None:
    """A document an image, whose bytes are a range of one file."""
    (folder / "all.bin").write_bytes(b"".join(found))
    rows, offset = [], 0
    for number, data in enumerate(found):
        place = f'{{"path": "{root}/all.bin", "byte_offset": {offset}, "byte_size": {len(data)}}}'
        rows.append({"sample_id": f"d{number}", "position": 0, "modality": "text", "text_content": "a red thing"})
        rows.append({"sample_id": f"d{number}", "position": 1, "modality": "image", "source_ref": place})
        offset += len(data)
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(_COLUMNS), **row} for row in rows], _SCHEMA), folder / "docs.parquet"
    )


_SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("position", pa.int32()), ("modality", pa.string()), ("text_content", pa.string()),
     ("source_ref", pa.string())]
)  # fmt: skip
_COLUMNS = _SCHEMA.names


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))

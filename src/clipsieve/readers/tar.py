"""Finds the samples of a WebDataset tar: adjacent members that share a key, by where they are.

The key of a member is its path up to the last dot, so that keys may hold dots. Where adjacent members share their
path up to the first dot of the file's name and one of them has no further dot (``s.jpg`` beside ``s.seg.png``),
WebDataset's own convention is meant: they are one sample. A name that comes again begins a new sample. Bytes of
names that are no UTF-8 are spelled ``\\xff``.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

_BLOCK = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A member: where its headers begin, and its content. A link or device has no content (``size`` None)."""

    name: str
    start: int
    offset: int
    size: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSample:
    """Members of one key in the bytes ``[start, stop)``; ``error`` says why the tar breaks off within them."""

    key: str
    members: tuple[Member, ...]
    start: int
    stop: int
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Break:
    """Where and why a tar breaks off, or ends."""

    at: int
    error: str | None = None


def tar_samples(file: BinaryIO) -> Iterator[TarSample]:
    """The samples of a tar, or of a stretch of one that begins at a sample, in order.

    The sample within which the tar breaks off has an ``error`` and reaches to the end of the file. Raises
    ``tarfile.TarError`` when the file is no tar at all. A tar may lack its end mark, as with GNU tar.
    """
    waiting: list[tuple[str, list[Member]]] = []
    run: list[Member] = []
    for found in _members(file):
        if isinstance(found, Member) and (not run or _first_dot_key(found.name) == _first_dot_key(run[0].name)):
            run.append(found)
            continue
        waiting += _split(run)
        if isinstance(found, _Break):
            yield from _closed(waiting, found)
            return
        # The last one waits: only the next member tells whether the tar breaks off within it.
        yield from _closed(waiting[:-1], _Break(at=waiting[-1][1][0].start))
        waiting, run = waiting[-1:], [found]


def _closed(samples: Sequence[tuple[str, Sequence[Member]]], end: _Break) -> Iterator[TarSample]:
    if not samples:
        return
    stops = [members[0].start for _, members in samples[1:]] + [end.at]
    for number, ((key, members), stop) in enumerate(zip(samples, stops, strict=True), start=1):
        error = end.error if number == len(samples) else None
        yield TarSample(key=key, members=tuple(members), start=members[0].start, stop=stop, error=error)


def _split(run: Sequence[Member]) -> Iterator[tuple[str, list[Member]]]:
    """Samples among members with one path up to the first dot."""
    if any(_first_dot_key(member.name) == _last_dot_key(member.name) for member in run):
        groups = [(_first_dot_key(run[0].name), list(run))]
    else:
        groups = [(key, list(members)) for key, members in groupby(run, lambda member: _last_dot_key(member.name))]
    for key, members in groups:
        sample: dict[str, Member] = {}
        for member in members:
            if member.name in sample:
                yield key, list(sample.values())
                sample = {}
            sample[member.name] = member
        yield key, list(sample.values())


def _first_dot_key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base[:1] + base[1:].partition(".")[0]


def _last_dot_key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    stem, dot, _ = base[1:].rpartition(".")
    return folder + slash + (base[:1] + stem if dot else base)


def _members(file: BinaryIO) -> Iterator[Member | _Break]:
    """Every member that is no folder, and how the tar ends."""
    with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as tar:
        try:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or the list of a large tar stays in memory
                if not info.isdir():
                    whole = info.isreg() and not info.issparse()
                    size = info.size if whole else None
                    yield Member(name=info.name, start=info.offset, offset=info.offset_data, size=size)
        except tarfile.TarError as failure:
            yield _Break(at=file.seek(0, os.SEEK_END), error=f"the tar is cut or damaged here: {failure}")
            return
        # A header that is damaged or cut looks like the end to tarfile; the true end is zeros or nothing.
        file.seek(tar.offset)
        if file.read(_BLOCK).strip(b"\0"):
            yield _Break(at=file.seek(0, os.SEEK_END), error="the tar is cut or damaged here: no valid header")
        else:
            yield _Break(at=tar.offset)

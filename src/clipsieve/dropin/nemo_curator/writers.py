"""Writers: where documents go, in the words of a recipe's ``write``; what cannot be is refused at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from clipsieve.core.decide import OnError
from clipsieve.dropin.nemo_curator.checks import FLAG, PATH, TEXT, check, one_of
from clipsieve.dropin.nemo_curator.stages import ProcessingStage
from clipsieve.errors import UsageError

Mode = Literal["ignore", "overwrite", "append", "error"]
MODES: tuple[Mode, ...] = ("ignore", "overwrite", "append", "error")

ON_MATERIALIZE_ERROR: Mapping[str, OnError] = {
    "error": "stop",
    "warn": "keep",
    "drop_row": "drop",
    "drop_sample": "drop-sample",
}
"""Policies for images that cannot be read, and what they are in a recipe."""


@dataclass
class InterleavedWriter(ProcessingStage):
    """What both writers share.

    ``path`` (also ``output_dir``) is a local folder. ``mode`` says what happens to what is there: ``ignore`` writes
    beside it, and replaces what the same pipeline wrote from the same source; ``overwrite`` first removes what earlier
    runs wrote there, and refuses a folder with other Parquet files or tars; ``append`` replaces nothing; ``error``
    raises ``FileExistsError`` when the folder is there. ``on_materialize_error`` says what happens to images that
    cannot be read where no filter has looked at them.
    """

    path: str | None = None
    materialize_on_write: bool = True
    name: str = "interleaved_writer"
    mode: Mode = "ignore"
    on_materialize_error: str = "error"
    output_dir: str | None = None
    format: ClassVar[str]
    suffix: ClassVar[str]

    @property
    def folder(self) -> Path:
        """The output folder, absolute."""
        return Path(os.path.abspath(os.path.expanduser(str(self.path).removeprefix("file://"))))

    def check_mode(self) -> None:
        """Raises ``FileExistsError`` when the folder must not be there and is."""
        if self.mode == "error" and self.folder.exists():
            raise FileExistsError(f"{self.name}: {self.folder} already exists; choose another folder or mode")

    def __post_init__(self) -> None:
        check(self, name=TEXT, path=PATH.or_none, output_dir=PATH.or_none, materialize_on_write=FLAG)
        check(self, mode=one_of(*MODES), on_materialize_error=one_of(*ON_MATERIALIZE_ERROR))
        if self.path is not None and self.output_dir is not None and self.path != self.output_dir:
            raise UsageError(f"{self.name}: path and output_dir are the same thing; give one")
        self.path = self.output_dir = self.path or self.output_dir
        if not self.path:
            raise UsageError(f"{self.name}: say where to write with path (or output_dir)")
        if "://" in str(self.path) and not str(self.path).startswith("file://"):
            raise UsageError(f"{self.name}: {self.path} is not on this machine; write to a folder and upload it")
        self.check_mode()


@dataclass
class InterleavedParquetWriterStage(InterleavedWriter):
    """Writes the rows as Parquet, with the bytes of images in ``binary_content`` (``materialize_on_write``)."""

    name: str = "interleaved_parquet_writer"
    format: ClassVar[str] = "parquet"
    suffix: ClassVar[str] = ".parquet"


@dataclass
class InterleavedWebdatasetWriterStage(InterleavedWriter):
    """Writes documents as MINT-1T style tars; a tar always holds the bytes of its images."""

    name: str = "interleaved_webdataset_writer"
    format: ClassVar[str] = "webdataset"
    suffix: ClassVar[str] = ".tar"

"""DataFlow's storage: a table in a file, and the file of the next step after each operator.

``FileStorage`` reads and writes JSON, JSON lines, CSV and Parquet as DataFrames, integers with all their digits. A file
appears under its name only when whole.
"""

from __future__ import annotations

import copy
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsieve.dropin.dataflow.csvtext import read_columns
from clipsieve.dropin.dataflow.jsontext import json_rows, read_objects, unwritable
from clipsieve.runfolder import atomic

try:
    import pandas as pd
except ImportError:
    raise ImportError("clipsieve.dropin.dataflow needs pandas: pip install 'clipsieve[dropin]'") from None

CacheType: TypeAlias = Literal["json", "jsonl", "csv", "parquet"]

_LARGEST_IN_FLOATS = 2**53
"""Of larger integers float64 holds only some."""

_TYPES = "json, jsonl, csv or parquet"
_PICKLE = (
    "pickle is not read or written, since opening one can run any code that is in it; use parquet "
    "(to convert one that you trust: pandas.read_pickle(FILE).to_parquet(NEW))"
)

log = logging.getLogger("clipsieve")


class DataFlowStorage(ABC):
    """Where an operator reads its table and writes what it leaves of it.

    A storage of your own need not derive from this: the filters call ``read`` and ``write``, a pipeline ``step``.
    """

    @abstractmethod
    def read(self, output_type: Any = "dataframe") -> Any:
        """The table of this step, as ``dataframe`` or ``dict`` (a list of one mapping a row)."""

    @abstractmethod
    def write(self, data: Any) -> Any:
        """Keeps a DataFrame, or a list of mappings, as the table of the next step."""

    @abstractmethod
    def step(self) -> Any:
        """The storage one step further, to hand to an operator."""

    def get_keys_from_dataframe(self) -> list[str]:
        """The names of the columns."""
        return list(self.read("dataframe").columns)


class FileStorage(DataFlowStorage):
    """A file for each step: step 0 reads ``first_entry_file_name``, step k reads ``PREFIX_stepK.TYPE`` in
    ``cache_path``, and an operator at step k writes that of step k + 1.

    The first entry is a path (its suffix says what it is), ``hf:NAME``, ``hf:NAME:SPLIT`` or ``hf:NAME:CONFIG:SPLIT``
    for a data set on the Hugging Face hub (split ``train`` when it is not said), or empty for an empty table.
    """

    def __init__(
        self,
        first_entry_file_name: str,
        cache_path: str = "./cache",
        file_name_prefix: str = "dataflow_cache",
        cache_type: CacheType = "jsonl",
    ) -> None:
        """Raises ``ValueError`` for a ``cache_type`` that is none of json, jsonl, csv and parquet."""
        _check_type(str(cache_type), f"cache_type {cache_type!r}")
        self.first_entry_file_name = os.fspath(first_entry_file_name)
        self.cache_path = os.fspath(cache_path)
        self.file_name_prefix = file_name_prefix
        self.cache_type = cache_type
        self.operator_step = -1

    def step(self) -> FileStorage:
        """Advances, and returns a copy that stays at the step reached: each operator holds its own."""
        self.operator_step += 1
        return copy.copy(self)

    def reset(self) -> FileStorage:
        """Goes back to before the first step, and returns the storage itself."""
        self.operator_step = -1
        return self

    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> Any:
        """The table of this step as a DataFrame, or as a list of a dict a row.

        Raises ``FileNotFoundError`` when its file is not there, ``ValueError`` for one that cannot be read.
        """
        if output_type not in ("dataframe", "dict"):
            raise ValueError(f"output_type is 'dataframe' or 'dict', not {output_type!r}")
        frame = self._read()
        return frame if output_type == "dataframe" else frame.to_dict("records")

    def write(self, data: Any) -> str:
        """Writes a DataFrame or a list of dicts as the table of the next step, and returns the path.

        Raises ``ValueError`` for other data and for cells that ``cache_type`` cannot hold, ``OutputError`` when the
        disk does not take it.
        """
        if isinstance(data, list):
            wrong = next((row for row in data if not isinstance(row, dict)), None)
            if wrong is not None:
                raise ValueError(f"write takes a DataFrame or a list of dicts, not a list with {type(wrong).__name__}")
            data = framed(data)
        elif not isinstance(data, pd.DataFrame):
            raise ValueError(f"write takes a DataFrame or a list of dicts, not {type(data).__name__}")
        path = self._file(self._stepped() + 1)
        check_names(data.columns)
        with atomic(Path(path)) as file:
            _WRITERS[self.cache_type](data, file)
        log.info("wrote %d rows to %s", len(data), path)
        return path

    def _read(self) -> pd.DataFrame:
        if self._stepped() > 0:
            return _read_file(self._file(self.operator_step))
        source = self.first_entry_file_name
        if source == "":
            return pd.DataFrame()
        if source.startswith("hf:"):
            return _read_hub(source)
        if source.startswith("ms:"):
            raise ValueError(f"{source}: ModelScope is not read; download the data set and give the path of its file")
        return _read_file(source)

    def _stepped(self) -> int:
        if self.operator_step < 0:
            raise ValueError("call storage.step() before reading or writing, as in run(storage=storage.step())")
        return self.operator_step

    def _file(self, step: int) -> str:
        return os.path.join(self.cache_path, f"{self.file_name_prefix}_step{step}.{self.cache_type}")


def _check_type(kind: str, told: str) -> None:
    if kind in ("pkl", "pickle"):
        raise ValueError(f"{told}: {_PICKLE}")
    if kind not in _WRITERS:
        raise ValueError(f"{told}: not a type that is known; use {_TYPES}")


def _read_file(path: str) -> pd.DataFrame:
    kind = Path(path).suffix.lower().removeprefix(".")
    _check_type(kind, path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is not there; check the path, or whether the step before has written")
    try:
        return _READERS[kind](path)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as failure:
        reason = getattr(failure, "strerror", None) or " ".join(str(failure).split())
        raise ValueError(f"{path} cannot be read as {kind}: {reason}") from None


def _read_json(path: str) -> pd.DataFrame:
    return framed(read_objects(path))


def _read_csv(path: str) -> pd.DataFrame:
    return framed(read_columns(path))


def _read_parquet(path: str) -> pd.DataFrame:
    with open(path, "rb") as file:  # by its name Arrow may take it for a URL
        return _typed(pq.read_table(file).to_pandas(integer_object_nulls=True))


_READERS: Mapping[str, Callable[[str], pd.DataFrame]] = {
    "json": _read_json, "jsonl": _read_json, "csv": _read_csv, "parquet": _read_parquet
}  # fmt: skip


def framed(rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Rows, or columns, as a DataFrame that holds every value as it is; a cell that a row lacks is missing."""
    return _typed(pd.DataFrame(rows, dtype=object))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with a type for each column of objects of one kind."""
    check_names(frame.columns)
    for name, kind in frame.dtypes.items():
        if kind.name == "object":
            frame[name] = _typed_column(frame[name])
    return frame


def _typed_column(column: pd.Series) -> pd.Series:
    present = column[column.notna()]
    kinds = {_kind(cell) for cell in present}
    if kinds == {int} and len(present) < len(column):  # pandas makes fractions of them
        try:
            return column.astype("Int64")
        except OverflowError:
            return column
    if kinds == {int, float} and any(_kind(cell) is int and abs(cell) > _LARGEST_IN_FLOATS for cell in present):
        return column
    return column.infer_objects()


def _kind(cell: Any) -> type:
    if isinstance(cell, (int, np.integer)) and not isinstance(cell, bool):
        return int
    return float if isinstance(cell, (float, np.floating)) else type(cell)


def check_names(names: Sequence[Any]) -> None:
    """Raises ``ValueError`` when two columns of a table have one name."""
    said = [str(name) for name in names]
    twice = next((name for name in said if said.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns of the table have the name {twice!r}; rename one")


def _read_hub(source: str) -> pd.DataFrame:
    _, name, *parts = source.split(":")
    if not name or len(parts) > 2:
        raise ValueError(f"{source}: a data set on the hub reads hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
    try:
        from datasets import load_dataset
    except ImportError:
        raise ImportError(f"{source} needs datasets: pip install 'clipsieve[dropin]'") from None
    split = parts[-1] if parts else "train"
    config = parts[0] if len(parts) == 2 else None
    frame: pd.DataFrame = load_dataset(name, config, split=split).to_pandas()
    return frame


@contextmanager
def _text(file: BinaryIO) -> Iterator[TextIO]:
    text = TextIOWrapper(file, encoding="utf-8", errors="replace", newline="\n")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


def _write_jsonl(frame: pd.DataFrame, file: BinaryIO) -> None:
    with _text(file) as text:
        text.writelines(f"{row}\n" for row in json_rows(frame))


def _write_json(frame: pd.DataFrame, file: BinaryIO) -> None:
    with _text(file) as text:
        text.write("[")
        text.writelines(f"{',' if number else ''}\n{row}" for number, row in enumerate(json_rows(frame)))
        text.write("\n]\n")


def _write_csv(frame: pd.DataFrame, file: BinaryIO) -> None:
    for name in frame.columns:
        for cell in frame[name] if frame[name].dtype == object else ():
            for part in cell.values() if isinstance(cell, dict) else (cell,):
                if isinstance(part, bytes | Image.Image):
                    raise ValueError(unwritable(part))
    with _text(file) as text:
        frame.to_csv(text, index=False)


def _write_parquet(frame: pd.DataFrame, file: BinaryIO) -> None:
    try:
        frame.to_parquet(file, index=False)
    except (pa.ArrowException, OverflowError, TypeError) as failure:
        raise ValueError(f"parquet cannot hold this table: {' '.join(str(failure).split())}") from None


_WRITERS: Mapping[str, Callable[[pd.DataFrame, BinaryIO], None]] = {
    "json": _write_json, "jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet
}  # fmt: skip

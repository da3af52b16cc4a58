"""The flags that several verbs share, each with one help text."""

from __future__ import annotations

from typing import Annotated

import typer


def lasting(place: str | None) -> str | None:
    """A place that is still there when the command has ended."""
    if place is not None and place.lower().startswith("memory://"):
        raise typer.BadParameter(
            f"{place} is gone when the command ends; give a folder, or a bucket such as s3://bucket/run"
        )
    return place


def lasting_output(write: str | None) -> str | None:
    """The same of FORMAT:FOLDER."""
    lasting((write or "").partition(":")[2])
    return write


Out = Annotated[
    str, typer.Option("--out", metavar="RUN", help="Run folder; the same command resumes it.", callback=lasting)
]
Model = Annotated[str | None, typer.Option(help="Model: a hub id, a folder, or 'demo'.")]
Layout = Annotated[str | None, typer.Option(help="captions, lists or interleaved; inferred by default.")]
Format = Annotated[str | None, typer.Option(help="jsonl, csv, parquet, webdataset or folder; inferred by default.")]
Image = Annotated[str | None, typer.Option("--image", metavar="COLUMN", help="Column of the image or images.")]
Text = Annotated[list[str] | None, typer.Option("--text", metavar="COLUMN", help="Column of a text; repeatable.")]
Id = Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="Column of the sample id.")]
Root = Annotated[str | None, typer.Option(help="Folder of relative image paths, if not that of their file.")]
Dedup = Annotated[
    str | None, typer.Option("--dedup", metavar="COSINE", help="Drop near duplicates: 0.9; or exact, perceptual.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images or texts per forward pass.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads for images; default: all cores.")]
Engine = Annotated[str | None, typer.Option(metavar="local|ray", help="This machine (default), or a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT|ray://HOST:PORT", help="The cluster; default: RAY_ADDRESS, else one started here."
    ),
]
Encoders = Annotated[
    str | None,
    typer.Option(
        metavar="N|MIN-MAX", help="Copies of the model; default: as many as the GPUs hold, else one per node."
    ),
]
EncoderGpus = Annotated[
    float | None, typer.Option("--encoder-gpus", min=0, help="GPUs per copy: 0.5 puts two on one, 0 uses the CPU.")
]
OnError = Annotated[str | None, typer.Option(help="What a broken image does: drop, drop-sample, keep or stop.")]
LongText = Annotated[str | None, typer.Option(help="truncate, chunk-max, chunk-mean or error.")]
Vectors = Annotated[bool, typer.Option("--vectors", help="Keep the vectors in the run folder.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first samples.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def read_values(
    path: list[str], *, format: str | None, layout: str | None, image: str | None, text: list[str] | None,
    id: str | None, root: str | None,
) -> dict[str, object]:  # fmt: skip
    """The ``read`` section of a recipe from flags."""
    columns = {"image": image, "text": text, "id": id}
    values = {
        "path": path, "format": format, "layout": layout, "root": root,
        "columns": {key: value for key, value in columns.items() if value},
    }  # fmt: skip
    return {key: value for key, value in values.items() if value}

"""``clipsieve doctor``: what is installed, what can be reached, and a timed self-test."""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path

import typer

from clipsieve.cli import options as o
from clipsieve.core.threads import cores


def doctor(model: o.Model = None, device: o.Device = "auto", json: o.Json = False) -> None:
    """Print versions and devices, try the model, and time a small curation."""
    import json as json_module

    from clipsieve import api, encoders
    from clipsieve import demo as data
    from clipsieve.cli.terminal import out
    from clipsieve.errors import ModelError
    from clipsieve.recipe import DEFAULT_MODEL, Recipe

    facts: dict[str, str] = {**api.versions(), "platform": platform.platform(), "cores": str(cores())}
    facts["devices"] = ", ".join(encoders.devices())
    facts["ray"] = api.installed("ray") or "not installed (pip install 'clipsieve[ray]' to run on a cluster)"
    name = model or DEFAULT_MODEL
    try:
        began = time.monotonic()
        encoder = encoders.load(name, device=device)
        facts["model"] = f"{name}: loaded in {time.monotonic() - began:.1f} s, {encoder.dim} dimensions"
        failed = False
    except ModelError as failure:
        facts["model"] = str(failure)
        failed = model is not None
    with tempfile.TemporaryDirectory(prefix="clipsieve-doctor-") as folder:
        data.generate(Path(folder), seed=1, documents=40, pairs=1)
        recipe = Recipe.build(
            {
                "read": f"{folder}/documents.parquet",
                "model": "demo",
                "keep": list(data.KEEP_DOCUMENTS),
                "write": "webdataset",
                "device": device,
            }
        )
        done = api.execute(recipe, Path(folder) / "run", api.Silent())
        images, seconds = done.counts.images.total, done.summary["scoring_seconds"]
    facts["self-test"] = (
        f"ok: {images} images in {seconds:.2f} s with the demo model ({images / seconds:,.0f} a second)"
    )
    if json:
        out.print_json(json_module.dumps(facts))
    else:
        for key, value in facts.items():
            out.print(f"{key:<24}{value}", markup=False)
    if failed:
        raise typer.Exit(1)

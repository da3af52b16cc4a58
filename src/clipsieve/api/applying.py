"""Other rules for a finished run: a new run from its scores and its source, without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clipsieve.api.added import ledger_part
from clipsieve.api.execution import Known, execute, load_encoder
from clipsieve.api.labels import encoder_of
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run
from clipsieve.api.tuning import Tuning
from clipsieve.core import storage
from clipsieve.core.replay import KEPT
from clipsieve.engines.prior import Prior
from clipsieve.errors import RunFolderError
from clipsieve.plan import Plan, make_plan
from clipsieve.runfolder import RunFolder


def apply_run(
    run: Run | str | Path,
    keep: Sequence[Any] | str | None = None,
    *,
    dedup: Any = None,
    write: Any = None,
    out: str | Path | None = None,
    fill: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Selects anew from a finished run: a new one at ``out`` (``RUN-apply`` when not said) with the rules ``keep``.

    Its verdicts and its output are those of a fresh run with these rules. All scores are taken over, and no image is
    decoded; those that are written are read again. Where the run's early exit left out scores that the rules need, it
    is refused with the number of images, or, with ``fill``, those are computed, and what further rules need of these
    images. ``keep``, ``dedup`` and ``write`` are as in a recipe, and those of the run when not said (``write`` in the
    same format, into the new run folder).

    Raises ``RuleError`` or ``RecipeError`` for a wrong request, ``RunFolderError`` for a run that is not finished,
    lacks scores, or whose source has changed.
    """
    old = run if isinstance(run, Run) else Run.open(run)
    out = storage.place(f"{old.path}-apply" if out is None else out)
    if out.resolve() == old.path.resolve():
        raise RunFolderError(f"{out} is the run itself; give another --out")
    tuning = Tuning(old)
    changes = {} if keep is None else {"keep": keep}
    recipe = tuning.altered(write, **changes, **({} if dedup is None else {"dedup": dedup}))
    plan = make_plan(recipe, old.executed["layout"])
    tuning.check_given(plan)
    lacking = _lacking(tuning, plan)
    if lacking:
        _check_fillable(old, plan, lacking, fill)
    fingerprint = old.executed["encoder"]
    encoder = None
    if lacking and plan.needs_encoder:
        encoder = encoder_of(old) if fingerprint else load_encoder(recipe)
    known = Known(
        path=old.path,
        prior=lambda shard: _prior(old, shard),
        encoder=encoder,
        fingerprint=encoder.fingerprint if encoder else fingerprint,
    )
    return execute(recipe, out, progress or Silent(), known=known)


def _prior(run: Run, shard: int) -> Prior:
    folder = RunFolder(run.path)
    of: tuple[Literal["image"], Literal["text"]] = ("image", "text")
    image, text = (run.vectors(shard, one) if storage.exists(folder.vectors(shard, one)) else None for one in of)
    return Prior(table=ledger_part(folder, shard), images=image, texts=text)


def _lacking(tuning: Tuning, plan: Plan) -> Mapping[str, int]:
    """How many images lack what a run of ``plan`` would have of them, by name."""
    decision = tuning.decided(plan)
    lacking = dict(decision.lacking)
    kept = np.flatnonzero(tuning.replay.is_image & ~tuning.replay.exempt & (decision.out_by == KEPT))
    for scorer in plan.scorers:
        for name in scorer.columns if scorer.reads != "rows" else ():
            known = tuning.replay.computed(name)
            lacking[name] = lacking.get(name, 0) + int((~known[kept]).sum())
    if plan.keeps_vectors:
        lacking["vectors"] = int(np.isnan(_first_coordinates(tuning)[kept]).sum())
    return {name: images for name, images in lacking.items() if images}


def _first_coordinates(tuning: Tuning) -> npt.NDArray[np.float32]:
    """The first number of each ledger row's image vector, NaN where there is none."""
    folder = RunFolder(tuning.run.path)
    if not storage.exists(folder.vectors(0, "image")):
        return np.full(tuning.replay.rows, np.nan, dtype=np.float32)
    return np.concatenate([tuning.run.vectors(shard.number)[:, 0] for shard in tuning.run.shards()])


def _check_fillable(run: Run, plan: Plan, lacking: Mapping[str, int], fill: bool) -> None:
    """Raises ``RunFolderError`` when what is lacking is not to be computed, or cannot be."""
    told = ", ".join(f"{name} of {images:,}" for name, images in lacking.items())
    told += " image" + "s" * (max(lacking.values()) != 1)
    if never := [name for name in plan.given if name in lacking]:
        raise RunFolderError(
            f"{run.path} lacks {told}, and {never[0]} is only of those that were embedded: run with --score-all "
            "--vectors, then `clipsieve add-score`"
        )
    if not fill:
        raise RunFolderError(
            f"{run.path} lacks {told}, which its early exit or its recipe left out; --fill computes those, and what "
            "further rules need of them"
        )

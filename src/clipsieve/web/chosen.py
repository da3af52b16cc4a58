"""The chosen rules as a recipe and as a command, to be copied."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from clipsieve.api.runs import Run
from clipsieve.core.text import printable, without_password
from clipsieve.web.questions import Rules


def recipe_text(run: Run, asked: Rules) -> str:
    """The run's recipe with these rules, in YAML, without what is as it would be anyway.

    Its output goes into the new run's folder: that of the run is taken.
    """
    recipe = run.recipe
    values: dict[str, Any] = recipe.model_dump(
        mode="json", exclude_defaults=True, exclude={"keep", "write", "device", "batch_size", "workers"}
    )
    read = values["read"]
    read["path"] = [without_password(path) for path in read["path"]]
    read["path"] = read["path"][0] if len(read["path"]) == 1 else read["path"]
    values["read"] = read["path"] if list(read) == ["path"] else read
    values["keep"] = [one["rule"] if list(one) == ["rule"] else one for one in asked.values]
    if recipe.dedup is not None and recipe.dedup.against is not None:
        values["dedup"]["against"] = without_password(recipe.dedup.against)
    if list(values.get("dedup") or ()) == ["threshold"]:
        values["dedup"] = values["dedup"]["threshold"]
    if recipe.write is not None:
        values["write"] = recipe.write.model_dump(mode="json", exclude_defaults=True, exclude={"path"})
        values["write"] = recipe.write.format if list(values["write"]) == ["format"] else values["write"]
    order = [key for key in ("read", "model", "revision", "keep", "dedup", "write") if key in values]
    ordered: dict[str, Any] = {key: values.pop(key) for key in order}
    return yaml.safe_dump(ordered | values, sort_keys=False, allow_unicode=True, width=120)


def command(run: Run, asked: Rules) -> str | None:
    """The command that applies these rules; None for rules in long form, which only a recipe can say."""
    if any(one.drop is not None or one.missing is not None for one in asked.keep):
        return None
    keep = " ".join(f"--keep {shlex.quote(one.rule)}" for one in asked.keep)
    return printable(f"clipsieve apply {shlex.quote(str(run.path))} {keep}".strip())

"""The chosen rules as a recipe and as a command, to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from clipsieve.api.tuning import Tuning
from clipsieve.core.text import printable, without_password
from clipsieve.recipe import OF_SPEED, Keep
from clipsieve.web.questions import Rules


def recipe_text(tuning: Tuning, asked: Rules) -> str:
    """The run's recipe with these rules, in YAML, without what is as it would be anyway.

    Scores that were added to the run are in it with their options. Its output goes into the new run's folder: that of
    the run is taken. Raises ``RuleError`` or ``RecipeError`` for rules that are wrong.
    """
    plan = tuning.planned(asked.values)
    recipe = plan.recipe
    values: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"keep", "write", *OF_SPEED})
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
    notes = [f"relative paths are those of {Path.cwd()}"]
    if plan.given:
        instead = command(tuning.run.path, asked.keep) or "apply from the page"
        notes += [f"{plan.given[0]} is a score of the whole data set, so this cannot run in one go; instead:", instead]
    comments = "".join(f"# {printable(note)}\n" for note in notes)
    return comments + yaml.safe_dump(ordered | values, sort_keys=False, allow_unicode=True, width=120)


def command(run: str | Path, keep: Iterable[Keep], *options: str) -> str | None:
    """The command that applies these rules to a run; None for rules in long form, which only a recipe can say.

    It goes to this working directory first: the paths in the run's own recipe may be relative to it.
    """
    rules = list(keep)
    if any(one.drop is not None or one.missing is not None for one in rules):
        return None
    words = ["clipsieve", "apply", str(run), *(word for one in rules for word in ("--keep", one.rule)), *options]
    return printable(f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(words)}")

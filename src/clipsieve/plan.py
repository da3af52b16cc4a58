"""From a recipe to a plan: which scorers run when, which rules they feed, and in which order rules decide.

Cheap comes before expensive (rows, bytes, pixels, vectors; then by cost), whatever order the user wrote. The one
exception is ``image_text_ratio`` with ``count: kept``: it counts what the rules listed before it leave, so it and
the rules listed after it wait for those.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from clipsieve.core.contracts import DatasetScorer, PromptedScorer, Scorer
from clipsieve.core.decide import BoundRule
from clipsieve.core.embed import Prompt
from clipsieve.core.layout import LayoutKind
from clipsieve.core.rules import Rule, check_name, parse
from clipsieve.errors import RecipeError, RuleError
from clipsieve.recipe import Dedup, Recipe
from clipsieve.scorers import COLUMNS, DATASET_COLUMNS
from clipsieve.scorers.image_text_ratio import ImageTextRatio

PHASES = ("rows", "bytes", "pixels", "vectors")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A scorer and the rules that can be judged image by image as soon as it has run."""

    scorer: Scorer
    rules: tuple[BoundRule, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The order of work on any whole samples of the source.

    ``rules`` are all local rules in the order they decide: the first ``row_rules`` need only rows, the first
    ``early_rules`` no model. ``kept_ratio`` is the ratio that counts kept images, computed when the first
    ``kept_ratio_at`` rules have decided. ``ranks`` and ``dedup``, in this order, need the whole data set. ``given``
    are the columns of dataset-wide scores, which an earlier run must have.
    """

    recipe: Recipe
    layout: LayoutKind
    given: tuple[str, ...]
    row_scorers: tuple[Scorer, ...]
    image_stages: tuple[Stage, ...]
    vector_scorers: tuple[Scorer, ...]
    kept_ratio: ImageTextRatio | None
    kept_ratio_at: int
    rules: tuple[BoundRule, ...]
    row_rules: int
    early_rules: int
    ranks: tuple[BoundRule, ...]
    dedup: BoundDedup | None

    @property
    def needs_encoder(self) -> bool:
        """Whether images must be embedded."""
        return bool(self.vector_scorers) or self.keeps_vectors

    @property
    def keeps_vectors(self) -> bool:
        """Whether vectors go into the run folder: asked for, or needed to find near duplicates."""
        return self.recipe.vectors or (self.dedup is not None and self.dedup.by.semantic)

    @property
    def two_passes(self) -> bool:
        """Whether something needs the scores of the whole data set, so that survivors are written in a second pass."""
        return bool(self.ranks) or self.dedup is not None

    @property
    def steps(self) -> list[str]:
        """The texts of all that drops images, in the order it decides."""
        rules = [bound.rule.text for bound in (*self.rules, *self.ranks)]
        return [*rules, self.dedup.by.text] if self.dedup else rules

    @property
    def needs_texts(self) -> bool:
        """Whether texts must be embedded."""
        return any("clip_score" in scorer.columns for scorer in self.vector_scorers)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts that scorers hold images against, each once."""
        prompted = (scorer for scorer in self.vector_scorers if isinstance(scorer, PromptedScorer))
        return tuple(dict.fromkeys(prompt for scorer in prompted for prompt in scorer.prompts))

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """All scorers in the order they run."""
        late = (self.kept_ratio,) if self.kept_ratio else ()
        return (*self.row_scorers, *(stage.scorer for stage in self.image_stages), *late, *self.vector_scorers)

    def warnings(self) -> Iterator[str]:
        """What a user should know before a run."""
        if self.layout != "interleaved" and any(b.rule.name == "image_text_ratio" for b in self.rules):
            yield (
                "image_text_ratio over caption rows says little: a caption of 10 words gives 0.1, "
                "whatever its image; its usual thresholds are for documents"
            )


@dataclass(frozen=True, kw_only=True)
class BoundDedup:
    """How near duplicates are found, with the layout's answers: what goes, and the columns that are compared.

    ``column`` holds hashes (None: vectors are compared); ``preference`` the columns whose product orders images, the
    highest first (none: input order).
    """

    by: Dedup
    unit: Literal["image", "sample"]
    column: str | None
    preference: tuple[str, ...]


def default_scores(layout: LayoutKind, *, has_texts: bool) -> tuple[str, ...]:
    """The scores that say something of samples in this layout, for ``clipsieve score``."""
    with_text = ("clip_score",) if has_texts else ()
    pairs = ("pair_similarity",) if layout == "lists" else ()
    facts = ("width", "height", "aspect_ratio", "file_bytes", "words")
    return (*facts, "blur", "qr_code", "image_text_ratio", *with_text, *pairs)


def make_plan(recipe: Recipe, layout: LayoutKind) -> Plan:
    """Orders the scorers and rules of ``recipe``. Raises ``RuleError`` or ``RecipeError``."""
    rules = [rule for keep in recipe.keep for rule in parse(keep.rule, drop=keep.drop, missing=keep.missing)]
    for name in (*(rule.name for rule in rules), *recipe.scores):
        check_name(name, (*COLUMNS, *DATASET_COLUMNS))
    dedup = _bind_dedup(recipe.dedup, layout) if recipe.dedup else None
    named = [dedup.column or "", *dedup.preference] if dedup else []
    names = dict.fromkeys([*(rule.name for rule in rules), *recipe.scores, *filter(None, named)])
    scorers = {name: _make(COLUMNS[name], recipe) for name in names if name in COLUMNS}
    bound = [_bind(rule, scorers.get(rule.name) or DATASET_COLUMNS[rule.name], layout) for rule in rules]
    local = [b for b in bound if b.rule.rank is None]
    # One instance a scorer class, also when several of its columns are named.
    distinct = sorted({type(s).__name__: s for s in scorers.values()}.values(), key=_order)

    ratio = next((s for s in distinct if isinstance(s, ImageTextRatio) and s.count == "kept"), None)
    listed = [b.rule.name for b in local]
    # Without a rule on it, a kept ratio counts what all rules leave.
    barrier = listed.index("image_text_ratio") if ratio and "image_text_ratio" in listed else len(local)
    before = sorted(local[:barrier], key=lambda b: _order(scorers.get(b.rule.name)))
    after = sorted(
        local[barrier:], key=lambda b: (b.rule.name != "image_text_ratio", *_order(scorers.get(b.rule.name)))
    )
    ordered = (*before, *after)
    prompt = {id(b) for b in before} if ratio else {id(b) for b in ordered}
    return Plan(
        recipe=recipe,
        layout=layout,
        given=tuple(name for name in names if name in DATASET_COLUMNS),
        row_scorers=tuple(s for s in distinct if s.reads == "rows" and s is not ratio),
        image_stages=tuple(
            Stage(
                scorer=s,
                rules=tuple(
                    b for b in ordered if b.rule.name in s.columns and id(b) in prompt and not b.rule.quantifier
                ),
            )
            for s in distinct
            if s.reads in ("bytes", "pixels")
        ),
        vector_scorers=tuple(s for s in distinct if s.reads == "vectors"),
        kept_ratio=ratio,
        kept_ratio_at=len(before),
        rules=ordered,
        row_rules=_leading(before, scorers, ("rows",)),
        early_rules=_leading(ordered, scorers, ("rows", "bytes", "pixels")),
        ranks=tuple(b for b in bound if b.rule.rank is not None),
        dedup=dedup,
    )


def _order(scorer: Scorer | None) -> tuple[int, float]:
    """Cheap before expensive; a score of the whole data set comes last."""
    return (PHASES.index(scorer.reads), scorer.cost) if scorer else (len(PHASES), 0.0)


def _leading(rules: Sequence[BoundRule], scorers: Mapping[str, Scorer], phases: tuple[str, ...]) -> int:
    for place, bound in enumerate(rules):
        scorer = scorers.get(bound.rule.name)
        if scorer is None or scorer.reads not in phases:
            return place
    return len(rules)


def _make(scorer: type[Scorer], recipe: Recipe) -> Scorer:
    known = {field.name for field in dataclasses.fields(scorer)}  # type: ignore[arg-type]
    shared: dict[str, Any] = {"model": recipe.model, "long_text": recipe.long_text}
    options = {key: value for key, value in shared.items() if key in known}
    for name in scorer.columns:
        for key, value in recipe.scores.get(name, {}).items():
            if key not in known or key in shared:
                allowed = ", ".join(sorted(known - set(shared))) or "none"
                raise RecipeError(f"recipe: scores.{name}: no option {key!r}; options: {allowed}")
            options[key] = value
    try:
        return scorer(**options)
    except (TypeError, ValueError) as failure:
        raise RecipeError(f"recipe: scores.{'/'.join(scorer.columns)}: {failure}") from None


def _bind(rule: Rule, scorer: Scorer | type[DatasetScorer], layout: LayoutKind) -> BoundRule:
    _check_kind(rule, scorer)
    _check_choices(rule, scorer)
    if scorer.unit == "pair" and rule.quantifier is None:
        raise RuleError(
            f"rule {rule.text!r}: {rule.name} has a value per pair; write any({rule.name}) or all({rule.name})"
        )
    if scorer.unit == "sample" and rule.quantifier is not None:
        raise RuleError(f"rule {rule.text!r}: {rule.name} has one value a sample; write it without {rule.quantifier}()")
    whole = scorer.unit != "image" or rule.quantifier is not None
    if whole and rule.drop == "image":
        raise RuleError(f"rule {rule.text!r}: it judges a whole sample, so it cannot drop a single image")
    default: Literal["image", "sample"] = "sample" if whole or layout != "interleaved" else "image"
    return BoundRule(rule=rule, unit=scorer.unit, why_missing=scorer.why_missing, drop=rule.drop or default)


def _bind_dedup(dedup: Dedup, layout: LayoutKind) -> BoundDedup:
    preference: tuple[str, ...] = {"first": (), "largest": ("width", "height")}.get(dedup.keep, (dedup.keep,))
    for name in preference:
        check_name(name, ("first", "largest", *COLUMNS))
        scorer = COLUMNS[name]
        if scorer.unit == "pair" or not pa.types.is_floating(scorer.columns[name]):
            raise RecipeError(f"recipe: dedup.keep: {name} gives no order among images; name a score that is a number")
    return BoundDedup(
        by=dedup,
        unit=dedup.unit or ("image" if layout == "interleaved" else "sample"),
        column={"exact": "content_hash", "perceptual": "perceptual_hash"}.get(dedup.method),
        preference=preference,
    )


def _check_kind(rule: Rule, scorer: Scorer | type[DatasetScorer]) -> None:
    """Raises ``RuleError`` for a number held against texts, a text against numbers, or what nothing can pass."""
    bounds = [test.bound for test in rule.tests]
    numeric = not pa.types.is_string(scorer.columns[rule.name])
    if numeric and (rule.members or any(isinstance(bound, str) for bound in bounds)):
        raise RuleError(f"rule {rule.text!r}: {rule.name} is a number; compare it with one, as in {rule.name} >= 1")
    if not numeric and (rule.rank or any(not isinstance(bound, str) for bound in bounds)):
        raise RuleError(f'rule {rule.text!r}: {rule.name} is a text; write {rule.name} in ("one", "other")')
    if not all(isinstance(bound, str) or math.isfinite(bound) for bound in bounds):
        raise RuleError(f"rule {rule.text!r}: a bound is too large for a number")
    low = [test.bound for test in rule.tests if test.op[0] == ">"]
    high = [test.bound for test in rule.tests if test.op[0] == "<"]
    if numeric and low and high and low[0] > high[0]:  # type: ignore[operator]
        raise RuleError(f"rule {rule.text!r}: nothing is both above {low[0]:g} and below {high[0]:g}")


def _check_choices(rule: Rule, scorer: Scorer | type[DatasetScorer]) -> None:
    """Raises ``RuleError`` for a text that the score never is, with the nearest that it can be."""
    if not isinstance(scorer, PromptedScorer) or rule.name not in scorer.choices:
        return
    choices = scorer.choices[rule.name]
    for asked in (*rule.members, *(test.bound for test in rule.tests)):
        if asked not in choices:
            near = difflib.get_close_matches(str(asked), choices, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(choices)}"
            raise RuleError(f"rule {rule.text!r}: {rule.name} is never {asked!r}; {hint}")


@dataclass(frozen=True, kw_only=True)
class StageLine:
    """One line of a plan for people."""

    name: str
    reads: str
    rules: tuple[str, ...]


def stages(plan: Plan) -> list[StageLine]:
    """The stages in the order they run, with the rules that each one makes decidable."""
    rules = (*plan.rules, *plan.ranks)
    lines = []
    for scorer in plan.scorers:
        decided = tuple(b.rule.text for b in rules if b.rule.name in scorer.columns and b.rule.rank is None)
        lines.append(StageLine(name=", ".join(scorer.columns), reads=scorer.reads, rules=decided))
    if plan.recipe.check == "decode" and not any(line.reads == "pixels" for line in lines):
        lines.insert(len(plan.row_scorers), StageLine(name="(check that images decode)", reads="pixels", rules=()))
    if plan.ranks:
        texts = tuple(bound.rule.text for bound in plan.ranks)
        lines.append(StageLine(name="selection over the whole data set", reads="scores", rules=texts))
    if plan.dedup:
        reads = plan.dedup.column or "vectors"
        lines.append(StageLine(name="near duplicates in the whole data set", reads=reads, rules=(plan.dedup.by.text,)))
    if plan.recipe.write:
        lines.append(StageLine(name=f"write {plan.recipe.write.format}", reads="bytes", rules=()))
    return lines

"""The study definition: the user's file, POSTed as it is. Strict: what is not understood is refused, never ignored."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from search_spaces import Configuration, Parameter, Space
from search_spaces.expressions import MOST_CHARACTERS
from service.domain.automatic import Plan, plan_of
from service.domain.budget import Budget
from service.domain.budget_rules import budget_violations
from service.domain.configuration_rules import initial_violations
from service.domain.errors import InvalidDefinition, Violation
from service.domain.final_rules import final_violations
from service.domain.grouped import ungroup
from service.domain.objective import MOST_OBJECTIVES, Objective, complete_objective
from service.domain.outcome_rules import goal_violations, metrics_needed, several_violations
from service.domain.outcomes import OUTCOME_PATTERN, Outcome, Point, add_measured, outcome_of, point_of
from service.domain.packing import share_of_gpu
from service.domain.pointers import NAME_PATTERN, violations_of
from service.domain.presets import expand_preset
from service.domain.requirements import Requirements
from service.domain.searched import add_searched_keys, configured
from service.domain.space_rules import bound, condition_violations, constraint_violations, space_violations
from service.domain.strategy import AutoStrategy, Strategy
from service.domain.strategy_rules import strategy_violations
from trainers.configs import TrainerConfig

__all__ = ["Checkpoints", "Objective", "Resources", "StudyDefinition", "parse_definition"]

_Limit = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra={"pattern": OUTCOME_PATTERN})]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_Gpus = Annotated[float, Field(ge=0, le=64, json_schema_extra={"anyOf": [{"maximum": 1}, {"multipleOf": 1}]})]


class Resources(_Strict):
    """What each trial holds while it runs, and how many run at once."""

    cpus_per_trial: int = Field(default=1, ge=1, le=256, description="CPU threads of one trial.", examples=[1])
    gpus_per_trial: _Gpus | Literal["auto"] = Field(
        default=0.0,
        description="GPUs that a trial holds: a share of one, or whole ones, with a process each; 0 trains on the CPU. With "
        "`auto` as many trials share a GPU as the memory that the first ones needed leaves room for, eight at the most.",
        examples=[0],
    )
    max_concurrent_trials: int = Field(default=1, ge=1, le=1000, description="Most trials of this study at once.", examples=[2])

    @field_validator("gpus_per_trial")
    @classmethod
    def _several_are_whole(cls, value: float | Literal["auto"]) -> float | Literal["auto"]:
        if value != "auto" and value > 1 and not value.is_integer():
            raise ValueError(f"a trial holds a share of one GPU, or whole ones: set {int(value)} or {int(value) + 1}")
        return value

    @property
    def is_packed(self) -> bool:
        """Whether it is measured how many trials share a GPU."""
        return self.gpus_per_trial == "auto"

    @property
    def gpus(self) -> float:
        """GPUs that a trial holds; a whole one where that is measured, as long as it is not."""
        return 1.0 if self.gpus_per_trial == "auto" else self.gpus_per_trial

    def packed(self, trials_per_gpu: int) -> "Resources":
        """The same in numbers, where it is measured how many trials share a GPU and they are so many."""
        return self.model_copy(update={"gpus_per_trial": share_of_gpu(trials_per_gpu)}) if self.is_packed else self


class Checkpoints(_Strict):
    """What of the trials' weights outlives them."""

    keep: int = Field(default=5, ge=1, le=1000, description="Number of best trials whose exported model is kept.", examples=[5])
    max_total_gb: float | None = Field(
        default=None, gt=0, le=1e6,
        description="Gigabytes (10^9 bytes) that all checkpoints of the study may take on disk; null for no limit. Above it what "
        "an extended study would go on from is deleted first, then the exports of the worst of the best trials, the oldest of "
        "equals. What trials that have not ended need, the best export, those on the front and those of the final stay "
        "whatever they take.",
        examples=[20.0],
    )  # fmt: skip

    @property
    def max_bytes(self) -> int | None:
        """The limit in bytes; None without one."""
        return None if self.max_total_gb is None else int(self.max_total_gb * 1e9)


class Final(_Strict):
    """The best configurations trained again, whole and under new seeds, before the study ends: so that luck is no winner."""

    top: int = Field(default=3, ge=1, le=20, description="Number of best configurations.", examples=[3])
    seeds: int = Field(
        default=3, ge=2, le=20, description="Runs of each, with seeds of their own; they do not count as trials of the budget.",
        examples=[3],
    )  # fmt: skip


class StudyDefinition(_Strict):
    """One search: what to train, what varies, what is better, how to search and what it may spend."""

    name: str = Field(
        min_length=1, max_length=100, pattern=NAME_PATTERN,
        description="A name for people; need not be unique.", examples=["banking-intents"],
    )  # fmt: skip
    trainer: TrainerConfig = Field(description="The trainer's configuration; what `space` names is set by each trial.")
    space: dict[str, Parameter] = Field(
        min_length=1, max_length=100,
        description="What varies: a key of the trainer's configuration (nested keys with dots, as in `lora.rank`) and its "
        "parameter. A group of keys that the trainer does not set starts from its defaults. Groups may be nested, as in "
        "`lora: {rank: {...}}`, with a `when` for all in them; they are kept with dots.",
        examples=[{"learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-3, "log": True}}],
    )  # fmt: skip
    constraints: tuple[Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)], ...] = Field(
        default=(), max_length=20,
        description="What the values of a trial must meet together: expressions of numbers, strings, parameters and keys of the "
        "trainer, with `+ - * / // % **`, comparisons, `in [...]`, `and`, `or`, `not`, `A if B else C`, `min`, `max`, `abs`, "
        "`log` and `sqrt`. One that names a parameter which a trial does not have is met; one without an answer is not.",
        examples=[["batch_size * max_length <= 65536"]],
    )  # fmt: skip
    objective: Objective = Field(description="What the search optimises; of several `objectives` the first.")
    objectives: tuple[Objective, ...] = Field(
        default_factory=lambda known: (known["objective"],), min_length=2, max_length=MOST_OBJECTIVES,
        exclude_if=lambda objectives: len(objectives) < 2,  # noqa: PLR2004 - several
        description="What it optimises together, in place of `objective`: the result is the trials that no other beats in all of "
        "them (`GET /v1/studies/{id}/pareto`). Where one number is needed, as in lists, it is the first objective's.",
        examples=[
            [{"metric": "validation/accuracy", "direction": "maximize"}, {"metric": "model/latency_ms", "direction": "minimize"}]
        ],
    )  # fmt: skip
    outcomes: tuple[_Limit, ...] = Field(
        default=(), max_length=10,
        description="Limits on what a report measures: a metric, `<=` or `>=`, and a number. A report that breaks one is not the "
        "best; a trial none of whose reports keeps them all ends infeasible, and at once where it breaks one on `model/...`.",
        examples=[["model/megabytes <= 100", "validation/loss <= 0.5"]],
    )  # fmt: skip
    strategy: Strategy = Field(
        default=AutoStrategy(kind="auto"), description="How the search proposes and stops trials.", examples=[{"kind": "auto"}]
    )
    initial: tuple[dict[str, JsonValue], ...] = Field(
        default=(), max_length=1000, description="Configurations to try first, in this order: each of the space's parameters, "
        "but for those that do not exist beside the others' values.",
        examples=[[{"learning_rate": 3e-5}]],
    )  # fmt: skip
    warm_start: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        default=(), max_length=20,
        description="Ids of earlier studies with the same trainer kind and objective. The search knows their trials from its "
        "start, as far as the space holds their values; the study's `warm_start` counts them. They should have been trained "
        "alike in what no space names, above all on the same data.",
        examples=[["banking-intents-k3v9x2"]],
    )  # fmt: skip
    budget: Budget = Field(default=Budget(), description="What the study may spend.")
    resources: Resources = Field(default=Resources(), description="What a trial holds and how many run at once.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="Which exported models are kept.")
    requirements: Requirements = Field(default=Requirements(), description="What base models have to be like.")
    final: Final | None = Field(
        default=None, description="What is trained again once the search is over, to tell the winner from a lucky one.",
        examples=[{"top": 3, "seeds": 3}],
    )  # fmt: skip
    max_retries: int = Field(
        default=2, ge=0, le=10,
        description="How often a trial is tried again, from its last checkpoint, after its trainer raised an error. What "
        "diverges or does not fit into memory is not tried again; an attempt whose worker was lost does not count.",
        examples=[2],
    )  # fmt: skip
    priority: int = Field(
        default=50, ge=1, le=100,
        description="The study's weight when several share the workers: with 75 it gets three times what one with 25 does. Of "
        "studies that wait for their turn to run the higher goes first.",
        examples=[50],
    )  # fmt: skip
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the search itself.", examples=[0])

    @field_validator("warm_start")
    @classmethod
    def _studies_are_different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [study_id for at, study_id in enumerate(value) if study_id in value[:at]]
        if twice:
            raise ValueError(f"names study {twice[0]!r} twice: keep one of them")
        return value

    @cached_property
    def search_space(self) -> Space:
        """What varies, with the constraints, and the trainer's own values in them."""
        plain = Space(self.space)
        return Space(self.space, tuple(bound(self.trainer, plain, text) for text in self.constraints))

    @cached_property
    def limits(self) -> tuple[Outcome, ...]:
        """The outcomes, read."""
        return tuple(limit for limit in map(outcome_of, self.outcomes) if limit is not None)

    def point(self, metrics: Mapping[str, float]) -> Point | None:
        """What a report measured; None where its first objective's value says all."""
        if len(self.objectives) == 1 and not self.limits:
            return None
        return point_of(self.objectives, self.limits, metrics)

    def counts(self, metrics: Mapping[str, float]) -> bool:
        """Whether a report with these metrics keeps all outcomes."""
        point = self.point(metrics)
        return point is None or point.counts

    @cached_property
    def plan(self) -> Plan:
        """The strategy that leads the study, and why where it was chosen for the user."""
        return plan_of(self)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some values changed. What was worked out from the old ones does not come with it."""
        changed = dict(update or {})
        if "objective" in changed:
            changed.setdefault("objectives", (changed["objective"],))
        copied = super().model_copy(update=changed, deep=deep)
        for worked_out in ("search_space", "plan", "limits"):
            copied.__dict__.pop(worked_out, None)
        return copied

    @property
    def is_bounded(self) -> bool:
        """Whether some limit ends the study whatever its trials report; hours of GPU end none that uses no GPU."""
        unused = {} if self.resources.gpus else {"gpu_hours": None, "cost": None}
        budget = self.budget.model_copy(update=unused)
        return budget.is_bounded

    def configured(self, parameters: Configuration, seed: int | None = None) -> TrainerConfig:
        """The trainer's configuration of a trial with these parameters, and with a seed of its own where it has one."""
        return configured(self.trainer, parameters if seed is None else {**parameters, "seed": seed})

    @property
    def max_reports(self) -> int:
        """Reports of a trial that runs to its end when `epochs` is not searched."""
        return self.trainer.reports

    def reports_of(self, parameters: Configuration) -> int:
        """Reports of a trial with these parameters that runs to its end."""
        if "epochs" not in parameters or self.trainer.max_steps is not None:
            return self.max_reports
        epochs = parameters["epochs"]
        assert isinstance(epochs, int)  # noqa: S101 - validated at POST
        return epochs


def parse_definition(document: Any) -> StudyDefinition:
    """A study definition from decoded JSON or YAML; raises `InvalidDefinition` with a JSON pointer for every violation."""
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidDefinition([Violation("", f"holds a value that JSON cannot hold ({error})")]) from error
    except RecursionError as error:
        raise InvalidDefinition([Violation("", "is nested too deeply")]) from error
    ungrouped = ungroup(json.loads(text))
    try:
        return _expanded(ungrouped.document)
    except InvalidDefinition as refused:
        raise InvalidDefinition(ungrouped.as_sent(refused.violations)) from refused


def _expanded(document: Any) -> StudyDefinition:
    """The definition that a document without groups holds; its preset is written out."""
    expanded = expand_preset(document)
    try:
        return _parsed(expanded.document)
    except InvalidDefinition as refused:
        raise InvalidDefinition(expanded.as_sent(refused.violations)) from refused


def _parsed(whole: Any) -> StudyDefinition:
    """The definition that a document without a preset holds; what it searches and asks to measure is added to its trainer."""
    origins = add_searched_keys(whole)
    add_measured(whole)
    is_added = complete_objective(whole)
    try:
        study = StudyDefinition.model_validate_json(json.dumps(whole))
    except ValidationError as error:
        errors = [one for one in error.errors(include_url=False) if one["type"] != "default_factory_not_called"]
        if is_added:  # it is said of `objectives`
            errors = [one for one in errors if one["loc"][0] != "objective"]
        raise InvalidDefinition(violations_of(StudyDefinition, whole, origins, errors)) from error
    found = violations(study)
    if found:
        raise InvalidDefinition(found)
    return study


def violations(study: StudyDefinition) -> list[Violation]:
    """All that the parts say against each other; what needs a sound space to be asked is left out without one."""
    trainer, space = study.trainer, Space(study.space)
    unsound = condition_violations(space)
    if unsound:
        return [*unsound, *goal_violations(study)]
    unsound = constraint_violations(trainer, space, study.constraints)
    found = space_violations(trainer, space if unsound else study.search_space, metrics_needed(study))
    rest = [] if unsound else [*several_violations(study), *strategy_violations(study), *final_violations(study)]
    asked = [] if found or unsound else initial_violations(study)
    return [*found, *unsound, *goal_violations(study), *budget_violations(study), *rest, *asked]

"""What a trainer that trains nothing can be asked for: learning curves from formulas."""

from collections.abc import Iterator, Mapping
from keyword import iskeyword
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from search_spaces.expressions import MOST_CHARACTERS, Expression, read_expression, read_formula
from trainers.configs.training import Config, TrialConfig

_MOST_VALUES = 100
METRIC_PATTERN = r"^(train|validation|test|model)/[a-z][a-z0-9_]*$"
_MODEL, _TEST = "model/", "test/"
_AMOUNTS = frozenset({"seconds_per_epoch", "gpu_memory.peak_megabytes"})
_PLACES = ("epoch", "epochs", "step")
"""What formulas know of where a trial stands, beside its values."""


def _as_number(value: float | str) -> float | str:
    if isinstance(value, str):
        read_formula(value)
    return value


def _as_condition(value: str) -> str:
    read_expression(value)
    return value


_Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
Formula: TypeAlias = Annotated[float | _Text, AfterValidator(_as_number)]
"""A number, or an expression that gives one."""
Condition: TypeAlias = Annotated[_Text, AfterValidator(_as_condition)]
"""An expression that is true or false."""


def expression_of(formula: float | str) -> Expression:
    """What a formula is once it is read."""
    return read_formula(formula) if isinstance(formula, str) else Expression((), lambda _: formula)


def condition_of(text: str) -> Expression:
    """What a condition is once it is read."""
    found = read_expression(text)

    def evaluate(names: Mapping[str, JsonValue]) -> bool:
        answer = found.evaluate(names)
        if not isinstance(answer, bool):
            raise TypeError(f"{answer!r} is neither true nor false")
        return answer

    return Expression(found.names, evaluate)


class SimulatedValues(Config):
    """Any names and values: what the formulas know of a trial's configuration."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"learning_rate": 1e-3, "optimizer": "adam"}]})

    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    @model_validator(mode="after")
    def _formulas_can_name_them(self) -> Self:
        for name in self.known:
            if not name.isidentifier() or iskeyword(name):
                raise ValueError(f"formulas cannot name {name!r}: use letters, digits and underscores")
            if name in _PLACES:
                raise ValueError(f"{name!r} says in formulas where a trial stands: give the value another name")
        if len(self.known) > _MOST_VALUES:
            raise ValueError(f"holds {len(self.known)} values, more than {_MOST_VALUES}: take some out")
        return self

    @property
    def known(self) -> Mapping[str, JsonValue]:
        """The values by name."""
        return self.__pydantic_extra__


class SimulatedFailures(Config):
    """How a trial fails: each is a condition, looked at after every step."""

    trainer_error: Condition | None = Field(
        default=None, description="Where the trainer has an error.", examples=["epoch == 2 and width > 512"]
    )
    diverged: Condition | None = Field(default=None, description="Where the loss diverges.", examples=["learning_rate > 0.1"])
    out_of_memory: Condition | None = Field(
        default=None, description="Where not even one row fits into memory.", examples=["width > 1024"]
    )
    lost: Condition | None = Field(
        default=None, description="Where the worker's process is killed, as by a machine that breaks.", examples=["epoch == 2"]
    )
    lost_times: int = Field(
        default=1, ge=1, le=1000, description="How often `lost` may do that to one trial, which is tried again.", examples=[1]
    )

    @property
    def conditions(self) -> Mapping[str, str]:
        """Those that are set, by the reason that the trial then fails for; the first that is true counts."""
        found = {name: getattr(self, name) for name in ("lost", "out_of_memory", "diverged", "trainer_error")}
        return {name: condition for name, condition in found.items() if condition is not None}


class SimulatedGpu(Config):
    """Memory of a GPU that nobody has to have. Trials of a study that share a GPU share it."""

    peak_megabytes: Formula = Field(
        description="What a trial takes of it, asked after every step: a number or a formula.", examples=["width * 8"]
    )
    total_megabytes: float = Field(gt=0, le=10_000_000, description="What there is of it.", examples=[16000])


class SimulatedConfig(TrialConfig):
    """Train nothing: give learning curves from formulas, to try a search, its budget and the service around it.

    Formulas know the `values` by their names, `epoch` (a fraction in the middle of one), `epochs` and `step`.
    """

    model: ClassVar[None] = None
    data: ClassVar[None] = None

    kind: Literal["simulated"] = Field(description="Learning curves from formulas.", examples=["simulated"])
    metrics: dict[Annotated[str, Field(pattern=METRIC_PATTERN)], Formula] = Field(
        min_length=1,
        max_length=50,
        description="What is reported: a number or a formula for each `train/...`, `validation/...` and `model/...`, which says "
        "the same in every report; `test/...` is measured at the end of a trial.",
        examples=[{"validation/loss": "(log(learning_rate) + 7) ** 2 / 10 + 1 / epoch"}],
    )
    values: SimulatedValues = Field(
        default=SimulatedValues(),
        description="What the formulas know of a configuration. A space searches `values.NAME`, and need not have it here too.",
        examples=[{"learning_rate": 1e-3, "optimizer": "adam"}],
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Standard deviation of what is added to all metrics but `model/...`, drawn by seed, values and step.",
        examples=[0.01],
    )
    steps_per_epoch: int = Field(
        default=10, ge=1, le=100_000, description="Steps of an epoch: a trial can be paused after each.", examples=[10]
    )
    seconds_per_epoch: Formula = Field(default=0.0, description="How long an epoch takes: a number or a formula.", examples=[1.5])
    state_megabytes: float = Field(
        default=0.0, ge=0, le=100_000, description="Size of what a trial resumes from.", examples=[200.0]
    )
    export_megabytes: float = Field(default=0.0, ge=0, le=100_000, description="Size of what a user pulls.", examples=[90.0])
    gpu_memory: SimulatedGpu | None = Field(
        default=None,
        description="What trials take of a GPU's memory, where they hold one; one that finds too little left runs out of it.",
        examples=[{"peak_megabytes": 3000, "total_megabytes": 16000}],
    )
    fails: SimulatedFailures = Field(
        default=SimulatedFailures(), description="How trials fail.", examples=[{"diverged": "learning_rate > 0.1"}]
    )

    @field_validator("metrics")
    @classmethod
    def _what_the_model_is_does_not_change(cls, value: dict[str, Formula]) -> dict[str, Formula]:
        for name, formula in value.items():
            changing = [place for place in ("epoch", "step") if name.startswith(_MODEL) and place in expression_of(formula).names]
            if changing:
                raise ValueError(f"`{name}` says the same in every report: take `{changing[0]}` out of it")
        return value

    @model_validator(mode="after")
    def _formulas_have_answers(self) -> Self:
        for key, expression in self._expressions():
            unknown = [name for name in expression.names if name not in self.values.known and name not in _PLACES]
            if unknown:
                listed = ", ".join(f"`{name}`" for name in (*self.values.known, *_PLACES))
                raise ValueError(
                    f"`{key}` names `{unknown[0]}`, which has no value: set it in `values`, or search it as `values.NAME`; "
                    f"there are {listed}"
                )
            for step in (min(self.every, self.total_steps), self.total_steps):
                try:
                    answer = expression.evaluate(self.names_at(step))
                except (ArithmeticError, TypeError, ValueError) as error:
                    raise ValueError(self.no_answer(key, step, error)) from error
                if key in _AMOUNTS and answer < 0:
                    raise ValueError(f"`{key}` is {answer:g} at epoch {step / self.steps_per_epoch:g}: nothing takes less than 0")
        return self

    @property
    def total_steps(self) -> int:
        """Steps of a trial that runs to its end."""
        return self.max_steps or self.epochs * self.steps_per_epoch

    @property
    def every(self) -> int:
        """Steps from report to report."""
        return self.steps_per_epoch if self.report_every == "epoch" else self.report_every

    @property
    def reported(self) -> frozenset[str]:
        """The metrics of every report."""
        return frozenset(name for name in self.metrics if not name.startswith(_TEST))

    @property
    def tested(self) -> frozenset[str]:
        """The metrics at the end of a trial."""
        return frozenset(self.metrics) - self.reported

    def names_at(self, step: int) -> Mapping[str, JsonValue]:
        """What formulas know after so many steps."""
        place = {"epoch": step / self.steps_per_epoch, "epochs": self.total_steps / self.steps_per_epoch, "step": step}
        return {**self.values.known, **place}

    def no_answer(self, key: str, step: int, error: Exception) -> str:
        """What is wrong where a formula has no answer."""
        return f"`{key}` has no answer at epoch {step / self.steps_per_epoch:g} ({error}): change it, or keep such values out"

    def _expressions(self) -> Iterator[tuple[str, Expression]]:
        yield from ((f"metrics.{name}", expression_of(formula)) for name, formula in self.metrics.items())
        yield "seconds_per_epoch", expression_of(self.seconds_per_epoch)
        if self.gpu_memory is not None:
            yield "gpu_memory.peak_megabytes", expression_of(self.gpu_memory.peak_megabytes)
        yield from ((f"fails.{name}", condition_of(text)) for name, text in self.fails.conditions.items())

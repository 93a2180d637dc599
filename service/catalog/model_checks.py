"""What is wrong with a study's base models, each with a JSON pointer into the user's document."""

from collections.abc import Iterator, Mapping

from service.catalog.headers import MODEL_TYPES
from service.catalog.models import Models
from service.catalog.variants import values_of
from service.domain.base_models import FoundModel, ModelHeader
from service.domain.definition import StudyDefinition
from service.domain.errors import ModelNotFound, UnusableModel, Violation
from service.domain.requirements import Requirements

_SHOWN = 5


def check_models(definition: StudyDefinition, models: Models) -> Iterator[Violation]:
    """Models that cannot be used, and settings that the smallest of the others does not allow."""
    kind, weights = definition.trainer.kind, needs_weights(definition)
    headers: dict[str, ModelHeader] = {}
    for choice in values_of(definition, "model"):
        name = str(choice.value)
        try:
            header = models.look(name, weights=weights)
        except (ModelNotFound, UnusableModel) as error:
            yield Violation(choice.pointer, error.detail)
            continue
        if kind in header.kinds:
            headers[name] = header
        else:
            yield Violation(choice.pointer, misfit(name, header, kind))
    layers = {name: header.layers for name, header in headers.items() if header.layers is not None}
    yield from _above(definition, "frozen_layers", layers, "layers")
    longest = {name: header.longest for name, header in headers.items() if header.longest is not None}
    for key in ("max_length", "max_target_length"):
        yield from _above(definition, key, longest, "tokens at most")


def check_requirements(definition: StudyDefinition, models: Models) -> Iterator[Violation]:
    """Models outside of what the study asks of them. Those that cannot be used at all are left to `check_models`."""
    asked = definition.requirements
    if asked == Requirements():
        return
    if definition.trainer.model is None:
        yield Violation("/requirements", f"asks something of base models, and `{definition.trainer.kind}` has none: leave it out")
    for choice in values_of(definition, "model"):
        name = str(choice.value)
        try:
            found = models.describe(name, weights=needs_weights(definition))
        except (ModelNotFound, UnusableModel):
            continue
        for detail in _unmet(asked, found):
            yield Violation(choice.pointer, detail)


def needs_weights(definition: StudyDefinition) -> bool:
    """Whether any trial starts from pretrained weights."""
    return any(choice.value == "pretrained" for choice in values_of(definition, "initialisation"))


def misfit(name: str, header: ModelHeader, kind: str) -> str:
    """Why a kind of trainer cannot train a model, and what could be done."""
    fitting = " or ".join(f"`{one}`" for one in sorted(header.kinds))
    taken = sorted(MODEL_TYPES[kind])
    listed = ", ".join(taken[:_SHOWN])
    return (
        f"{name!r} is of the type {header.model_type!r}, which `{kind}` cannot train: use the trainer {fitting}, or name a model "
        f"of another type, such as {listed}"
    )


def _unmet(asked: Requirements, found: FoundModel) -> Iterator[str]:
    name, header = found.name, found.header
    if asked.licences:
        licence = found.card.licence if found.card else None
        listed = " or ".join(asked.licences)
        if licence is None:
            yield (
                f"the licence of {name!r} is not known, and `requirements` ask for {listed}: give the model's folder a README.md "
                "that says `license: ...` in front, or name another model"
            )
        elif licence.lower() not in {one.lower() for one in asked.licences}:
            yield f"{name!r} has the licence {licence}, and `requirements` ask for {listed}: name another model"
    if asked.most_parameters is not None:
        yield from _too_large(name, "parameters", header.parameters, asked.most_parameters)
    if asked.most_megabytes is not None:
        megabytes = header.megabytes
        if megabytes is None and header.parameters is not None:
            megabytes = header.parameters * 4 / 1e6  # what training from random weights writes
        yield from _too_large(name, "megabytes", megabytes, asked.most_megabytes)


def _too_large(name: str, unit: str, size: float | None, most: float) -> Iterator[str]:
    limit = f"`requirements` allow {most:,.10g}"
    if size is None:
        yield f"how many {unit} {name!r} has is not known, and {limit}: name a model with weights, or raise the limit"
    elif size > most:
        yield f"{name!r} has {size:,.10g} {unit}, and {limit}: name a smaller model"


def _above(definition: StudyDefinition, key: str, limits: Mapping[str, int], what: str) -> Iterator[Violation]:
    if not limits:
        return
    name, limit = min(limits.items(), key=lambda item: item[1])
    for one in values_of(definition, key):
        if isinstance(one.value, int) and one.value > limit:
            yield Violation(one.pointer, f"{one.value} is too much: {name!r} has {limit} {what}, so set it to {limit} or less")

"""Determined's experiment configurations: searchers, defaults and grids as its schemas and its master have them."""

import math
from collections.abc import Generator, Mapping
from typing import Any, Literal

from search_spaces.importers.pieces import (
    LEFT_OUT,
    Found,
    Goal,
    Note,
    NotImportable,
    Part,
    Pieces,
    between,
    inside,
    mapping,
    nearest,
    number,
    sequence,
    text,
    unknown,
    whole,
)
from search_spaces.importers.ranges import MOST_CHOICES, choices, constant, interval
from search_spaces.importers.strategies import hyperband, lowest_rung, members, quantile, sampled

_TYPES = ("int", "double", "log", "categorical", "const")
_KNOWN = ("name", "hyperparameters", "searcher", "resources", "reproducibility", "records_per_epoch", "min_validation_period")
_SEARCHER = (
    "name", "metric", "smaller_is_better", "max_length", "max_time", "time_metric", "max_trials", "max_concurrent_trials",
)  # fmt: skip
_HALVING = ("divisor", "max_rungs", "num_rungs")
_POPULATION = ("population_size", "num_rounds", "length_per_round", "replace_function", "explore_function")
_ELSEWHERE: Mapping[str, str] = {
    "entrypoint": "is the program to run, which a trainer is here: left out",
    "data": "is where the program's rows are: name them in the trainer's `data`",
    "environment": "is where the program runs: left out",
    "checkpoint_storage": "the service keeps the best trials' exports; `checkpoints: {keep: ...}` says how many",
    "checkpoint_policy": "every report has a checkpoint here: left out",
    "min_checkpoint_period": "every report has a checkpoint here: left out",
    "max_restarts": "the service itself says how often a trial is tried again: left out",
}
_LENGTHS = ("epochs", "batches", "records")
_REPORTS = 10
"""Reports of a trial whose length is in batches, where the file does not say how often to validate."""
_DIVISOR, _RUNGS = 4, 5
"""Determined's defaults."""


def is_determined(document: Mapping[str, Any]) -> bool:
    """Whether this is an experiment's configuration."""
    return isinstance(document.get("searcher"), Mapping)


def read_determined(document: Mapping[str, Any]) -> Pieces:
    """The pieces of an experiment. Raises `NotImportable`."""
    searcher = mapping(document["searcher"], "/searcher")
    if document.get("name"):
        yield Part("name", document["name"])
    yield from _objective(searcher)
    parameters = mapping(document.get("hyperparameters"), "/hyperparameters")
    yield from _parameters(parameters, "/hyperparameters", "", is_grid=searcher.get("name") == "grid")
    reports = yield from _length(document, searcher)
    yield from _strategy(searcher, reports)
    yield from _resources(mapping(document.get("resources"), "/resources"), searcher)
    reproducibility = mapping(document.get("reproducibility"), "/reproducibility")
    if reproducibility.get("experiment_seed") is not None:
        yield Part("seed", whole(reproducibility["experiment_seed"], "/reproducibility/experiment_seed") % 2**31)
    yield from unknown(reproducibility, ("experiment_seed",), "/reproducibility")
    for key in document:
        if key not in _KNOWN:
            yield Note(inside("", key), _ELSEWHERE.get(key, LEFT_OUT))


def _objective(searcher: Mapping[str, Any]) -> Pieces:
    smaller = searcher.get("smaller_is_better")
    if smaller is not None and not isinstance(smaller, bool):
        raise NotImportable("/searcher/smaller_is_better", f"must be true or false, not {smaller!r}: mend it")
    metric = text(searcher.get("metric"), "/searcher/metric")
    yield Goal("/searcher/metric", metric, "maximize" if smaller is False else "minimize")


def _parameters(parameters: Mapping[str, Any], path: str, prefix: str, *, is_grid: bool) -> Pieces:
    for name, item in parameters.items():
        place = inside(path, name)
        if not isinstance(item, Mapping):
            yield Found(place, prefix + name, constant(item))
        elif "type" not in item:
            yield from _parameters(item, place, f"{prefix}{name}.", is_grid=is_grid)
        else:
            yield from unknown(item, ("type", "minval", "maxval", "base", "count", "vals", "val"), place)
            yield Found(place, prefix + name, (yield from _parameter(item, place, is_grid=is_grid)))


def _parameter(parameter: Mapping[str, Any], path: str, *, is_grid: bool) -> Generator[Note, None, dict[str, Any]]:
    match parameter["type"]:
        case "const":
            return constant(parameter.get("val"))
        case "categorical":
            return (yield from choices(inside(path, "vals"), list(sequence(parameter.get("vals"), inside(path, "vals")))))
        case "int" | "double" | "log" as kind:
            low, high = (number(parameter.get(end), inside(path, end)) for end in ("minval", "maxval"))
            base = number(parameter.get("base", 10), inside(path, "base")) if kind == "log" else None
            ends = [_value(end, base, path) for end in (low, high)]
            found = yield from interval(path, *ends, log=kind == "log", whole=kind == "int")
            return {**found, **_grid(parameter, path, (low, high), base, found)} if is_grid else found
        case kind:
            raise NotImportable(inside(path, "type"), f"must be one of {', '.join(_TYPES)}, not {kind!r}: mend it")


def _value(exponent: float, base: float | None, path: str) -> float:
    """A logarithmic range gives the exponents of its ends."""
    if base is None:
        return exponent
    try:
        power = float(base) ** float(exponent) if base > 0 else 0.0
    except OverflowError:
        power = math.inf
    if not 0 < power < math.inf:
        raise NotImportable(path, f"{base:g} to the power of {exponent:g} is no number here: `minval` and `maxval` are exponents")
    return float(f"{power:.12g}")


def _grid(
    parameter: Mapping[str, Any], path: str, ends: tuple[float, float], base: float | None, found: Mapping[str, Any]
) -> dict[str, Any]:
    """The values that Determined's grid takes of a range: evenly spaced, its ends among them."""
    if found["kind"] == "constant":
        return {}
    (low, high), place = ends, inside(path, "count")
    count, is_whole = whole(parameter.get("count"), place, 1), found["kind"] == "int"
    count = min(count, int(high - low) + 1) if is_whole else count
    if count > MOST_CHOICES:
        raise NotImportable(place, f"is more than {MOST_CHOICES}: make the grid coarser")
    spaced = [low + at * (high - low) / (count - 1) for at in range(count)] if count > 1 else [(low + high) / 2]
    values = [round(value) if is_whole else _value(float(f"{value:.12g}"), base, path) for value in spaced]
    return {"grid": list(dict.fromkeys(min(max(value, found["low"]), found["high"]) for value in values))}


def _length(document: Mapping[str, Any], searcher: Mapping[str, Any]) -> Generator[Note | Part, None, int | None]:
    """How far a trial trains; answers how often it reports on the way, where that is known."""
    path, unit, length = _longest(searcher)
    period = mapping(document.get("min_validation_period"), "/min_validation_period")
    if length is None:
        yield Note("/searcher", "does not say how far a trial trains: set the trainer's `epochs`")
        return None
    if unit == "records" and document.get("records_per_epoch"):
        unit, length = "epochs", length / whole(document["records_per_epoch"], "/records_per_epoch", 1)
        yield Note(path, f"records are counted in epochs here: changed to {length:g}")
    if not isinstance(searcher.get("max_length"), Mapping | None):
        yield Note(path, "a length without a unit is taken as batches")
    match unit:
        case "epochs":
            if period:
                yield Note("/min_validation_period", "a trial here validates every epoch: left out")
            yield from between(length, 1, 1000, path, "epochs")
            yield Part("trainer", {"epochs": nearest(length, 1, 1000)})
            return nearest(length, 1, 1000)
        case "batches":
            steps = max(1, round(length))
            every = (
                whole(period["batches"], "/min_validation_period/batches", 1)
                if period.get("batches")
                else -(-steps // (_rounds(searcher) or _REPORTS))
            )
            if not period.get("batches"):
                yield Note(path, f"a length in batches needs `report_every` here: set to {every}")
            yield Part("trainer", {"max_steps": steps, "report_every": min(every, steps)})
            return -(-steps // min(every, steps))
        case _:
            yield Note(
                path, f"a length in {unit} cannot be said here: set the trainer's `epochs`, or `max_steps` and `report_every`"
            )
            return None


def _longest(searcher: Mapping[str, Any]) -> tuple[str, str, float | None]:
    """Where the length of a trial stands, its unit, and the length."""
    rounds = _rounds(searcher)
    if rounds is not None:
        path, unit, length = _length_of(searcher, "length_per_round")
        return path, unit, None if length is None else length * rounds
    if searcher.get("max_time") is not None:
        unit = text(searcher.get("time_metric"), "/searcher/time_metric")
        return "/searcher/max_time", unit.rstrip("s") + "s", number(searcher["max_time"], "/searcher/max_time")
    return _length_of(searcher, "max_length")


def _length_of(searcher: Mapping[str, Any], key: str) -> tuple[str, str, float | None]:
    path, length = inside("/searcher", key), searcher.get(key)
    if length is None or not isinstance(length, Mapping):
        return path, "batches", None if length is None else number(length, path)
    for unit in _LENGTHS:
        if length.get(unit) is not None:
            return inside(path, unit), unit, number(length[unit], inside(path, unit))
    raise NotImportable(path, "must be one of `epochs`, `batches`, `records` with a number: mend it")


def _rounds(searcher: Mapping[str, Any]) -> int | None:
    """How many times the members of a population train before they are compared; together they are as long as a trial."""
    if searcher.get("name") != "pbt" or searcher.get("num_rounds") is None:
        return None
    return whole(searcher["num_rounds"], "/searcher/num_rounds", 1)


def _strategy(searcher: Mapping[str, Any], reports: int | None) -> Pieces:
    name = text(searcher.get("name"), "/searcher/name")
    match name:
        case "single":
            yield Note(
                "/searcher/name", "`single` trains one configuration: a study of one trial; raise `budget.trials` to search"
            )
            yield Part("budget", {"trials": 1})
            yield sampled("random")
        case "random" | "grid":
            yield sampled(name)
        case "adaptive" | "adaptive_simple" | "adaptive_asha" | "async_halving" | "sync_halving":
            yield from _halving(name, searcher, reports)
        case "pbt":
            yield from _population(searcher, reports)
        case _:
            yield Note("/searcher/name", f"`{name}` is not known here: changed to `random`")
            yield sampled("random")
    if searcher.get("max_trials") is not None:
        yield Part("budget", {"trials": whole(searcher["max_trials"], "/searcher/max_trials", 1)})
    elif name not in ("single", "grid", "pbt"):
        yield Note("/searcher/max_trials", "is left out: a study needs a limit; set one in `budget`")
    is_cut = name.startswith("adaptive") or name.endswith("_halving")
    known = _POPULATION if name == "pbt" else _HALVING if is_cut else ()
    yield from unknown(searcher, (*_SEARCHER, *known), "/searcher")


def _population(searcher: Mapping[str, Any], reports: int | None) -> Pieces:
    """After each round the worst members go, and changed copies of as many of the best come, as here."""
    found: dict[str, Any] = {"kind": "pbt"}
    rounds = _rounds(searcher)
    if searcher.get("population_size") is not None:
        place = "/searcher/population_size"
        found |= yield from members(place, whole(searcher["population_size"], place, 1))
    if rounds is None or reports is None:
        yield Note("/searcher/num_rounds", "how long a round is, is not known: set `interval`, the reports of one")
    else:
        found["interval"] = nearest(reports / rounds, 1, 1000)
        if found["interval"] >= reports:
            yield Note("/searcher/num_rounds", "in a single round nobody is compared: set `interval` below a trial's reports")
    path = "/searcher/replace_function"
    replacing = mapping(searcher.get("replace_function"), path)
    if replacing.get("truncate_fraction") is not None:
        place = inside(path, "truncate_fraction")
        found |= yield from quantile(place, number(replacing["truncate_fraction"], place))
    yield from unknown(replacing, ("truncate_fraction",), path)
    found |= yield from _explored(mapping(searcher.get("explore_function"), "/searcher/explore_function"))
    yield Part("strategy", found)


def _explored(exploring: Mapping[str, Any]) -> Generator[Note, None, dict[str, Any]]:
    """How a copy's parameters differ from its parent's: drawn anew with a probability, else times 1 - f or 1 + f."""
    path, found = "/searcher/explore_function", dict[str, Any]()
    if exploring.get("resample_probability") is not None:
        chance = number(exploring["resample_probability"], inside(path, "resample_probability"))
        found["resample_probability"] = min(1.0, max(0.0, float(chance)))
    if exploring.get("perturb_factor") is not None:
        place = inside(path, "perturb_factor")
        change = number(exploring["perturb_factor"], place)
        if not 0 < change < 1:
            yield Note(place, f"a copy's numbers change by a share above 0 and below 1 here, not {change:g}: left out")
        else:
            found["factors"] = [float(f"{1 - change:.12g}"), float(f"{1 + change:.12g}")]
    yield from unknown(exploring, ("resample_probability", "perturb_factor"), path)
    return found


def _halving(name: str, searcher: Mapping[str, Any], reports: int | None) -> Pieces:
    factor = number(_given(searcher, "divisor", _DIVISOR), "/searcher/divisor")
    if factor <= 1:
        raise NotImportable("/searcher/divisor", "must be above 1: mend it")
    key = "num_rungs" if name.endswith("_halving") else "max_rungs"
    rungs = whole(_given(searcher, key, _RUNGS), inside("/searcher", key), 1)
    least = 1.0 if reports is None else lowest_rung(reports, factor, rungs - 1)
    mode: Literal["sync", "async"] = "sync" if name in ("adaptive", "sync_halving") else "async"
    yield from hyperband("/searcher", mode=mode, factor=factor, least=least, sampler="random")


def _given(searcher: Mapping[str, Any], key: str, default: int) -> Any:
    return default if searcher.get(key) is None else searcher[key]


def _resources(resources: Mapping[str, Any], searcher: Mapping[str, Any]) -> Pieces:
    concurrent = searcher.get("max_concurrent_trials")
    if concurrent:
        yield Part("resources", {"max_concurrent_trials": min(whole(concurrent, "/searcher/max_concurrent_trials", 1), 1000)})
    slots = resources.get("slots_per_trial")
    if slots is None:
        yield Note(
            "/resources/slots_per_trial", "is left out, which is one GPU there and none here: set `resources.gpus_per_trial`"
        )
    else:
        yield Part("resources", {"gpus_per_trial": min(whole(slots, "/resources/slots_per_trial"), 64)})
    yield from unknown(resources, ("slots_per_trial",), "/resources", "the cluster hands out its own machines here: left out")

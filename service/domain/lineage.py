"""Where the weights of a population's members come from: each a chain of trials, one a copy of the other."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search_spaces import Configuration
from service.domain.trial import Trial


@dataclass(frozen=True)
class Stretch:
    """A part of the way: `trial` trained with `parameters` from report `first` (exclusive) to report `last`."""

    trial: int
    first: int
    last: int
    parameters: Configuration


@dataclass(frozen=True)
class Lineage:
    """One member of a population: the trial that fills it now, and all that trained its weights, in order."""

    member: int
    trial: Trial
    stretches: Sequence[Stretch]


def members_of(trials: Iterable[Trial]) -> Mapping[int, Sequence[Trial]]:
    """The trials that have filled each member of a population, in their order; trials that repeat another fill none."""
    found: defaultdict[int, list[Trial]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.repeats is None:
            found[trial.bracket].append(trial)
    return found


def lineages(trials: Mapping[int, Trial]) -> Sequence[Lineage]:
    """The way of each member of a population, by its number."""
    newest = {member: there[-1] for member, there in sorted(members_of(trials.values()).items())}
    return [Lineage(member, trial, stretches_of(trials, trial)) for member, trial in newest.items()]


def stretches_of(trials: Mapping[int, Trial], trial: Trial) -> Sequence[Stretch]:
    """The way to a trial's last report, from the trial that began from nothing on."""
    found = [Stretch(trial.number, trial.parent_report, trial.reports, trial.parameters)]
    while trial.parent is not None:
        copied, trial = trial.parent_report, trials[trial.parent]
        found.append(Stretch(trial.number, trial.parent_report, copied, trial.parameters))
    return found[::-1]

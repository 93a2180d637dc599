"""Which configuration next: drawn at random, taken from a grid or a sequence, or proposed by a model of the trials so far."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from search_spaces import Configuration, Key
from service.domain.decision import Decision
from service.domain.history import History
from service.domain.strategy import (
    AutoSampler,
    AutoStrategy,
    BayesianSampler,
    BayesianStrategy,
    BohbSampler,
    CmaesSampler,
    GpSampler,
    GridStrategy,
    HyperbandStrategy,
    MedianStrategy,
    Nsga2Sampler,
    PbtStrategy,
    RandomSampler,
    RandomStrategy,
    SobolStrategy,
    TpeSampler,
)
from service.domain.study import Study
from service.search.cmaes import cmaes_proposals
from service.search.draws import draw_unseen, random_of, seed_of
from service.search.evidence import Evidence, rung_evidence, whole_evidence
from service.search.gaussian_process import gaussian_process_proposals
from service.search.grid import grid_configuration
from service.search.memory import key_of, keys_of
from service.search.nsga2 import nsga2_proposals
from service.search.sobol import sobol_configuration
from service.search.tpe import parzen_proposals


@dataclass(frozen=True)
class Proposal:
    """A configuration that no trial has, and what proposed it."""

    parameters: Configuration
    by: str
    evidence: Evidence = field(default_factory=Evidence)

    def decision(self, study: Study, history: History, bracket: int = 0, rung: int = 0) -> Decision:
        """The reason for a trial with this configuration."""
        observations = self.evidence.measured
        return Decision(
            kind="proposed", by=self.by, bracket=bracket, rung=rung,
            observations=observations or None, report=self.evidence.report if observations else None,
        ).beside(history.best(study.definition.objective))  # fmt: skip


def next_number(history: History) -> int:
    """The number of the next trial: they count from 0."""
    return max(history.last_number, history.greatest) + 1


def propose(study: Study, history: History, number: int) -> Proposal | None:
    """The configuration of a new trial, one that no trial has; None when the space holds no other.

    What users asked for comes first, in their order; then the strategy's own.
    """
    space = study.definition.search_space
    seen = keys_of(space, history.trials.values())
    return asked_for(study, history, seen) or _Draw(study, history, number, seen).proposal()


def asked_for(study: Study, history: History, seen: AbstractSet[Key]) -> Proposal | None:
    """The first configuration that users asked for and that is not in `seen`."""
    space = study.definition.search_space
    for source, asked in (("request", history.requested), ("initial", study.definition.initial)):
        unseen = next((one for one in asked if key_of(space, one) not in seen), None)
        if unseen is not None:
            return Proposal(unseen, source)
    return None


@dataclass(frozen=True)
class _Draw:
    """One question to the strategy."""

    study: Study
    history: History
    number: int
    seen: AbstractSet[Key]

    def proposal(self) -> Proposal | None:
        definition = self.study.definition
        strategy = definition.plan.strategy
        match strategy:
            case GridStrategy():
                found = grid_configuration(definition.search_space, definition.seed, self.number, self.seen)
                return None if found is None else Proposal(found, "grid")
            case RandomStrategy() | PbtStrategy():
                return self._random()
            case SobolStrategy():
                found = sobol_configuration(definition.search_space, definition.seed, self.seen)
                return Proposal(found, "sobol") if found is not None else self._random()
            case BayesianStrategy(sampler=sampler) | MedianStrategy(sampler=sampler):
                return self._sampled(sampler)
            case HyperbandStrategy(sampler=sampler):
                return self._sampled(sampler)
            case AutoStrategy():
                raise AssertionError("a plan leaves nothing open")
            case _:
                assert_never(strategy)

    def _sampled(self, sampler: RandomSampler | BohbSampler | BayesianSampler) -> Proposal | None:
        study, history = self.study, self.history
        match sampler:
            case RandomSampler():
                return self._random()
            case BohbSampler():
                if random_of(study.definition.seed, self.number, "share").random() < sampler.random_share:
                    return self._random()
                return self._modelled("tpe", rung_evidence(study, history, sampler.startup_trials), self._parzen)
            case TpeSampler() | GpSampler():
                evidence = whole_evidence(study, history)
                known = evidence if evidence.measured >= sampler.startup_trials else Evidence()
                ask = self._parzen if isinstance(sampler, TpeSampler) else self._gaussian_process
                return self._modelled(sampler.kind, known, ask)
            case CmaesSampler():
                proposals = cmaes_proposals(study, history, self.number, sampler)
                return self._first("cmaes", Evidence(), proposals) or self._random()
            case Nsga2Sampler(population=population):
                evidence = whole_evidence(study, history)
                known = evidence if evidence.measured >= population else Evidence()
                return self._modelled("nsga2", known, partial(self._bred, population))
            case AutoSampler():
                raise AssertionError("a plan leaves nothing open")
            case _:
                assert_never(sampler)

    def _random(self) -> Proposal | None:
        drawn = draw_unseen(
            self.study.definition.search_space, self.seen, random_of(self.study.definition.seed, self.number, "draw")
        )
        return None if drawn is None else Proposal(drawn, "random")

    def _modelled(self, by: str, evidence: Evidence, ask: Callable[[Evidence], Iterator[Configuration]]) -> Proposal | None:
        """The model's proposal; a random draw, by trial number, before the model is trusted or when it only repeats itself."""
        if evidence.measured < _FEWEST_FOR_A_MODEL:
            return self._random()
        return self._first(by, evidence, ask(evidence)) or self._random()

    def _first(self, by: str, evidence: Evidence, proposals: Iterator[Configuration]) -> Proposal | None:
        space = self.study.definition.search_space
        unseen = next((one for one in proposals if space.key(one) not in self.seen), None)
        return None if unseen is None else Proposal(unseen, by, evidence)

    def _parzen(self, evidence: Evidence) -> Iterator[Configuration]:
        definition = self.study.definition
        return parzen_proposals(
            definition.search_space,
            evidence.ranked(definition.objectives),
            evidence.pending,
            self.seen,
            seed_of(definition.seed, self.number, "model 0"),
        )

    def _bred(self, population: int, evidence: Evidence) -> Iterator[Configuration]:
        definition = self.study.definition
        ranked = evidence.ranked(definition.objectives)
        return nsga2_proposals(definition.search_space, ranked, population, self.seen, (definition.seed, self.number))

    def _gaussian_process(self, evidence: Evidence) -> Iterator[Configuration]:
        if not any(one.is_measured for one in evidence.observations):
            return iter(())  # all break the outcomes
        return gaussian_process_proposals(self.study.definition, evidence.observations, self.number)


_FEWEST_FOR_A_MODEL = 2
"""A model splits what it knows into a better and a worse part."""

"""All that a query finds, page by page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeVar

from service.domain.ports import Page, StudyQuery, StudyStore, TrialQuery, TrialStore
from service.domain.study import Study, StudyState
from service.domain.trial import Trial

_Query = TypeVar("_Query", StudyQuery, TrialQuery)
_Found = TypeVar("_Found")
_ACTIVE = frozenset(state for state in StudyState if not state.is_end)


def pages_of(find: Callable[[_Query], Page[_Found]], query: _Query) -> Iterator[Sequence[_Found]]:
    """Page after page of at most `query.limit`, each asked for once the one before it is done with."""
    while True:
        page = find(query)
        yield page.items
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


def all_studies(studies: StudyStore, query: StudyQuery) -> Iterator[Study]:
    """Every study that the query is about."""
    return chain.from_iterable(pages_of(studies.find, query))


def active_studies(studies: StudyStore) -> Iterator[Study]:
    """Every study that has not ended, the oldest first."""
    return all_studies(studies, StudyQuery(states=_ACTIVE, order="created_at", limit=500))


def all_trials(trials: TrialStore, study_id: str) -> Iterator[Trial]:
    """Every trial of a study, by number."""
    return chain.from_iterable(pages_of(partial(trials.find, study_id), TrialQuery(limit=1000)))

"""What is kept of the rows that are read again and again."""

from typing import Any

from service.store.rows import study_of, study_row
from tests.builders import a_study


def a_row(configurations: int) -> Any:
    space = {name: {"kind": "float", "low": 1e-6, "high": 0.5} for name in ("learning_rate", "weight_decay", "warmup_fraction")}
    return study_row(a_study(space=space, initial=[dict.fromkeys(space, 1 / (3 + place)) for place in range(configurations)]))


def test_a_definition_is_parsed_once_but_for_one_so_long_that_many_of_its_kind_would_fill_the_memory() -> None:
    short, long = a_row(1), a_row(1000)
    assert len(short["definition"]) < 64_000 < len(long["definition"])
    assert study_of(short).definition is study_of(short).definition
    assert study_of(long).definition is not study_of(long).definition
    assert study_of(long).definition == study_of(long).definition

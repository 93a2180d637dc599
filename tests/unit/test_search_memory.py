"""What is worked out once is what would be worked out anew."""

from hypothesis import given
from hypothesis import strategies as st

from search_spaces import FloatParameter, Key, Space
from service.domain.trial import Trial
from service.search.memory import keys_of
from tests.builders import a_trial

SPACE = Space({"learning_rate": FloatParameter(kind="float", low=0.0, high=1.0)})
TRIALS = [a_trial(number, parameters={"learning_rate": number / 10}) for number in range(6)]
OTHERS = [a_trial(number, parameters={"learning_rate": 1 - number / 10}) for number in range(6)]


def anew(trials: list[Trial]) -> set[Key]:
    return {SPACE.key(trial.parameters) for trial in trials}


@given(lengths=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=10))
def test_the_keys_are_those_of_the_trials_whoever_asked_before(lengths: list[tuple[bool, int]]) -> None:
    for is_other, length in lengths:
        trials = (OTHERS if is_other else TRIALS)[:length]
        assert keys_of(SPACE, trials) == anew(trials)

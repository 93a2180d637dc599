"""Any process may die at any moment: a short run; `make chaos` is the long one."""

import os
import sys
from pathlib import Path

import pytest

from tests.chaos.outcome import table
from tests.chaos.run import OWNER_SECONDS, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

KILLS = 6
SEED = int(os.environ.get("CHAOS_SEED", "1"))


def test_studies_of_several_strategies_lose_nothing_whatever_is_killed(tmp_path: Path) -> None:
    # Ray's agents notice by timers of its own, which are late where other tests are at work too.
    outcome = run(tmp_path, SEED, KILLS, at_once=2, seconds_to_end=600.0, owner_seconds=1.5 * OWNER_SECONDS)
    sys.stdout.write("\n".join(table(outcome)) + "\n")
    assert len(outcome.hits) == KILLS
    assert outcome.findings == []
    assert outcome.outlived == []

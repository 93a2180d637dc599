"""What holds for every test."""

import pytest
from hypothesis import HealthCheck, settings

# Its asserts say what differs, as a test's own do.
pytest.register_assert_rewrite("tests.integration.agreement")

# How long an example takes says more of the machine, and of who else is at work on it, than of what is tested.
settings.register_profile("tuneyard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tuneyard")

"""What holds for every test."""

from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine, and of who else is at work on it, than of what is tested.
settings.register_profile("tuneyard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tuneyard")

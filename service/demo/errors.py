"""Why a demo ends early."""

from service.domain.errors import TuneyardError


class DemoFailed(TuneyardError):
    """The demo cannot go on."""

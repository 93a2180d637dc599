"""`make demo`: what the service is for, on one machine, from a POSTed study to predictions of the best checkpoint."""

from service.demo.story import main

__all__ = ["main"]

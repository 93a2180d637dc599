"""`make demo`: the main job on one machine, from a POSTed study to predictions of the best checkpoint."""

from service.demo.story import main

__all__ = ["main"]

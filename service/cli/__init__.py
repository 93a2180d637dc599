"""The command line. Commands import what they need when they run, so that `--help` is quick."""

from service.cli.app import main, run

__all__ = ["main", "run"]

"""What a run should say about the software it ran on, read without importing any of it."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("ray", "torch", "transformers", "optuna", "mlflow", "numpy")
_GIT_SECONDS = 5.0


def surroundings(folder: Path) -> Mapping[str, str]:
    """Versions of Python and of what trains and searches, the system, and the git revision that `folder` is of, if any."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    revision = _git_revision(folder)
    return {**found, "git_revision": revision} if revision else found


def _git_revision(folder: Path) -> str | None:
    """The revision checked out around `folder`, if that is in it: an environment may lie within somebody else's repository."""
    try:
        answer = subprocess.run(  # noqa: S603 - no shell, and nothing of a client's in it
            ["git", "-C", str(folder), "rev-parse", "HEAD:./", "HEAD"],  # noqa: S607 - the user's own git, wherever it is
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split()[-1]

"""Known holes of the pinned packages, as pip-audit knows them; `make check` runs it.

Fails for a hole that is known. Where the advisories cannot be reached it says so and fails nothing. What was found is kept for
a day.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".venv" / "audit.json"
_DAY_SECONDS = 86400.0
_LONGEST_SECONDS = 300.0
_PROBE = "certifi"


def main() -> int:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    kept = _kept(pins)
    if kept is not None:
        return said(kept)
    probe = [pin for pin in pins if pin.startswith(f"{_PROBE}==")]
    audited = _audited(probe)
    if audited and not is_reached(audited):
        audited = []
    found = _audited(pins) if audited else []
    if is_reached(found):
        KEPT.write_text(json.dumps({"of": _digest(pins), "packages": found}))
    return said(found)


def is_reached(packages: Sequence[dict[str, Any]]) -> bool:
    """Whether anything was known of any of them."""
    return any("skip_reason" not in package for package in packages)


def said(packages: Sequence[dict[str, Any]]) -> int:
    """Print what is known of them; the exit code."""
    if not is_reached(packages):
        sys.stdout.write("skipped: the advisories cannot be reached\n")
        return 0
    holes = [(package["name"], package["version"], hole) for package in packages for hole in package.get("vulns", ())]
    for name, version, hole in holes:
        mended = ", ".join(hole.get("fix_versions", ())) or "no version"
        sys.stderr.write(f"{name} {version} has the known hole {hole['id']}, mended in {mended}\n")
    return 1 if holes else 0


def _audited(pins: Sequence[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each; nothing where it cannot be asked."""
    command = [
        str(Path(sys.executable).with_name("pip-audit")),
        "--no-deps",
        "--disable-pip",
        "--progress-spinner=off",
        "--format=json",
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(pins) + "\n")
        listed.flush()
        try:
            answer = subprocess.run(
                [*command, "--requirement", listed.name], capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS
            )
            packages: list[dict[str, Any]] = json.loads(answer.stdout)["dependencies"]
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
            return []
    return packages


def _kept(pins: Sequence[str]) -> list[dict[str, Any]] | None:
    try:
        if time.time() - KEPT.stat().st_mtime > _DAY_SECONDS:
            return None
        kept = json.loads(KEPT.read_text())
        packages: list[dict[str, Any]] = kept["packages"]
    except (OSError, ValueError, KeyError):
        return None
    return packages if kept["of"] == _digest(pins) else None


def _digest(pins: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""Make `.venv` hold what pyproject.toml asks for, in the versions of constraints.txt. `make` runs it, with a bare Python.

uv installs in seconds what takes pip minutes, but it reads none of pip's settings: they are translated here, as a machine that
was set up for pip may reach its packages in no other way. Where uv fails, pip tries.
"""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.txt"
"""Written last. An environment without it was left half made: it is made anew, from what uv has downloaded already."""
CONSTRAINTS = ROOT / "constraints.txt"
TARGET = ".[demo,postgres,dev]"


def main() -> int:
    wanted = _wanted()
    if STAMP.is_file() and STAMP.read_text() == wanted and PYTHON.exists():
        return 0
    try:
        _make_venv()
        _install()
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error.stdout or ''}{error.stderr or ''}\n")
        sys.stderr.write("The installation failed: mend what is said above, then run make again.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted: the next `make` installs again.\n")
        return 130
    STAMP.write_text(wanted)
    return 0


def _wanted() -> str:
    """What tells one installation from another: the requirements, the versions, and where it is, which its scripts name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [project["build-system"], project["project"], CONSTRAINTS.read_text(), TARGET, str(ROOT)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest() + "\n"


def _make_venv() -> None:
    if VENV.exists() and not (STAMP.exists() and _is_usable()):
        shutil.rmtree(VENV)
    if not VENV.exists():
        _say("Making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
        _run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(VENV)])
    STAMP.unlink(missing_ok=True)


def _is_usable() -> bool:
    """Whether `.venv` was made here, by a Python that is still there and fits, and has pip."""
    check = "import sys, pip; assert (3, 11) <= sys.version_info[:2] <= (3, 13); print(sys.prefix)"
    try:
        answer = subprocess.run([PYTHON, "-I", "-c", check], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    script = VENV / "bin" / "pip"
    return answer.stdout.strip() == str(VENV) and script.is_file() and str(PYTHON.parent) in script.read_text()


def _install() -> None:
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    uv = [str(PYTHON), "-m", "uv", "--quiet"]
    settings = pip_settings(_run([str(PYTHON), "-m", "pip", "config", "list"]))
    environment = {**uv_environment(settings, os.environ), **os.environ, "VIRTUAL_ENV": str(VENV)}
    if not environment.get("HOME"):
        environment["UV_CACHE_DIR"] = str(VENV / "cache")
    _say("Installing uv")
    _run([*pip, "install", "--constraint", str(CONSTRAINTS), "uv"])
    _say("Installing the packages of constraints.txt (about 1.5 GB on disk; the first time takes some minutes)")
    pinned = ["--constraint", str(CONSTRAINTS), "--editable", TARGET]
    try:
        _run([*uv, "pip", "install", "--build-constraint", str(CONSTRAINTS), *pinned], environment)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error.stderr}\nuv failed: trying with pip, which takes longer\n")
        _run([*pip, "install", *pinned])


def pip_settings(listed: str) -> dict[str, str]:
    """The settings by name, from what `pip config list` prints: the environment's count before `install`'s and `global`'s."""
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            key, separator, value = line.partition("=")
            if separator and key.startswith(section):
                found[key.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell uv what pip was told; those of uv that are set already are the user's word."""
    found: dict[str, str] = {}
    for setting, variable in _SAME.items():
        if setting in settings:
            found[variable] = settings[setting]
    links = [link for link in settings.get("find-links", "").split() if _may_exist(link)]
    if links:
        found["UV_FIND_LINKS"] = ",".join(links)
    indexes = [index for index in settings.get("extra-index-url", "").split() if _may_exist(index)]
    if indexes:
        found["UV_INDEX"] = " ".join(indexes)
        # As pip does it: the best version of all indexes. uv alone stops at the first index that has the package.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        found["UV_NO_INDEX"] = "1"
    return {name: value for name, value in found.items() if name not in environment}


_SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
}


def _may_exist(place: str) -> bool:
    """Whether a place may be there. pip passes over folders that are not; uv does not."""
    if "://" in place and not place.startswith("file://"):
        return True
    return Path(place.removeprefix("file://")).expanduser().exists()


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run in the repository, without input; answers what it printed, raises CalledProcessError with it."""
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""What holds for the repository as a whole: its versions, its licence, and what no file of it may hold."""

import importlib.util
import re
import subprocess
import sys
import sysconfig
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def _installer() -> Any:
    """The script that `make` runs with a bare Python."""
    spec = importlib.util.spec_from_file_location("install", ROOT / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = _installer()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.]*)")
MACHINE_PATH = re.compile(r"(?<![\w.$~{}*/<-])/(?:tmp|work|root|home|Users)/[\w.]")
IMAGE_PATHS = ("/root/.cache/uv", "/home/tuneyard")
"""Paths inside the images."""
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org|download\.pytorch|[/@.]artifactory|[/@]nexus", re.IGNORECASE
)
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".h5", ".pkl", ".pickle", ".npz", ".npy", ".whl"}
LARGEST_BYTES = 2 * 1024**2


@cache
def files() -> tuple[Path, ...]:
    """Every file that is in the repository or would be at the next commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def found_in_texts(pattern: re.Pattern[str], *, passed: tuple[str, ...] = ()) -> list[str]:
    """Lines of text files that match, without this file, which has to name what it looks for."""
    found = []
    for path in files():
        content = path.read_bytes()
        if path == Path(__file__) or b"\0" in content:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            for known in passed:
                line = line.replace(known, "")  # noqa: PLW2901 - what is left of the line
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def pins() -> dict[str, str]:
    matches = [PIN.fullmatch(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {match["name"]: match["version"] for match in matches if match}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for group in (PROJECT["dependencies"], *extras) for line in group]


def test_files_are_named_as_files_usually_are() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in files()]
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9_./-]+", name)] == []


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_every_direct_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    versions = pins()
    unpinned = [
        str(wanted)
        for wanted in requirements()
        if not wanted.specifier.contains(versions.get(canonicalize_name(wanted.name), "unpinned"), prereleases=True)
    ]
    assert unpinned == []


def needed() -> dict[str, str]:
    """Versions of everything installed that the project needs, however indirectly, on this machine."""
    found: dict[str, str] = {}
    waiting = requirements()
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        package = _installed(wanted.name)
        if package.name == "pip":  # it comes with the virtual environment
            continue
        found[canonicalize_name(wanted.name)] = package.version
        for line in package.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*wanted.extras, "")):
                waiting.append(requirement)
    return found


def _installed(name: str) -> metadata.Distribution:
    """The environment's own: once Ray is imported, `sys.path` begins with the packages that Ray's wheel carries with it."""
    return next(iter(metadata.distributions(name=name, path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])))


def test_everything_that_is_needed_is_pinned_and_installed_as_pinned() -> None:
    versions = pins()
    wrong = {name: version for name, version in needed().items() if versions.get(name) != version.partition("+")[0]}
    assert wrong == {}


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert found_in_texts(MACHINE_PATH, passed=IMAGE_PATHS) == []


@pytest.mark.parametrize("line", ['open("/tmp/x")', "see /root/notes", "PATH=/work/main", "`/home/me/.cache`"])
def test_the_look_for_machine_paths_sees_one(line: str) -> None:
    assert MACHINE_PATH.search(line)


def test_no_file_names_a_registry() -> None:
    assert found_in_texts(REGISTRY) == []


def test_no_file_carries_weights_or_is_large() -> None:
    heavy = [str(path.relative_to(ROOT)) for path in files() if path.suffix in WEIGHTS or path.stat().st_size > LARGEST_BYTES]
    assert heavy == []


def test_the_licence_is_apache_2() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in licence
    assert "Version 2.0, January 2004" in licence
    assert licence.rstrip().endswith("limitations under the License.")
    assert PROJECT["license"] == "Apache-2.0"


def test_entry_points_can_be_called() -> None:
    for target in PROJECT["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_makefile_has_every_target_that_the_readme_names() -> None:
    named = set(re.findall(r"^\s*make ([a-z-]+)|`make ([a-z-]+)[ `]", (ROOT / "README.md").read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = {one or other for one, other in named}
    assert wanted >= {"demo", "test", "serve"}
    assert wanted - targets == set()


def test_pips_settings_reach_uv(tmp_path: Path) -> None:
    listed = f"""global.cert='old.pem'
global.find-links='\\n{tmp_path}\\n{tmp_path / "missing"}'
global.index-url='https://packages.example/simple'
global.extra-index-url='https://more.example/simple file://{tmp_path / "missing"}'
install.cert='newer.pem'
:env:.cert='newest.pem'
:env:.timeout='180'
"""
    assert install.uv_environment(install.pip_settings(listed), {"UV_HTTP_TIMEOUT": "9"}) == {
        "SSL_CERT_FILE": "newest.pem",
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "UV_FIND_LINKS": str(tmp_path),
        "UV_INDEX": "https://more.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_without_pips_settings_uv_is_told_nothing() -> None:
    assert install.uv_environment(install.pip_settings(""), {}) == {}


def test_the_installation_needs_the_standard_library_alone() -> None:
    script = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='looked at')"
    subprocess.run([sys.executable, "-I", "-S", "-c", script, str(ROOT / ".ci" / "install.py")], check=True, timeout=100)

"""buildah and podman with a storage of their own, so that nothing of this machine's images and containers is touched."""

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD_SECONDS = 3600
_ORDINARY_SECONDS = 300
_PULL_SECONDS = 60
_OPEN_FILES = 20_000


class Unable(Exception):
    """Something is missing, or did not work. Its text says what to do."""


@dataclass(frozen=True)
class Index:
    """What pip is told on this machine of its packages, as files that a build may read, and the folders that they name."""

    secrets: tuple[str, ...]
    folders: tuple[Path, ...]


class Engine:
    """Builds, runs and removes. `folder` holds the storage and everything else, and is deleted by `remove_storage`."""

    def __init__(self, folder: Path) -> None:
        missing = [program for program in ("buildah", "podman") if shutil.which(program) is None]
        if missing:
            raise Unable(
                f"{' and '.join(missing)} not found: run `apt-get install buildah podman debootstrap netavark iptables`."
            )
        self.folder = folder
        self.index = _index(folder)
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self._environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
        self._storage = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver"]
        overlay = self._try(["podman", *self._storage, "overlay", "info"])
        self._storage.append("overlay" if overlay.returncode == 0 else "vfs")
        # Root's networks are in one folder for all storages, unless another one is named.
        networks = ["--network-config-dir", str(folder / "networks")]
        self._podman: list[str] = ["podman", *self._storage, *networks, "--cgroup-manager", "cgroupfs"]
        self._limits: list[str] = []

    def podman(self, *arguments: str, seconds: float = _ORDINARY_SECONDS) -> str:
        """Run podman; answers what it printed, raises Unable with what it complained of."""
        return self._run([*self._podman, *arguments], seconds)

    def asks(self, *arguments: str) -> bool:
        """Whether podman ends well with these arguments."""
        return self._try([*self._podman, *arguments]).returncode == 0

    def start(self, *arguments: str) -> None:
        """Start a container in the background."""
        self.podman("run", "--detach", *self._limits, *arguments)

    def answer_of(self, image: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of its own, without network and hardened as in compose.yaml."""
        hard = ["--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
        return self._try([*self._podman, "run", "--rm", *self._limits, *hard, image, *command])

    def has(self, image: str) -> bool:
        """Whether the image is here, or a registry gives it."""
        return self.asks("image", "exists", image) or self._pulls(image)

    def import_folder(self, folder: Path, image: str) -> None:
        """Make an image of one layer that holds a folder."""
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", "--quiet", container, str(folder), "/")
        self._buildah("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self._buildah("commit", "--quiet", "--rm", container, image)

    def build(self, dockerfile: Path, image: str, arguments: Sequence[str] = ()) -> None:
        """Build an image. Only its first stage is shown this machine's packages; the last one finds it done."""
        common = ["build", "--isolation=chroot", "--network=host", "--pull=never", "--format=docker", "--layers"]
        command = [*common, *(f"--build-arg={argument}" for argument in arguments), f"--file={dockerfile}"]
        index = [*(f"--secret={secret}" for secret in self.index.secrets)]
        index += [f"--volume={folder}:{folder}:ro" for folder in self.index.folders]
        if " AS build\n" in dockerfile.read_text():
            self._buildah(*command, *index, "--target=build", str(ROOT), seconds=BUILD_SECONDS)
        self._buildah(*command, f"--tag={image}", str(ROOT), seconds=BUILD_SECONDS)

    def find_a_way(self, image: str) -> str:
        """Find how containers can be started here, from the ordinary way to those for machines that forbid a part of it."""
        files = min(_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        limits = [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={_OPEN_FILES}:{_OPEN_FILES}"]
        said = ""
        for runtime in ([], ["--runtime=runc"], ["--runtime=crun"]):
            for tried in ([], limits):
                answer = self._try([*self._podman, *runtime, "run", "--rm", *tried, image, "true"])
                if answer.returncode == 0:
                    self._podman += runtime
                    self._limits = tried
                    return " ".join([self._storage[-1], *runtime, *tried])
                said = answer.stderr.strip() or said
        raise Unable(f"podman starts no container here. Install runc and iptables. It said last:\n{said}")

    def megabytes(self, image: str) -> float:
        """The size of an image, its base included."""
        return float(json.loads(self.podman("image", "inspect", image))[0]["Size"]) / 1e6

    def remove_containers(self) -> None:
        """Remove every container, network and volume of this storage."""
        self._try([*self._podman, "rm", "--all", "--force", "--time", "10"])
        self._try([*self._podman, "volume", "prune", "--force"])
        self._try([*self._podman, "network", "prune", "--force"])
        self._try(["buildah", *self._storage, "rm", "--all"])  # what a build that was interrupted has left mounted

    def remove_storage(self) -> None:
        """Remove the images too, and the folder."""
        if os.geteuid() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:  # what other users of a container wrote is theirs
            self._try(["podman", "unshare", "rm", "-rf", str(self.folder)])

    def _buildah(self, *arguments: str, seconds: float = _ORDINARY_SECONDS) -> str:
        return self._run(["buildah", *self._storage, *arguments], seconds)

    def _pulls(self, image: str) -> bool:
        return self._try([*self._podman, "pull", "--quiet", image], _PULL_SECONDS).returncode == 0

    def _run(self, command: list[str], seconds: float) -> str:
        answer = self._try(command, seconds)
        if answer.returncode:
            last = "\n".join(f"{answer.stdout}\n{answer.stderr}".strip().splitlines()[-25:])
            raise Unable(f"This failed: {' '.join(command)}\n{last}")
        return answer.stdout

    def _try(self, command: list[str], seconds: float = _ORDINARY_SECONDS) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no end after {seconds:.0f} s")


def _index(folder: Path) -> Index:
    """Write pip's settings down for pip and for uv."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = _installer().pip_settings(listed)
    links = [link for link in settings.get("find-links", "").split() if "://" in link or Path(link).is_dir()]
    indexes = [url for url in settings.get("extra-index-url", "").split() if "file://" not in url or _place(url).is_dir()]
    kept = {key: settings[key] for key in ("index-url", "cert", "trusted-host", "default-timeout", "proxy") if key in settings}
    kept |= {"find-links": "\n  ".join(links), "extra-index-url": "\n  ".join(indexes)}
    told = {"system-certs": True, "find-links": links, "extra-index-url": indexes, "index-strategy": "unsafe-best-match"}
    if "index-url" in settings:
        told["index-url"] = settings["index-url"]
    if "trusted-host" in settings:
        told["allow-insecure-host"] = settings["trusted-host"].split()
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in kept.items() if value))
    (folder / "uv.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items()))
    places = [Path(link) for link in links if "://" not in link] + [_place(url).parent for url in indexes if "file://" in url]
    if "cert" in settings:
        places.append(Path(settings["cert"]))
    secrets = tuple(f"id={name},src={folder / file}" for name, file in (("pip", "pip.conf"), ("uv", "uv.toml")))
    return Index(secrets, tuple(places))


def _place(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _installer() -> Any:
    """The script that installs for `make`, which reads pip's settings too."""
    spec = importlib.util.spec_from_file_location("install", ROOT / ".ci" / "install.py")
    if spec is None or spec.loader is None:
        raise Unable(".ci/install.py is missing: run this in a whole checkout.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

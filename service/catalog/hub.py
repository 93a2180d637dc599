"""The Hugging Face hub and its caches on this machine. No pickle and no code is ever downloaded."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol, TypeVar

from service.catalog.cards import CARD, parse_card
from service.catalog.headers import Weights, check_json_size, read_json
from service.domain.base_models import ModelCard
from service.domain.errors import ModelNotFound, TuneyardError, UnusableModel

_WEIGHTS = "*.safetensors"
DOWNLOADED = (_WEIGHTS, "*.json", "*.txt", "tokenizer.model", "*.spm", CARD)
"""Names of the files that are ever downloaded: none of them is a pickle or code."""

_NAME = re.compile(r"(?:\w(?:[\w.-]*\w)?/)?\w(?:[\w.-]*\w)?", re.ASCII)
_LONGEST_NAME = 96
_LOOK_SECONDS = 5.0
_REQUEST_SECONDS = 3.0
_UNREACHABLE_SECONDS = 30.0
_LARGEST_CARD_BYTES = 1_000_000

_UNKNOWN = Weights()
CONSENT = (
    "give it on its page on the hub, run `hf auth login` where the service runs, and set TUNEYARD_HUB_ACCOUNT=1, which lets "
    "everybody here use what that account may"
)
"""What to do about a repository that only accounts see which agreed to something."""
PRIVATE = "private ones need TUNEYARD_HUB_ACCOUNT=1"

HubToken = Literal[False] | None
"""As the hub's client has it: False is nobody, and None whoever is logged in on this machine, if anybody is."""
T = TypeVar("T")


def is_hub_name(name: str) -> bool:
    """Whether a model on the hub can have this name."""
    return len(name) <= _LONGEST_NAME and bool(_NAME.fullmatch(name)) and not re.search(r"\.\.|--|\.git$", name)


@dataclass(frozen=True)
class RemoteModel:
    """What the hub says of a model: its configuration, None when it has none, and its files' names, without folders."""

    config: Mapping[str, Any] | None
    files: frozenset[str]
    weights: Weights = _UNKNOWN
    card: ModelCard | None = None


class Hub(Protocol):
    """Where models are that are not on this machine."""

    def look(self, name: str) -> RemoteModel:
        """Read about a model; returns within seconds. Raises ModelNotFound, UnusableModel."""
        ...

    def download(self, name: str, *, weights: bool = True) -> Path:
        """The model's folder on this machine, downloaded, with its weights or without. Raises ModelNotFound, UnusableModel."""
        ...


class HubCache:
    """What was downloaded from the hub earlier: by the user, in the ordinary cache, or by this service into `own`."""

    def __init__(self, own: Path, ordinary: Path | None = None) -> None:
        self.own = own
        self._ordinary = ordinary

    def names(self) -> Iterator[str]:
        """Every model that something was downloaded of."""
        for cache in self._caches():
            for folder in sorted(cache.glob("models--*")) if cache.is_dir() else ():
                yield folder.name.removeprefix("models--").replace("--", "/")

    def find(self, name: str) -> Path | None:
        """The folder with the model's config.json, the user's before ours; it may lack other files."""
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - 0.3 s

        if not is_hub_name(name):
            return None
        for cache in self._caches():
            config = try_to_load_from_cache(name, "config.json", cache_dir=cache)
            if isinstance(config, str):
                return Path(config).parent
        return None

    def _caches(self) -> tuple[Path, Path]:
        from huggingface_hub import constants  # noqa: PLC0415 - 0.3 s

        return self._ordinary or Path(constants.HF_HUB_CACHE), self.own


def token_for(*, as_account: bool) -> HubToken:
    """Whom the hub is asked as."""
    return None if as_account else False


class HuggingFaceHub:
    """The hub itself. Downloads go to `cache`. It is asked as nobody, or as this machine's account where `as_account`."""

    def __init__(self, cache: Path, *, as_account: bool = False) -> None:
        self._cache = cache
        self._token = token_for(as_account=as_account)
        self._asked_again_at = 0.0

    def look(self, name: str) -> RemoteModel:
        self._check_reachable(name)
        return self._answer(name, lambda: within(_LOOK_SECONDS, lambda: _look(name, self._cache, self._token)))

    def download(self, name: str, *, weights: bool = True) -> Path:
        self._check_reachable(name)
        return self._answer(name, lambda: _download(name, self._cache, self._token, weights=weights))

    def _check_reachable(self, name: str) -> None:
        from huggingface_hub import is_offline_mode  # noqa: PLC0415 - 0.3 s

        if is_offline_mode():
            raise ModelNotFound(f"{name!r} is not on this machine, and HF_HUB_OFFLINE forbids to ask the Hugging Face hub.")
        if time.monotonic() < self._asked_again_at:
            raise _unreachable(name)

    def _answer(self, name: str, ask: Callable[[], T]) -> T:
        from huggingface_hub import errors  # noqa: PLC0415 - 0.3 s

        try:
            return ask()
        except TuneyardError:
            raise
        except errors.GatedRepoError as error:
            raise UnusableModel(f"{name!r} asks for consent: {CONSENT}") from error
        except errors.RepositoryNotFoundError as error:
            detail = f"the Hugging Face hub has no model {name!r} for us: check its name; {PRIVATE}"
            raise ModelNotFound(detail) from error
        except Exception as error:
            # Several names of one study, and several studies, do not wait one after the other.
            self._asked_again_at = time.monotonic() + _UNREACHABLE_SECONDS
            raise _unreachable(name) from error


def _unreachable(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"{name!r} is not on this machine, and the Hugging Face hub could not be reached: try again, or name a folder under "
        "a model root (`tuneyard serve --model-root FOLDER`)"
    )


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns; raises TimeoutError when it takes longer. Looking up a host's name has no time limit of its own."""
    answers: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((work(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer, failure = answers.get(timeout=seconds)
    except Empty as error:
        raise TimeoutError from error
    if failure is not None:
        raise failure
    return answer  # type: ignore[return-value]


def _look(name: str, cache: Path, token: HubToken) -> RemoteModel:
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415 - 0.3 s
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415 - the same

    disable_progress_bars()
    found = HfApi(token=token).model_info(name, files_metadata=True, timeout=_REQUEST_SECONDS)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in found.siblings or () if "/" not in sibling.rfilename}

    def read(file: str) -> Path:
        # By its commit and not as `main`: the cache does not take the model for one that is there.
        return Path(hf_hub_download(name, file, revision=found.sha, cache_dir=cache, token=token, etag_timeout=_REQUEST_SECONDS))

    check_json_size(name, "config.json", sizes.get("config.json", 0))
    config = read_json(name, read("config.json")) if "config.json" in sizes else None
    card = None
    if 0 < sizes.get(CARD, 0) <= _LARGEST_CARD_BYTES:
        card = replace(parse_card(read(CARD).read_text(errors="replace")), updated_at=found.last_modified)
    weights = Weights(
        parameters=found.safetensors.total if found.safetensors else None,
        bytes=sum(size for file, size in sizes.items() if file.endswith(".safetensors")) or None,
    )
    return RemoteModel(config, frozenset(sizes), weights, card)


def _download(name: str, cache: Path, token: HubToken, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - 0.3 s
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415 - the same

    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    disable_progress_bars()
    # Folders hold other formats and other models of the same repository.
    wanted = [pattern for pattern in DOWNLOADED if weights or pattern != _WEIGHTS]
    return Path(snapshot_download(name, cache_dir=cache, token=token, allow_patterns=wanted, ignore_patterns=["*/*"]))

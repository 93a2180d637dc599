"""Rows of the Hugging Face hub, `hub://OWNER/NAME/SPLIT` or `hub://OWNER/NAME/CONFIG/SPLIT`. Only tables are ever downloaded.

    CACHE/OWNER--NAME/pinned.json                  the commit that all its rows are of, and the files there
    CACHE/OWNER--NAME/COMMIT/CONFIG/SPLIT.parquet  the rows of one split, put together from all their files

The first download pins the commit, so that the splits of a data set stay those of one version. Delete the folder for a new one.
"""

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from pyarrow import ArrowException

from service.catalog.hub import CONSENT, PRIVATE, HubToken, is_hub_name, token_for, within
from service.catalog.locking import only_writer
from service.domain.errors import DatasetNotFound, TuneyardError, UnreadableDataset
from service.settings import write_private
from trainers.bounds import ROW_BYTES, TooMuch
from trainers.parquets import join_parquet
from trainers.tables import TableError, look

SCHEME = "hub://"
ENDINGS = (".parquet", ".jsonl", ".csv")
"""Of the files that are ever downloaded, the most welcome first: none of them is code."""

_DEFAULT = "default"
"""What the hub calls the configuration of a data set that has only one."""
_PART = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_LOOK_SECONDS = 5.0
_REQUEST_SECONDS = 3.0
_UNREACHABLE_SECONDS = 30.0
_SHOWN = 5

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteDataset:
    """What the hub says of a data set: its newest commit, the files there with their folders, and the bytes of those it tells."""

    commit: str
    files: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)


class DatasetHub(Protocol):
    """Where data sets are that are not on this machine."""

    def look(self, name: str) -> RemoteDataset:
        """Read about a data set; returns within seconds. Raises DatasetNotFound, UnreadableDataset."""
        ...

    def download(self, name: str, commit: str, files: Sequence[str], into: Path) -> list[Path]:
        """These files of that commit. Raises DatasetNotFound, UnreadableDataset."""
        ...


@dataclass(frozen=True)
class Address:
    """A split on the hub."""

    repository: str
    config: str | None
    split: str

    @property
    def uri(self) -> str:
        """What a study definition calls it."""
        return SCHEME + "/".join(part for part in (self.repository, self.config, self.split) if part)


def parse_address(uri: str) -> Address:
    """What a name of rows on the hub says. Raises DatasetNotFound."""
    parts = uri.removeprefix(SCHEME).split("/")
    if len(parts) not in {3, 4} or not all(map(_PART.fullmatch, parts)) or not is_hub_name("/".join(parts[:2])):
        detail = f"{uri!r} is no name of rows on the hub: use {SCHEME}OWNER/NAME/SPLIT or {SCHEME}OWNER/NAME/CONFIG/SPLIT"
        raise DatasetNotFound(detail)
    return Address("/".join(parts[:2]), parts[2] if len(parts) > 3 else None, parts[-1])  # noqa: PLR2004 - with a CONFIG


class HubDatasets:
    """Rows by their names on the hub, kept in `cache`. `hub` None is never to ask; more than `max_bytes` are refused."""

    def __init__(self, cache: Path, hub: DatasetHub | None, max_bytes: int | None = None) -> None:
        self._cache = cache
        self._hub = hub
        self._max_bytes = max_bytes

    def find(self, uri: str) -> Path | None:
        """The file, if it was fetched earlier. Raises DatasetNotFound for what is no name."""
        address = parse_address(uri)
        pinned = self._pinned(address)
        if pinned is None:
            return None
        place = self._place(address, pinned.commit)
        return next((path for ending in ENDINGS if (path := place.with_name(place.name + ending)).is_file()), None)

    def look(self, uri: str) -> None:
        """Whether there are such rows, within seconds. Raises DatasetNotFound, UnreadableDataset."""
        address = parse_address(uri)
        if self.find(uri) is None:
            remote = self._pinned(address) or self._asked(address).look(address.repository)
            self._chosen(remote, address)

    def fetch(self, uri: str) -> Path:
        """The file, downloaded where it is not there yet. Raises DatasetNotFound, UnreadableDataset."""
        address = parse_address(uri)
        found = self.find(uri)
        if found is not None:
            return found
        hub = self._asked(address)
        with only_writer(self._folder(address)):
            return self.find(uri) or self._download(address, hub)

    def _download(self, address: Address, hub: DatasetHub) -> Path:
        remote = self._pinned(address) or hub.look(address.repository)
        files = self._chosen(remote, address)
        incoming = self._folder(address) / ".incoming"
        place = self._place(address, remote.commit)
        ending = PurePosixPath(files[0]).suffix.lower()
        joined = incoming / f".joined{ending}"  # as no file of a split is called
        incoming.mkdir(exist_ok=True, mode=0o700)
        _join(hub.download(address.repository, remote.commit, files, incoming), joined, address)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = joined.rename(place.with_name(place.name + ending))
        pinned = {"commit": remote.commit, "files": remote.files, "sizes": dict(remote.sizes)}
        write_private(self._folder(address) / "pinned.json", json.dumps(pinned, indent=1))
        shutil.rmtree(incoming)  # what a killed download leaves there is gone on with
        return target

    def _chosen(self, remote: RemoteDataset, address: Address) -> list[str]:
        files = choose_files(remote.files, address)
        if self._max_bytes is None:
            return files
        unknown = next((file for file in files if file not in remote.sizes), None)
        if unknown is not None:
            detail = f"the hub does not say how large {unknown!r} of {address.uri} is, and so it is not downloaded"
            raise UnreadableDataset(f"{detail}: upload its rows (`tuneyard dataset put NAME FILE`)")
        size = sum(remote.sizes[file] for file in files)
        if size > self._max_bytes:
            detail = f"{address.uri} has {size} bytes, more than the {self._max_bytes} of an upload"
            raise UnreadableDataset(f"{detail}: name a smaller split, or raise TUNEYARD_MAX_UPLOAD_BYTES")
        return files

    def _asked(self, address: Address) -> DatasetHub:
        if self._hub is None:
            detail = f"{address.uri} is not on this machine, and the service is offline: upload the rows, or start it without"
            raise DatasetNotFound(f"{detail} `--offline`")
        return self._hub

    def _pinned(self, address: Address) -> RemoteDataset | None:
        path = self._folder(address) / "pinned.json"
        if not path.is_file():
            return None
        stored = json.loads(path.read_bytes())
        return RemoteDataset(stored["commit"], tuple(stored["files"]), stored.get("sizes", {}))

    def _folder(self, address: Address) -> Path:
        return self._cache / address.repository.replace("/", "--")

    def _place(self, address: Address, commit: str) -> Path:
        """The file without its ending."""
        return self._folder(address) / commit / (address.config or _DEFAULT) / address.split


def choose_files(files: Sequence[str], address: Address) -> list[str]:
    """The files that hold a split's rows, in order. Raises DatasetNotFound, UnreadableDataset.

    Those are called as the split is (`train.csv`, `train-00000-of-00002.parquet`, `train/0000.parquet`), in the folder of the
    configuration, or in none, or in one called `data`.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        config = _config_of(PurePosixPath(file), address.split)
        if config is not None:
            found[config].append(file)
    config = address.config or (next(iter(found)) if len(found) == 1 else _DEFAULT)
    if config not in found:
        raise _no_such_split(files, sorted(found), address)
    ending = next(one for one in ENDINGS if any(file.lower().endswith(one) for file in found[config]))
    chosen = sorted(file for file in found[config] if file.lower().endswith(ending))
    told = re.search(r"-of-0*(\d+)", PurePosixPath(chosen[0]).stem)
    if told and int(told[1]) != len(chosen):
        raise UnreadableDataset(f"{address.uri} has {len(chosen)} of {told[1]} files on the hub: name another version or split")
    return chosen


def _config_of(file: PurePosixPath, split: str) -> str | None:
    """The configuration of a file that has rows of this split; None for another file."""
    if file.suffix.lower() not in ENDINGS or file.is_absolute() or ".." in file.parts:
        return None
    *folders, _ = file.parts
    if folders and folders[-1] == split:
        folders.pop()
    elif not re.fullmatch(rf"{re.escape(split)}([-_.]?\d+([-_.]of[-_.]\d+)?(-[0-9a-f]+)?)?", file.stem):
        return None
    return "/".join(folder for folder in folders if folder != "data") or _DEFAULT


def _no_such_split(files: Sequence[str], configs: Sequence[str], address: Address) -> DatasetNotFound:
    where = f"{SCHEME}{address.repository}"
    if configs:
        listed = ", ".join(f"{where}/{config}/{address.split}" for config in configs[:_SHOWN])
        return DatasetNotFound(f"there is no {address.uri}: name one of {listed}")
    readable = [file for file in files if PurePosixPath(file).suffix.lower() in ENDINGS]
    if not readable:
        return DatasetNotFound(f"{where} has no Parquet, JSONL or CSV file: upload its rows as one of these")
    listed = ", ".join(readable[:_SHOWN])
    return DatasetNotFound(f"{where} has no rows of a split {address.split!r} that are recognised by name: it has {listed}")


def _join(parts: Sequence[Path], target: Path, address: Address) -> None:
    """One file of all, looked through."""
    try:
        match target.suffix:
            case ".parquet":
                join_parquet(parts, target)
            case _:
                _join_lines(parts, target, has_header=target.suffix == ".csv")
        rows = look(target).rows
    except TableError as error:
        raise UnreadableDataset(f"{address.uri} cannot be read: {error.detail}", column=error.column) from error
    except (ArrowException, OSError, ValueError) as error:  # Arrow's for files that do not go together
        raise UnreadableDataset(f"{address.uri} cannot be read: {error}") from error
    if rows == 0:
        raise UnreadableDataset(f"{address.uri} has no rows")


def _join_lines(parts: Sequence[Path], target: Path, *, has_header: bool) -> None:
    """Files of lines behind each other; of CSV files the first line once."""
    header = b""
    with target.open("wb") as joined:
        for number, part in enumerate(parts):
            with part.open("rb") as lines:
                if has_header:
                    first = lines.readline(ROW_BYTES + 1).rstrip(b"\r\n")
                    if len(first) > ROW_BYTES:
                        raise TooMuch(f"the first line of {part.name} has more than {ROW_BYTES:,} bytes")
                    header = first if number == 0 else header
                    if first != header:
                        raise ValueError(f"{part.name} has other columns than {parts[0].name}")
                    joined.write(b"" if number else header + b"\n")
                shutil.copyfileobj(lines, joined)
            joined.write(b"\n")  # the last line may not end


class HuggingFaceDatasets:
    """The hub itself; `endpoint` is another one that speaks as it does.

    It is asked as nobody, or as the account that is logged in on this machine where `as_account`.
    """

    def __init__(self, endpoint: str | None = None, *, as_account: bool = False) -> None:
        self._endpoint = endpoint
        self._token = token_for(as_account=as_account)
        self._asked_again_at = 0.0

    def look(self, name: str) -> RemoteDataset:
        self._check_reachable(name)
        return self._answer(name, lambda: within(_LOOK_SECONDS, lambda: _look(name, self._endpoint, self._token)))

    def download(self, name: str, commit: str, files: Sequence[str], into: Path) -> list[Path]:
        self._check_reachable(name)
        return self._answer(name, lambda: _download(name, commit, files, into, self._endpoint, self._token))

    def _check_reachable(self, name: str) -> None:
        from huggingface_hub import is_offline_mode  # noqa: PLC0415 - 0.3 s

        if is_offline_mode():
            raise DatasetNotFound(
                f"{SCHEME}{name} is not on this machine, and HF_HUB_OFFLINE forbids to ask the Hugging Face hub."
            )
        if time.monotonic() < self._asked_again_at:
            raise _unreachable(name)

    def _answer(self, name: str, ask: Callable[[], T]) -> T:
        from huggingface_hub import errors  # noqa: PLC0415 - 0.3 s

        try:
            return ask()
        except TuneyardError:
            raise
        except errors.GatedRepoError as error:
            raise UnreadableDataset(f"{SCHEME}{name} asks for consent: {CONSENT}") from error
        except errors.RepositoryNotFoundError as error:
            detail = f"the Hugging Face hub has no data set {name!r} for us: check its name; {PRIVATE}"
            raise DatasetNotFound(detail) from error
        except Exception as error:
            # Several names of one study, and several studies, do not wait one after the other.
            self._asked_again_at = time.monotonic() + _UNREACHABLE_SECONDS
            raise _unreachable(name) from error


def _unreachable(name: str) -> DatasetNotFound:
    return DatasetNotFound(
        f"{SCHEME}{name} is not on this machine, and the Hugging Face hub could not be reached: try again, or upload the rows "
        "(`tuneyard dataset put NAME FILE`)"
    )


def _look(name: str, endpoint: str | None, token: HubToken) -> RemoteDataset:
    from huggingface_hub import HfApi  # noqa: PLC0415 - 0.3 s

    found = HfApi(endpoint=endpoint, token=token).dataset_info(name, files_metadata=True, timeout=_REQUEST_SECONDS)
    siblings = found.siblings or ()
    sizes = {sibling.rfilename: sibling.size for sibling in siblings if sibling.size is not None}
    return RemoteDataset(str(found.sha), tuple(sibling.rfilename for sibling in siblings), sizes)


def _download(name: str, commit: str, files: Sequence[str], into: Path, endpoint: str | None, token: HubToken) -> list[Path]:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - 0.3 s
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415 - the same

    disable_progress_bars()
    return [
        Path(
            hf_hub_download(
                name,
                file,
                repo_type="dataset",
                revision=commit,
                local_dir=into,
                endpoint=endpoint,
                token=token,
                etag_timeout=_REQUEST_SECONDS,
            )
        )
        for file in files
    ]

"""A worker's cache: private, bounded, and never emptied of what is in use."""

import os
from pathlib import Path

import pytest

from service.checkpoints.cache import WorkerCache, open_cache
from service.domain.errors import UnusableCache

URL = "s3://models/tuneyard"


def a_cache(root: Path, most_bytes: int = 250) -> WorkerCache:
    return WorkerCache(root / "cache", most_bytes, URL)


def used(cache: WorkerCache, name: str, age: int) -> Path:
    """A folder of 100 bytes that was last in use so many seconds ago."""
    folder = cache.use(name)
    (folder / "weights").write_bytes(bytes(100))
    cache.leave(name.partition("/")[0])
    os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    return folder


def test_what_was_not_in_use_for_the_longest_time_goes_when_there_is_too_much(tmp_path: Path) -> None:
    cache = a_cache(tmp_path)
    folders = [used(cache, f"checkpoints/study/{number:06d}", age) for number, age in enumerate([30, 10, 20])]
    cache.shrink()
    assert [folder.exists() for folder in folders] == [False, True, True]


def test_nothing_goes_while_there_is_room(tmp_path: Path) -> None:
    cache = a_cache(tmp_path, most_bytes=300)
    folders = [used(cache, f"sources/{number}", 10) for number in range(3)]
    cache.shrink()
    assert all(folder.exists() for folder in folders)


def test_what_any_process_has_in_use_stays_however_little_room_there_is(tmp_path: Path) -> None:
    cache, other = a_cache(tmp_path), a_cache(tmp_path)
    folders = [used(cache, name, 10) for name in ("checkpoints/study/000000", "sources/0", "prepared/study")]
    other.use("checkpoints/study/000000")
    cache.use("sources/0")
    cache.shrink(0)
    assert [folder.exists() for folder in folders] == [True, True, False]
    other.leave("checkpoints")
    cache.shrink(0)
    assert [folder.exists() for folder in folders] == [False, True, False]


def test_it_counts_what_workers_fetched_from_another_storage(tmp_path: Path) -> None:
    folder = used(WorkerCache(tmp_path / "cache", 250, "s3://other/tuneyard"), "sources/0", 10)
    cache = a_cache(tmp_path)
    assert not folder.is_relative_to(cache.place)
    cache.shrink(0)
    assert not folder.exists()


def test_a_folder_is_filled_by_the_first_to_want_it_alone(tmp_path: Path) -> None:
    filled: list[Path] = []
    folders = [cache.filled("sources/0", filled.append) for cache in (a_cache(tmp_path), a_cache(tmp_path))]
    assert folders[0] == folders[1] == filled[0]
    assert len(filled) == 1


def test_a_folder_that_was_half_filled_when_its_process_was_killed_is_filled_anew(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "part").mkdir()
        (folder / "part" / "half").touch()
        raise KeyboardInterrupt

    cache = a_cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.filled("sources/0", half)
    folder = a_cache(tmp_path).filled("sources/0", lambda folder: (folder / "whole").touch())
    assert sorted(path.name for path in folder.iterdir()) == [".whole", "whole"]


def test_its_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    cache = open_cache(URL, {"TUNEYARD_WORKER_CACHE": str(tmp_path / "cache")})
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert cache.place.is_relative_to(tmp_path / "cache")


def test_without_a_setting_it_is_in_the_users_cache_folder_and_where_that_cannot_be_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.checkpoints.cache.tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    assert open_cache(URL, {"HOME": str(tmp_path)}).place.is_relative_to(tmp_path / ".cache" / "tuneyard" / "worker")
    (tmp_path / "file").touch()
    assert open_cache(URL, {"HOME": str(tmp_path / "file")}).place.is_relative_to(tmp_path / "temporary")


@pytest.mark.parametrize("size", ["0", "-1", "nan", "much"])
def test_a_size_that_is_none_is_refused(tmp_path: Path, size: str) -> None:
    with pytest.raises(UnusableCache, match="TUNEYARD_WORKER_CACHE_GB"):
        open_cache(URL, {"TUNEYARD_WORKER_CACHE": str(tmp_path), "TUNEYARD_WORKER_CACHE_GB": size})


def test_a_folder_that_cannot_be_one_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableCache, match="TUNEYARD_WORKER_CACHE"):
        open_cache(URL, {"TUNEYARD_WORKER_CACHE": str(tmp_path / "file")})

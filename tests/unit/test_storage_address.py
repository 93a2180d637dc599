"""What an address of an object storage may look like."""

from pathlib import Path

import pytest

from service.checkpoints.storage import Patience, open_storage
from service.domain.errors import StorageRefused
from service.domain.storage_address import checked_address
from service.settings import Settings


@pytest.mark.parametrize("url", ["s3://models", "s3://models/tuneyard/a", "gs://models/tuneyard", "file:///mount/tuneyard"])
def test_an_address_of_a_kind_that_is_known_is_taken_as_it_is(url: str) -> None:
    assert checked_address(url) == checked_address(f"{url}/") == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://key:secret@models/a", "credentials"),
        ("s3://key@models/a", "credentials"),
        ("ftp://key:secret@models/a", "credentials"),
        ("s3:///a", "no bucket"),
        ("s3://models:9000/a", "AWS_ENDPOINT_URL"),
        ("s3://models/a?secret=key", "environment"),
        ("s3://models/a#secret", "environment"),
        ("s3://models/a/../b", "path"),
        ("s3://models//b", "path"),
        ("file://server/mount", "no folder"),
        ("file:///", "no folder"),
        ("az://secret/a", "not known"),
        ("/mount/secret", "not known"),
        ("", "not known"),
        ("s3://[secret/a", "no address"),
    ],
)
def test_any_other_is_refused_with_what_to_do_and_never_repeated(url: str, why: str) -> None:
    with pytest.raises(StorageRefused, match=why) as refused:
        checked_address(url)
    assert "secret" not in refused.value.detail


def test_settings_refuse_credentials_in_it_without_showing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_STORAGE_URL", "s3://key:secret@models/a")
    with pytest.raises(StorageRefused, match="AWS_SECRET_ACCESS_KEY") as refused:
        Settings(home=tmp_path)
    assert "secret@" not in str(refused.value)


def test_a_service_without_one_has_none(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).storage_url is None


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"), ("AWS_CHECKSUM_ALGORITHM", "CRC64NVME"), ("", "")]
)
def test_amazons_storage_alone_is_told_to_keep_a_checksum_unless_the_environment_says_which(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for each in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_CHECKSUM_ALGORITHM"):
        monkeypatch.delenv(each, raising=False)
    if name:
        monkeypatch.setenv(name, value)
    opened = open_storage("s3://models/tuneyard", Patience.SHORT)
    assert opened._store.config.get("checksum_algorithm") == (None if name else "SHA256")  # type: ignore[union-attr]

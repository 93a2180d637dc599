"""What of a checkpoint may leave the service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.checkpoint import CheckpointFile, Manifest, may_leave

FILE = CheckpointFile("tokenizer/vocab.txt", 3, "a" * 64)


@pytest.mark.parametrize(
    "path",
    ["model.safetensors", "config.json", "README.md", "vocab.txt", "a/b/c.json", "model-00001-of-00002.safetensors", "..a.json"],
)
def test_weights_json_and_text_may_leave(path: str) -> None:
    assert may_leave(path)


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "pytorch_model.bin", "model.pt", "state.pkl", "run.py", "model.safetensors.pkl", "config.JSON", "json",
        ".json", "config.json.", "config.json ", "a.json/model.bin",
    ],
)  # fmt: skip
def test_what_may_run_code_stays(path: str) -> None:
    assert not may_leave(path)


@pytest.mark.parametrize(
    "path",
    ["../config.json", "a/../../config.json", "a/..", "a/../config.json", "/config.json", "//config.json", "/etc/hosts.txt"],
)
def test_what_is_outside_stays(path: str) -> None:
    assert not may_leave(path)


@given(path=st.text(), climbs=st.integers(1, 3))
def test_nothing_that_climbs_leaves(path: str, climbs: int) -> None:
    assert not may_leave("../" * climbs + path)
    assert not may_leave("a/" + "../" * climbs + path + "/b.json")
    assert not may_leave("/" + path)


def test_a_manifest_finds_its_files_by_their_whole_path() -> None:
    manifest = Manifest("intents-abc123", 0, 1, (CheckpointFile("config.json", 2, "b" * 64), FILE))
    assert manifest.file("tokenizer/vocab.txt") == FILE
    assert [manifest.file(path) for path in ("vocab.txt", "tokenizer", "", "config.JSON")] == [None] * 4

"""Trying models in the background: one request at a time, and every result once."""

import io
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.catalog.datasets import LocalDatasetStore
from service.catalog.hub import HubCache
from service.catalog.models import Models
from service.catalog.ranking import ChildEndedError, ModelShelf, Prober, run_child
from service.catalog.sources import Sources
from service.domain.base_models import Probed, ProbeRows
from service.domain.errors import DatasetNotFound, InvalidQuery, ModelNotFound, NotReady, UnreadableDataset
from tests.builders import NOW
from tests.tiny import make_tiny_encoder, write_intents
from tests.unit.catalog_shelf import write_model

COLUMNS = {"text": "text", "label": "label"}
ROWS = ProbeRows("dataset://intents/train.csv", COLUMNS)


class FakeRun:
    """Answers what it is told to of each model, once it is let; `requests` are what it was asked."""

    def __init__(self, **lines: Mapping[str, Any]) -> None:
        self.lines = lines
        self.requests: list[list[str]] = []
        self.let = threading.Event()
        self.let.set()
        self.begun = threading.Event()

    def __call__(self, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        self.requests.append(list(request["models"]))
        self.begun.set()
        self.let.wait(60)
        for name in request["models"]:
            line = self.lines.get(name, {"metrics": {"accuracy": 0.5}, "milliseconds_per_row": 1.0, "rows": 4})
            if "error" in line:
                yield line
                return
            if "crash" in line:
                raise line["crash"]
            yield {"model": name, **line}


class Shelf:
    """Models `a` and `b` and four rows."""

    def __init__(self, tmp_path: Path, run: Any, wait_seconds: float = 60.0) -> None:
        for name in ("a", "b"):
            write_model(tmp_path / "models" / name)
        self.datasets = LocalDatasetStore(tmp_path / "datasets", max_bytes=1_000_000)
        self.put(b"text,label\none,x\ntwo,y\nthree,x\nfour,y\n")
        models = Models([tmp_path / "models"], HubCache(own=tmp_path / "own", ordinary=tmp_path / "ordinary"), None, {})
        self.prober = Prober(tmp_path / "probe", run, wait_seconds)
        self.shelf = ModelShelf(models, Sources(self.datasets, tmp_path / "builtin"), self.prober)

    def put(self, content: bytes) -> None:
        self.datasets.put("intents", "train.csv", io.BytesIO(content), NOW)

    def tried(self, *names: str, rows: ProbeRows = ROWS) -> Mapping[str, Probed]:
        return self.shelf.probe("text-classification", rows, names)


def test_each_model_is_tried_once_for_the_same_rows(tmp_path: Path) -> None:
    run = FakeRun(b={"metrics": {"accuracy": 0.9}, "milliseconds_per_row": 2.0, "rows": 4})
    shelf = Shelf(tmp_path, run)
    assert shelf.tried("a")["a"] == Probed({"accuracy": 0.5}, 1.0, 4)
    assert {name: found.metrics["accuracy"] for name, found in shelf.tried("a", "b").items()} == {"a": 0.5, "b": 0.9}
    shelf.tried("b", "a")
    assert run.requests == [["a"], ["b"]]


def test_what_was_found_outlives_the_service(tmp_path: Path) -> None:
    Shelf(tmp_path / "one", FakeRun()).tried("a")
    again = FakeRun()
    (tmp_path / "one" / "probe").rename(tmp_path / "kept")
    prober = Prober(tmp_path / "kept", again)
    rows = next((tmp_path / "one" / "datasets" / "intents").glob("*.csv"))
    prober.results("text-classification", rows, COLUMNS, {"a": tmp_path / "one" / "models" / "a"})
    assert again.requests == []


def test_other_rows_other_columns_and_other_weights_are_tried_anew(tmp_path: Path) -> None:
    run = FakeRun()
    shelf = Shelf(tmp_path, run)
    shelf.tried("a")
    shelf.tried("a", rows=ProbeRows(ROWS.source, {"text": "label", "label": "text"}))
    shelf.put(b"text,label\none,x\ntwo,y\n")
    shelf.tried("a")
    weights = tmp_path / "models" / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    os.utime(weights, (NOW.timestamp(),) * 2)  # the disk's clock may not have ticked since
    shelf.tried("a")
    assert len(run.requests) == 4


def test_whoever_asks_meanwhile_is_told_to_ask_again(tmp_path: Path) -> None:
    run = FakeRun()
    run.let.clear()
    shelf = Shelf(tmp_path, run, wait_seconds=0.01)
    for names in (["a"], ["a", "b"]):
        with pytest.raises(NotReady, match="ask again"):
            shelf.tried(*names)
    assert run.begun.wait(60)
    assert run.requests == [["a"]], "one at a time"
    run.let.set()
    shelf.prober.wait_seconds = 60.0
    assert set(shelf.tried("a", "b")) == {"a", "b"}
    assert run.requests == [["a"], ["b"]]


def test_a_failure_is_told_to_all_who_ask(tmp_path: Path) -> None:
    run = FakeRun(a={"failure": "a could not be tried: no"})
    shelf = Shelf(tmp_path, run)
    for _ in range(2):
        assert shelf.tried("a")["a"].failure == "a could not be tried: no"
    assert len(run.requests) == 1


def test_a_model_at_which_the_child_ends_is_the_only_one_that_is_blamed(tmp_path: Path) -> None:
    run = FakeRun(a={"crash": ChildEndedError(-9)})
    shelf = Shelf(tmp_path, run)
    for _ in range(2):
        found = shelf.tried("a", "b")
        assert "the process that tried it ended with signal 9" in (found["a"].failure or "")
        assert found["b"].metrics == {"accuracy": 0.5}
    assert run.requests == [["a", "b"], ["b"]]


def test_a_model_that_began_late_gets_its_whole_time(tmp_path: Path) -> None:
    run = FakeRun(b={"crash": ChildEndedError(-14)})
    found = Shelf(tmp_path, run).tried("a", "b")
    assert run.requests == [["a", "b"], ["b"]]
    assert "was not done within 300 seconds" in (found["b"].failure or "")


def test_a_failure_is_for_the_next_service_to_try_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, FakeRun(a={"failure": "a could not be tried: not enough memory"}))
    shelf.tried("a")
    again = FakeRun()
    shelf.shelf._prober = Prober(tmp_path / "probe", again)
    assert shelf.tried("a")["a"].metrics == {"accuracy": 0.5}


def test_one_caller_waits_and_the_others_are_told_at_once(tmp_path: Path) -> None:
    run = FakeRun()
    run.let.clear()
    shelf = Shelf(tmp_path, run, wait_seconds=600)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shelf.tried, "a")
        try:
            assert run.begun.wait(60)
            while not shelf.prober._patience.locked():
                assert not first.done()
            with pytest.raises(NotReady):
                shelf.tried("a")
        finally:
            run.let.set()
        assert first.result()["a"].metrics == {"accuracy": 0.5}


def test_rows_that_are_no_use_are_refused(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, FakeRun(a={"error": "the rows have 1 labels"}))
    for _ in range(2):
        with pytest.raises(UnreadableDataset, match="the rows have 1 labels"):
            shelf.tried("a")


def test_what_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    run = FakeRun()
    shelf = Shelf(tmp_path, run)
    with pytest.raises(InvalidQuery, match="has no column `intent`: name one of `text`, `label` as `label`"):
        shelf.tried("a", rows=ProbeRows(ROWS.source, {"text": "text", "label": "intent"}))
    with pytest.raises(DatasetNotFound):
        shelf.tried("a", rows=ProbeRows("dataset://intents/other.csv", COLUMNS))
    with pytest.raises(ModelNotFound):
        shelf.tried("c")
    assert run.requests == []


def test_half_a_result_on_disk_is_found_out_anew(tmp_path: Path) -> None:
    run = FakeRun()
    shelf = Shelf(tmp_path, run)
    shelf.tried("a")
    [kept] = (tmp_path / "probe" / "results").iterdir()
    kept.write_text("{")
    assert shelf.tried("a")["a"].metrics == {"accuracy": 0.5}


@pytest.mark.timeout(300)  # it loads torch, and lets all else on the machine go first
def test_the_child_answers_and_ends(tmp_path: Path) -> None:
    write_intents(tmp_path)
    make_tiny_encoder(tmp_path / "tiny")
    request = {
        "kind": "text-classification", "rows": str(tmp_path / "validation.csv"), "columns": COLUMNS,
        "models": {"tiny": str(tmp_path / "tiny")}, "cache": str(tmp_path / "features"), "threads": 1, "seconds": 280,
    }  # fmt: skip
    [line] = run_child(request)
    assert line["model"] == "tiny"
    assert line["metrics"]["accuracy"] > 0.2


def test_a_child_that_crashes_says_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(ChildEndedError, match="ended with code 1"):
        list(run_child({"threads": 1, "nonsense": True}))

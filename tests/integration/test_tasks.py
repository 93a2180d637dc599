"""A study of each task over HTTP: uploaded rows in, trials, the pulled checkpoint judged by transformers alone, an analysis."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from service.client import Client
from service.domain.errors import TuneyardError
from tests.integration.agreement import check_analysis_in_mlflow, check_mlflow, check_store, finished
from tests.running import RunningService
from tests.trainers.cases import CASES, Case

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(500)]

_NAMES = ("token-classification", "causal-lm-lora", "seq2seq-t5", "image-classification-resnet")
_WAIT_SECONDS = 180.0


@dataclass(frozen=True)
class Shop:
    """A case with its model under the service's model root and its rows uploaded."""

    case: Case
    place: Path
    model: str

    def document(self, dataset: str) -> dict[str, object]:
        data = {key: _under(dataset, value) for key, value in self.case.document["data"].items()}
        return {**self.case.document, "model": self.model, "data": data, "epochs": 2}


def _under(dataset: str, value: object) -> object:
    is_name = isinstance(value, str) and value.startswith("dataset://")
    return str(value).replace("dataset://", f"dataset://{dataset}/") if is_name else value


@pytest.fixture(scope="module", params=_NAMES)
def shop(request: pytest.FixtureRequest, service: RunningService, client: Client) -> Shop:
    (case,) = (case for case in CASES if case.name == request.param)
    place = service.models / case.name
    place.mkdir()
    case.write(place)
    for name in {value for value in case.document["data"].values() if str(value).startswith("dataset://")}:
        client.upload(case.name, place / str(name).removeprefix("dataset://"))
    return Shop(case, place, str(place / "tiny"))


def test_a_study_of_the_task_ends_with_a_checkpoint_that_keeps_its_word(
    shop: Shop, service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = "validation/loss"
    study = client.apply({
        "name": shop.case.name,
        "trainer": shop.document(shop.case.name),
        "space": {"learning_rate": {"kind": "categorical", "choices": [1e-3, 3e-3]}},
        "objective": {"metric": metric, "direction": "minimize"},
        "strategy": {"kind": "grid"},
        "resources": {"max_concurrent_trials": 1},
    })  # fmt: skip
    study = client.wait(study.id, timeout=_WAIT_SECONDS)
    found = finished(client, study)
    assert study.state == "completed", [trial.detail for trial in found.trials]
    check_store(found)
    check_mlflow(service, found, monkeypatch)
    check_analysis_in_mlflow(service, found)
    best = client.best(study.id)
    client.pull(study.id, tmp_path / "best")
    for name, value in shop.case.measure(tmp_path / "best", shop.place, "validation").items():
        report = next(report for report in found.reports[best.number] if report.number == best.best_report)
        assert report.metrics[f"validation/{name}"] == pytest.approx(value, abs=1e-5), name
    last = found.reports[best.number][-1]
    for name, value in shop.case.measure(tmp_path / "best", shop.place, "test").items():
        assert last.metrics[f"test/{name}"] == pytest.approx(value, abs=1e-5), name
    analysis = client.analysis(study.id, best.number)
    assert analysis.report == best.best_report
    assert analysis.analysis["task"] == shop.case.document["kind"]


def test_a_model_of_another_task_is_refused_when_it_is_posted(shop: Shop, client: Client) -> None:
    other = {"token-classification": "causal-lm", "causal-lm": "seq2seq", "seq2seq": "causal-lm"}
    kind = other.get(str(shop.case.document["kind"]), "causal-lm")
    document = {
        "name": "mistaken",
        "trainer": {"kind": kind, "model": shop.model, "data": {"train": "dataset://intents/train.csv"}},
        "space": {"learning_rate": {"kind": "categorical", "choices": [1e-3]}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "grid"},
    }
    with pytest.raises(TuneyardError, match="/trainer/model"):
        client.apply(yaml.safe_load(yaml.safe_dump(document)))

"""What the API answers about base models, as the server writes it and the Python client reads it. No FastAPI here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from service.domain.base_models import Benchmark, FoundModel, ModelCard, Place, Probed
from service.domain.memory import MemoryNeed, Method

_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_AT = "2030-01-02T03:04:05Z"
_BENCHMARK = {"task": "Retrieval", "dataset": "MTEB ArguAna", "metric": "ndcg_at_10", "value": 50.2}


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class BenchmarkView(_View):
    """A result that the model's card tells of."""

    task: str = Field(description="What was measured.", examples=["Retrieval"])
    dataset: str = Field(description="On what.", examples=["MTEB ArguAna"])
    metric: str = Field(description="In what.", examples=["ndcg_at_10"])
    value: float = Field(description="The result, in the card's own unit.", examples=[50.2])

    @classmethod
    def of(cls, benchmark: Benchmark) -> "BenchmarkView":
        return cls(task=benchmark.task, dataset=benchmark.dataset, metric=benchmark.metric, value=benchmark.value)


class MemoryView(_View):
    """Memory that a training step takes, estimated in fp32 with AdamW; `service.domain.memory` says how."""

    method: Method = Field(
        description="What is trained: all weights, low-rank adapters, or the head on frozen weights.", examples=["full"]
    )
    batch_size: int = Field(description="Rows that are computed at once.", examples=[32])
    max_length: int = Field(description="Tokens per row; images count as their own size.", examples=[128])
    weights: int = Field(description="Bytes of the weights.", examples=[90852864])
    gradients: int = Field(description="Bytes of their gradients.", examples=[90852864])
    optimizer: int = Field(description="Bytes of AdamW's two moments.", examples=[181705728])
    activations: int | None = Field(
        description="Bytes that are kept for the backward pass; null where the architecture does not tell.", examples=[1151336448]
    )
    total: int | None = Field(description="All of them; null where a part is not known.", examples=[1514747904])

    @classmethod
    def of(cls, need: MemoryNeed, method: Method, batch_size: int, max_length: int) -> "MemoryView":
        return cls(
            method=method, batch_size=batch_size, max_length=max_length, weights=need.weights, gradients=need.gradients,
            optimizer=need.optimizer, activations=need.activations, total=need.total,
        )  # fmt: skip


class ModelView(_View):
    """A base model: what its configuration, its weights and its card say; null and empty where they do not."""

    name: str = Field(description="What a study calls it.", examples=[_NAME])
    place: Place = Field(
        description="Where it is: in a folder under a model root, in a cache of the Hugging Face hub, in an installed package, "
        "built into the service, or on the hub only.",
        examples=["package"],
    )
    tasks: Sequence[str] = Field(
        description="Kinds of trainer that can train it.", examples=[["text-classification", "token-classification"]]
    )
    model_type: str = Field(description="Its architecture, as transformers calls it.", examples=["bert"])
    parameters: int | None = Field(description="Its parameters.", examples=[22713216])
    bytes: int | None = Field(description="Size of its weights on disk.", examples=[90868376])
    dtype: str | None = Field(description="Number format of its weights.", examples=["F32"])
    layers: int | None = Field(
        description="Layers that can be frozen; of an encoder-decoder its encoder's, of a convolutional network its stages.",
        examples=[6],
    )
    hidden_size: int | None = Field(description="Width of its last hidden state.", examples=[384])
    vocabulary: int | None = Field(description="Tokens it knows; null for images.", examples=[30522])
    longest: int | None = Field(description="Tokens of the longest text it can read.", examples=[512])
    image_size: int | None = Field(description="Side of the images it was made for, in pixels.", examples=[None])
    licence: str | None = Field(description="Its licence, from its card.", examples=["apache-2.0"])
    datasets: Sequence[str] = Field(description="What it was trained on, from its card.", examples=[["s2orc", "ms_marco"]])
    languages: Sequence[str] = Field(description="Its languages, from its card.", examples=[["en"]])
    base_models: Sequence[str] = Field(
        description="What it was made from, from its card.", examples=[["nreimers/MiniLM-L6-H384-uncased"]]
    )
    tags: Sequence[str] = Field(description="Its card's tags.", examples=[["sentence-similarity"]])
    benchmarks: Sequence[BenchmarkView] = Field(description="Results that its card tells of.", examples=[[_BENCHMARK]])
    documentation: int | None = Field(
        description="Characters of its card's text; null without a card on this machine.", examples=[9800]
    )
    updated_at: datetime | None = Field(description="When it last changed, where that is known.", examples=[_AT])
    memory: MemoryView | None = Field(description="What training it takes; null where its parameters are not known.")

    @classmethod
    def of(cls, found: FoundModel, memory: MemoryView | None) -> "ModelView":
        header, card = found.header, found.card or ModelCard()
        return cls(
            name=found.name, place=found.place, tasks=sorted(header.kinds), model_type=header.model_type,
            parameters=header.parameters, bytes=header.weights_bytes, dtype=header.dtype, layers=header.layers,
            hidden_size=header.hidden_size, vocabulary=header.vocabulary, longest=header.longest, image_size=header.image_size,
            licence=card.licence, datasets=card.datasets, languages=card.languages, base_models=card.base_models, tags=card.tags,
            benchmarks=[BenchmarkView.of(one) for one in card.benchmarks],
            documentation=found.card.characters if found.card else None, updated_at=card.updated_at, memory=memory,
        )  # fmt: skip


class CandidateView(_View):
    """A base model on this machine, beside others."""

    rank: int | None = Field(description="Its place among those that were tried, from 1; null for the others.", examples=[1])
    name: str = Field(description="What a study calls it.", examples=[_NAME])
    place: Place = Field(description="Where it is.", examples=["package"])
    tasks: Sequence[str] = Field(
        description="Kinds of trainer that can train it.", examples=[["text-classification", "token-classification"]]
    )
    metrics: Mapping[str, float] = Field(
        description="How it did on the rows, its weights frozen: accuracy, F1, or bits per byte of text.",
        examples=[{"accuracy": 0.87, "f1_macro": 0.86}],
    )
    rows: int = Field(description="Rows it was tried on.", examples=[1000])
    milliseconds_per_row: float | None = Field(description="Time of one CPU thread for a row.", examples=[3.1])
    failure: str | None = Field(description="Why it could not be tried.", examples=[None])
    parameters: int | None = Field(description="Its parameters.", examples=[22713216])
    bytes: int | None = Field(description="Size of its weights on disk.", examples=[90868376])
    licence: str | None = Field(description="Its licence, from its card.", examples=["apache-2.0"])
    updated_at: datetime | None = Field(description="When it last changed, where that is known.", examples=[_AT])
    documentation: int | None = Field(description="Characters of its card's text; null without a card.", examples=[9800])
    benchmarks: Sequence[BenchmarkView] = Field(description="Results that its card tells of.", examples=[[_BENCHMARK]])
    link: str = Field(description="Where to read more of it.", examples=["/v1/models/sentence-transformers%2Fall-MiniLM-L6-v2"])

    @classmethod
    def of(cls, found: FoundModel, probed: Probed | None = None, rank: int | None = None) -> "CandidateView":
        card, tried = found.card or ModelCard(), probed or Probed()
        return cls(
            rank=rank, name=found.name, place=found.place, tasks=sorted(found.header.kinds), metrics=tried.metrics,
            rows=tried.rows, milliseconds_per_row=tried.milliseconds_per_row, failure=tried.failure,
            parameters=found.header.parameters, bytes=found.header.weights_bytes, licence=card.licence,
            updated_at=card.updated_at, documentation=found.card.characters if found.card else None,
            benchmarks=[BenchmarkView.of(one) for one in card.benchmarks], link=f"/v1/models/{quote(found.name, safe='')}",
        )  # fmt: skip


class CandidatesView(_View):
    """Base models on this machine, the best first where they were tried on rows."""

    task: str | None = Field(description="The kind of trainer they are for; null for any.", examples=["text-classification"])
    dataset: str | None = Field(
        description="The rows they were tried on; null when they were only listed.", examples=["dataset://banking77/train.csv"]
    )
    metric: str | None = Field(description="The metric that ranks them.", examples=["accuracy"])
    models: Sequence[CandidateView] = Field(description="The models.")

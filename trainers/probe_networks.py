"""What frozen networks make of rows: features of texts, words and images, and what a text costs a language model."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate
from transformers import AutoConfig, AutoModel, AutoTokenizer

import trainers.models  # noqa: F401 - keeps transformers quiet

_BATCH = 32
_LONGEST = 128
_LONGEST_TEXT = 512
_IMAGE_SIDE = 224
_MAP = 4
"""Dimensions of what a convolutional network puts out."""


@torch.inference_mode()
def text_features(folder: Path, texts: Sequence[str]) -> Tensor:
    """The mean of the last hidden states over each text's tokens, shape (rows, width)."""
    tokenizer, model = load_tokenizer(folder), load_network(folder, AutoModel)
    longest = _longest(tokenizer, model, _LONGEST)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    found: dict[int, Tensor] = {}
    for batch in _batches(order):
        encoded = tokenizer([texts[row] for row in batch], truncation=True, max_length=longest, padding=True, return_tensors="pt")
        states = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(-1).to(states.dtype)
        found |= dict(zip(batch, (states * mask).sum(1) / mask.sum(1), strict=True))
    return torch.stack([found[row] for row in range(len(texts))])


@torch.inference_mode()
def word_features(folder: Path, sentences: Sequence[Sequence[str]]) -> list[Tensor]:
    """The last hidden state of each word's first token, shape (words, width); words behind the longest text are left out."""
    tokenizer, model = load_tokenizer(folder, add_prefix_space=True), load_network(folder, AutoModel)
    longest = _longest(tokenizer, model, _LONGEST)
    found = []
    for batch in _batches(range(len(sentences))):
        encoded = tokenizer(
            [list(sentences[row]) for row in batch], is_split_into_words=True, truncation=True, max_length=longest, padding=True,
            return_tensors="pt",
        )  # fmt: skip
        states = model(**encoded).last_hidden_state
        for place in range(len(batch)):
            first: dict[int, int] = {}
            for position, word in enumerate(encoded.word_ids(place)):
                if word is not None:
                    first.setdefault(word, position)
            words = next((word for word in range(len(first)) if word not in first), len(first))
            found.append(states[place, [first[word] for word in range(words)]])
    return found


@torch.inference_mode()
def image_features(folder: Path, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """The mean of the last states over each image's positions, shape (rows, width). Images have shape (height, width, 3)."""
    model = load_network(folder, AutoModel)
    side = model.config.to_dict().get("image_size", _IMAGE_SIDE)
    shape = tuple(side[:2]) if isinstance(side, list | tuple) else (side, side)
    mean, deviation = _normalisation(folder)
    found = []
    for batch in _batches(range(len(images))):
        pixels = [torch.from_numpy(images[row]).permute(2, 0, 1).unsqueeze(0).float() / 255 for row in batch]
        scaled = torch.cat([interpolate(one, shape, mode="bilinear", antialias=True) for one in pixels])
        states = model(pixel_values=(scaled - mean) / deviation).last_hidden_state
        # A convolutional network puts out (rows, width, height and width of the map), a transformer (rows, positions, width).
        found.append(states.flatten(2).mean(-1) if states.dim() == _MAP else states.mean(1))
    return torch.cat(found)


def _normalisation(folder: Path) -> tuple[Tensor, Tensor]:
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_bytes()) if path.is_file() else {}
    mean, deviation = (torch.tensor(said.get(key, [0.5] * 3)).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    return mean, deviation


@torch.inference_mode()
def continued(model: Any, tokenizer: Any, text: str) -> tuple[float, int]:
    """The nats that a text costs a decoder, and the bytes of it that were scored."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    whole = torch.tensor([[*([] if start is None else [start]), *ids][: _longest(tokenizer, model, _LONGEST_TEXT)]])
    if whole.shape[1] <= 1:
        return 0.0, 0
    logits = model(input_ids=whole).logits[0, :-1]
    # Cut texts and, without a token to start from, first tokens cost nothing: so they do not count.
    scored = tokenizer.decode(whole[0, 1:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return float(cross_entropy(logits.double(), whole[0, 1:], reduction="sum")), len(scored.encode())


@torch.inference_mode()
def written_after(model: Any, tokenizer: Any, source: str, target: str) -> tuple[float, int]:
    """The nats that a text costs an encoder-decoder which has read another, and the bytes of it that were scored."""
    longest = _longest(tokenizer, model, _LONGEST_TEXT)
    encoded = tokenizer(source, truncation=True, max_length=longest, return_tensors="pt")
    labels = tokenizer(text_target=target, truncation=True, max_length=longest, return_tensors="pt")["input_ids"]
    logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=labels).logits[0]
    scored = tokenizer.decode(labels[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return float(cross_entropy(logits.double(), labels[0], reduction="sum")), len(scored.encode())


def load_tokenizer(folder: Path, **settings: Any) -> Any:
    """The model's tokenizer."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **settings)


def load_network(folder: Path, architecture: Any) -> Any:
    """The pretrained network in fp32, for evaluation."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = architecture.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return model.eval()


def _longest(tokenizer: Any, model: Any, most: int) -> int:
    """Tokens of the longest text that is not cut."""
    positions = getattr(model.config, "max_position_embeddings", None)
    # Some leave two of their positions unused.
    return min(int(tokenizer.model_max_length), most, positions - 2 if isinstance(positions, int) and positions > 2 else most)  # noqa: PLR2004


def _batches(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]

"""The image classification trainer beyond the contract: what it makes of images, sizes, channels and frozen layers."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BeitConfig,
    BeitForImageClassification,
    ConvNextConfig,
    MobileNetV2Config,
    PreTrainedConfig,
)

from search_spaces.presets import presets
from tests.trainers.image_classification_case import judge, make_tiny_resnet, make_tiny_vit, png, shapes, write_zip
from trainers.configs import ImageClassificationConfig
from trainers.contract import TrainerError, TrialContext
from trainers.image_classification import ImageClassification, _without_single

PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 12, "width": 12},
    "resample": 3,
    "rescale_factor": 1 / 127.5,
    "image_mean": [0.9, 1.0, 1.1],
    "image_std": [0.5, 0.6, 0.7],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_tiny_resnet(tmp_path / "tiny")
    write_zip(tmp_path / "train.zip", shapes(48, 0))
    write_zip(tmp_path / "validation.zip", shapes(12, 1))
    return tmp_path


def a_trainer(place: Path, data: Mapping[str, Any] | None = None, **changes: Any) -> ImageClassification:
    document = {
        "kind": "image-classification",
        "model": "tiny",
        "data": data or {"train": "train.zip", "validation": "validation.zip"},
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-2,
    }
    config = ImageClassificationConfig.model_validate({**document, **changes})
    sources = {name: place / name for name in config.data.named.values()}
    return ImageClassification(config, TrialContext(cache=place / "cache", sources=sources, models={"tiny": place / "tiny"}))


def export(trainer: ImageClassification, place: Path) -> Path:
    shutil.rmtree(place / "export", ignore_errors=True)
    (place / "export").mkdir()
    trainer.export(place / "export")
    return place / "export"


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_files(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def digits() -> list[dict[str, Any]]:
    """Grey values from 0 to 16, row by row, of 8 x 8 images."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that the other tests need not wait

    images, labels = load_digits(return_X_y=True)
    return [{"image": image.tolist(), "label": str(label)} for image, label in zip(images, labels, strict=True)]


def test_images_become_exactly_what_the_exported_processor_makes_of_their_files(place: Path) -> None:
    (_, colours), (_, other) = shapes(2, 7)
    drawn = colours.resize((61, 23))
    clear = drawn.convert("RGBA")
    clear.putalpha(drawn.convert("L"))
    files = {
        "a/1.png": png(drawn),
        "a/2.png": png(drawn.convert("L").rotate(90)),
        "a/3.png": png(drawn.convert("1")),
        "a/4.png": png(clear),
        "b/5.png": png(other.convert("P")),
        "b/6.jpg": encoded(other, "JPEG"),
        "b/7.gif": encoded(other, "GIF"),
        "b/8.webp": encoded(other.rotate(5), "WEBP", lossless=True),
    }
    write_files(place / "train.zip", files.items())
    write_files(place / "validation.zip", [("a/9.png", png(colours)), ("b/9.png", png(colours.rotate(180)))])
    trainer = a_trainer(place, image_size=20)
    processor: Any = AutoImageProcessor.from_pretrained(export(trainer, place))
    for row, (name, content) in enumerate(files.items()):
        wanted = processor(Image.open(io.BytesIO(content)), return_tensors="pt").pixel_values
        torch.testing.assert_close(trainer._inputs("train", [row]), wanted, atol=1e-5, rtol=0, msg=name)


def test_training_images_have_mean_0_and_deviation_1_where_the_model_does_not_say_otherwise(place: Path) -> None:
    trainer = a_trainer(place, image_size=16)
    images = trainer._inputs("train", range(48))
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_a_pretrained_model_gets_images_as_its_own_processor_makes_them(place: Path) -> None:
    (place / "tiny" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    trainer = a_trainer(place)
    processor: Any = AutoImageProcessor.from_pretrained(place / "tiny")
    for row, (_, image) in enumerate(sorted(shapes(48, 0), key=lambda pair: pair[0])):
        wanted = processor(image, return_tensors="pt").pixel_values
        torch.testing.assert_close(trainer._inputs("train", [row]), wanted, atol=1e-5, rtol=0)


def test_a_model_from_random_weights_does_not_care_how_it_was_once_normalised(place: Path) -> None:
    (place / "tiny" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    normalisation = a_trainer(place, initialisation="random").facts["normalisation"]
    assert normalisation["factor"] == 1 / 255
    assert normalisation["mean"] != (0.9, 1.0, 1.1)


@pytest.mark.parametrize(
    "processor",
    [
        {"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.0, 0.5]},
        {"image_mean": "grey"},
        {"do_normalize": True},
    ],
)
def test_a_normalisation_that_does_not_fit_the_model_is_refused(place: Path, processor: Mapping[str, Any]) -> None:
    (place / "tiny" / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(TrainerError, match="no `image_mean` and `image_std` of 3 numbers"):
        a_trainer(place, image_size=16)


def test_a_broken_processor_file_is_a_clear_error(place: Path) -> None:
    (place / "tiny" / "preprocessor_config.json").write_text("{")
    with pytest.raises(TrainerError, match=r"preprocessor_config\.json of the model tiny is broken"):
        a_trainer(place)


@pytest.mark.parametrize(
    ("configured", "processor", "own", "size"),
    [
        (20, {"size": {"height": 24, "width": 24}}, 28, 20),
        (None, {"size": {"shortest_edge": 24}}, 28, 24),
        (None, {"size": 32, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}}, 28, 24),
        (None, {"size": {"longest_edge": 40}}, 28, 28),
        (None, {}, [28, 28], 28),
        (None, {}, None, 224),
    ],
)
def test_the_size_is_the_configured_one_else_the_processors_else_the_models(
    place: Path, configured: int | None, processor: Mapping[str, Any], own: Any, size: int
) -> None:
    make_tiny_resnet(place / "tiny", **({"image_size": own} if own else {}))
    said = {"image_mean": 0.5, "image_std": 0.5}
    (place / "tiny" / "preprocessor_config.json").write_text(json.dumps({**processor, **said}))
    assert a_trainer(place, image_size=configured).facts["image_size"] == size


def test_a_grey_model_sees_one_channel_and_its_export_takes_grey_files(place: Path) -> None:
    make_tiny_resnet(place / "tiny", num_channels=1)
    trainer = a_trainer(place, image_size=16)
    report = next(trainer.reports())
    assert trainer._inputs("train", [0]).shape == (1, 1, 16, 16)
    files = [(label, image.convert("L")) for label, image in shapes(12, 1)]
    measured = judge(export(trainer, place), files)
    assert report.metrics["validation/loss"] == pytest.approx(measured["loss"], abs=1e-5)


def test_a_model_of_other_channels_is_refused(place: Path) -> None:
    make_tiny_resnet(place / "tiny", num_channels=4)
    with pytest.raises(TrainerError, match="reads 4 channels"):
        a_trainer(place)


def test_a_vision_transformer_takes_images_of_another_size_with_its_positions_stretched(place: Path) -> None:
    make_tiny_vit(place / "tiny")
    before: Any = AutoModelForImageClassification.from_pretrained(place / "tiny", num_labels=3)
    trainer = a_trainer(place, image_size=32)
    image = torch.randn(1, 3, 32, 32)
    before.classifier.load_state_dict(trainer._model.classifier.state_dict())
    with torch.inference_mode():
        wanted = before.eval()(pixel_values=image, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(trainer._model.eval()(pixel_values=image).logits, wanted)
    report = next(trainer.reports())
    measured = judge(export(trainer, place), list(shapes(12, 1)))
    assert report.metrics["validation/loss"] == pytest.approx(measured["loss"], abs=1e-5)


def test_a_vision_transformer_of_random_weights_is_made_for_the_size(place: Path) -> None:
    make_tiny_vit(place / "tiny")
    trainer = a_trainer(place, image_size=8, initialisation="random")
    assert trainer._model.vit.embeddings.position_embeddings.shape[1] == 1 + 2 * 2


def test_a_model_that_cannot_be_stretched_says_the_size_it_takes(place: Path) -> None:
    config = BeitConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=4,
        use_relative_position_bias=True,
    )  # fmt: skip
    BeitForImageClassification(config).save_pretrained(place / "tiny")
    with pytest.raises(TrainerError, match="was trained on images of 16 pixels and cannot take 32: set `image_size` to 16"):
        a_trainer(place, image_size=32)
    assert a_trainer(place, image_size=16).facts["image_size"] == 16


def test_a_size_that_patches_do_not_fill_is_refused(place: Path) -> None:
    make_tiny_vit(place / "tiny")
    with pytest.raises(TrainerError, match="`image_size` is 18, but the model sees patches of 4 pixels"):
        a_trainer(place, image_size=18)


@pytest.mark.parametrize(
    "config",
    [
        ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=16),
        MobileNetV2Config(depth_multiplier=0.25, image_size=16),
    ],
    ids=lambda config: config.model_type,
)
def test_convolutional_networks_of_other_kinds_train_with_their_first_layer_frozen(place: Path, config: PreTrainedConfig) -> None:
    AutoModelForImageClassification.from_config(config).save_pretrained(place / "tiny")
    trainer = a_trainer(place, image_size=16, frozen_layers=1)
    before = {name: weight.clone() for name, weight in trainer._model.named_parameters()}
    report = next(trainer.reports())
    changed = {name for name, weight in trainer._model.named_parameters() if not torch.equal(weight, before[name])}
    assert 0 < len(changed) < len(before)
    assert report.metrics["validation/loss"] > 0


@pytest.mark.parametrize(
    ("make", "frozen"), [(make_tiny_resnet, 1), (make_tiny_resnet, "all"), (make_tiny_vit, 1), (make_tiny_vit, "all")]
)
def test_what_frozen_layers_make_of_the_images_is_computed_once_and_changes_nothing(
    place: Path, make: Any, frozen: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place / "tiny")
    changes: dict[str, Any] = {"image_size": 16, "frozen_layers": frozen, "epochs": 2, "dropout": 0.0}
    cached = a_trainer(place, **changes)
    assert cached.facts["frozen_features"]
    found = [report.metrics for report in cached.reports()]
    monkeypatch.setattr("trainers.image_classification.frozen_features", lambda *_: None)
    plain = a_trainer(place, **changes)
    assert not plain.facts["frozen_features"]
    for one, other in zip(found, plain.reports(), strict=True):
        assert one == pytest.approx(other.metrics, rel=1e-4, abs=1e-5)


def test_frozen_layers_of_augmented_images_are_computed_each_time(place: Path) -> None:
    trainer = a_trainer(place, image_size=16, frozen_layers=1, augmentation={"flip": 0.5})
    assert not trainer.facts["frozen_features"]
    assert next(trainer.reports()).metrics["validation/loss"] > 0


def test_validation_and_test_rows_are_held_back_of_one_file_each_label_in_proportion(place: Path) -> None:
    data = {"train": "train.zip", "validation_fraction": 0.25, "test_fraction": 0.25}
    trainer = a_trainer(place, data, image_size=16)
    assert trainer.facts["rows"] == {"train": 24, "validation": 12, "test": 12}
    for split, each in (("train", 8), ("validation", 4), ("test", 4)):
        assert trainer._rows.array(f"{split}-labels").tolist().count(0) == each
    next(trainer.reports())
    assert trainer.test(export(trainer, place)).keys() == {"test/loss", "test/accuracy", "test/f1_macro"}


def test_the_same_image_in_another_file_format_is_a_duplicate(place: Path) -> None:
    images = list(shapes(12, 0))
    again = [(f"{label}/again.bmp", encoded(image, "BMP")) for label, image in images[:1]]
    write_files(place / "train.zip", [*((f"{label}/{at}.png", png(image)) for at, (label, image) in enumerate(images)), *again])
    write_zip(place / "validation.zip", [*shapes(3, 1), *images[1:2]])
    facts = a_trainer(place, image_size=16).facts
    assert facts["dropped"] == {"empty": 0, "duplicate": 1, "in_other_split": 1}
    assert facts["rows"] == {"train": 11, "validation": 4}


def test_rows_without_image_or_label_are_dropped(place: Path) -> None:
    rows = [{"image": [at, 0, 1, at], "label": "ab"[at % 2]} for at in range(40)]
    write_jsonl(place / "train.jsonl", [*rows, {**rows[0], "label": ""}, {"label": "a"}])
    facts = a_trainer(place, {"train": "train.jsonl"}, image_size=8).facts
    assert facts["dropped"]["empty"] == 2
    assert facts["rows"]["train"] + facts["rows"]["validation"] == 40


def test_white_is_what_it_is_in_the_training_rows(place: Path) -> None:
    bright, dim = [0, 16, 8, 4], [0, 8, 4, 2]
    write_jsonl(place / "train.jsonl", [{"image": bright, "label": "a"}, {"image": bright[::-1], "label": "b"}])
    write_jsonl(place / "validation.jsonl", [{"image": dim, "label": "a"}])
    trainer = a_trainer(place, {"train": "train.jsonl", "validation": "validation.jsonl"}, image_size=8)
    assert trainer.facts["white"] == 16
    assert trainer._rows.array("pixels-train").max() == 255
    assert trainer._rows.array("pixels-validation").max() == 128


def test_digits_are_learnt_from_random_weights(place: Path) -> None:
    write_jsonl(place / "digits.jsonl", digits())
    changes = {"initialisation": "random", "image_size": 32, "epochs": 3, "batch_size": 32, "schedule": "one_cycle"}
    reports = list(a_trainer(place, {"train": "digits.jsonl"}, **changes).reports())
    assert reports[-1].metrics["validation/accuracy"] > 0.9


def test_a_row_that_would_be_a_batch_alone_shares_the_batch_before_it(place: Path) -> None:
    write_zip(place / "train.zip", shapes(33, 0))
    trainer = a_trainer(place, image_size=8)  # the network's last stage sees a single pixel of it
    assert [len(rows) for rows in trainer._batches(0)] == [16, 8, 9]
    assert sorted(row for rows in trainer._batches(0) for row in rows) == list(range(33))
    assert next(trainer.reports()).step == 3


@given(rows=st.integers(1, 40), size=st.integers(1, 9))
def test_no_row_is_left_alone_and_no_batch_gets_larger(rows: int, size: int) -> None:
    batches = [list(range(at, min(at + size, rows))) for at in range(0, rows, size)]
    found = _without_single(batches)
    assert [row for batch in found for row in batch] == list(range(rows))
    sizes = list(map(len, found))
    assert max(sizes) <= (3 if size == 2 else size), "three rows make no two batches"
    assert 0 not in sizes
    assert 1 not in sizes or rows == 1 or size == 1
    assert len(found) == len(batches) or size == 2


@pytest.mark.parametrize(
    ("rows", "size", "sizes"), [(4, 3, [2, 2]), (7, 3, [3, 2, 2]), (3, 2, [3]), (5, 2, [2, 3]), (3, 1, [1, 1, 1]), (1, 4, [1])]
)
def test_small_batches_share_their_rows(rows: int, size: int, sizes: list[int]) -> None:
    batches = [list(range(at, min(at + size, rows))) for at in range(0, rows, size)]
    assert list(map(len, _without_single(batches))) == sizes


def test_a_micro_batch_of_one_row_that_cannot_be_normalised_is_a_clear_error(place: Path) -> None:
    assert next(a_trainer(place, image_size=8, micro_batch_size=5).reports()).number == 1, "16 rows are four times 4"
    with pytest.raises(TrainerError, match="from one image alone: raise `micro_batch_size`"):
        list(a_trainer(place, image_size=8, micro_batch_size=1).reports())


def test_convolutions_take_adapters_and_are_exported_with_them_merged_in(place: Path) -> None:
    trainer = a_trainer(place, image_size=16, lora={"rank": 2, "target_modules": ("convolution",)})
    report = next(trainer.reports())
    measured = judge(export(trainer, place), list(shapes(12, 1)))
    assert report.metrics["validation/loss"] == pytest.approx(measured["loss"], abs=1e-5)


def test_a_vision_transformer_takes_the_adapters_of_the_preset(place: Path) -> None:
    shutil.rmtree(place / "tiny")
    make_tiny_vit(place / "tiny")
    trainer = a_trainer(place, lora=presets()["image-classification/lora"].trainer["lora"])
    report = next(trainer.reports())
    measured = judge(export(trainer, place), list(shapes(12, 1)))
    assert report.metrics["validation/loss"] == pytest.approx(measured["loss"], abs=1e-5)


def test_a_label_that_no_training_row_has_is_named(place: Path) -> None:
    write_zip(place / "validation.zip", [*shapes(4, 1), ("cross", next(shapes(1, 5))[1])])
    with pytest.raises(TrainerError, match="The validation rows have labels that no training row has, such as 'cross'"):
        a_trainer(place)


def test_images_of_one_label_alone_are_refused(place: Path) -> None:
    write_zip(place / "train.zip", shapes(8, 0, kinds=["disc"]))
    with pytest.raises(TrainerError, match="only the label 'disc'"):
        a_trainer(place, {"train": "train.zip"})


def test_a_broken_image_is_named_and_leaves_nothing_half_made(place: Path) -> None:
    whole = png(next(shapes(1, 0))[1])
    write_files(place / "train.zip", [("a/1.png", whole), ("b/2.png", whole[: len(whole) // 2])])
    with pytest.raises(TrainerError, match=r"train\.zip: 'b/2\.png' is a broken picture"):
        a_trainer(place)
    assert list((place / "cache").iterdir()) == []


def test_too_few_images_for_a_validation_are_refused(place: Path) -> None:
    write_zip(place / "train.zip", shapes(3, 0))
    with pytest.raises(TrainerError, match="`validation_fraction` holds back none of 3 training rows"):
        a_trainer(place, {"train": "train.zip"})


def test_a_disk_too_small_for_the_images_is_refused_before_it_is_full(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.image_classification.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        TrainerError, match="48 images of 16 pixels need 36,864 bytes of disk, 1,000 are free: lower `image_size`"
    ):
        a_trainer(place, image_size=16)


def test_rare_labels_weigh_more_where_they_are_to(place: Path) -> None:
    images = list(shapes(30, 0))
    write_zip(place / "train.zip", [*images, *((label, image) for label, image in shapes(60, 3) if label == "disc")])
    trainer = a_trainer(place, image_size=16, class_weights="balanced")
    assert trainer._weights is not None
    disc, frame, stripes = trainer._weights.tolist()
    assert disc < 1 < frame == stripes


def test_the_loss_is_the_one_asked_for(place: Path) -> None:
    plain, focal, smooth = (
        next(a_trainer(place, image_size=16, **changes).reports()).metrics["train/loss"]
        for changes in ({}, {"loss": "focal"}, {"label_smoothing": 0.3})
    )
    assert focal < plain
    assert smooth != plain


def test_mistakes_are_named_by_their_place_in_the_file(place: Path) -> None:
    trainer = a_trainer(place, image_size=16, learning_rate=1e-6)
    next(trainer.reports())
    names = {mistake["name"] for mistake in trainer.analysis()["mistakes"]}
    assert names
    assert names <= set(zipfile.ZipFile(place / "validation.zip").namelist())


def test_a_model_with_no_head_for_images_is_a_clear_error(place: Path) -> None:
    (place / "tiny" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(TrainerError, match="cannot be loaded for ImageClassification"):
        a_trainer(place)

"""Changes to images: what each does, and that a row's are its own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from trainers.augmentation import augmented, drawn
from trainers.configs import ImageAugmentation

ROWS = range(200)


def changed(images: Tensor, seed: int = 0, epoch: int = 0, **changes: Any) -> Tensor:
    return augmented(images, ImageAugmentation(**changes), drawn(seed, epoch, range(len(images))))


def noise(side: int = 12) -> Tensor:
    return torch.rand(len(ROWS), 3, side, side, generator=torch.Generator().manual_seed(0)) + 1


def ramps(side: int = 32) -> Tensor:
    """Images that say at each pixel where it is: the first channel across, the second down, from -1 to 1 between the edges."""
    places = (2 * torch.arange(side) + 1) / side - 1
    image = torch.stack([places.expand(side, side), places[:, None].expand(side, side)])
    return image.expand(len(ROWS), 2, side, side)


def test_images_stay_as_they_are_where_nothing_is_asked_for() -> None:
    assert torch.equal(changed(noise()), noise())


@pytest.mark.parametrize("changes", [{"flip": 0.5}, {"crop": 0.3}, {"shift": 0.2}, {"erase": 0.5}])
def test_the_same_seed_and_epoch_change_an_image_in_the_same_way_and_others_differently(changes: dict[str, Any]) -> None:
    assert torch.equal(changed(noise(), **changes), changed(noise(), **changes))
    assert not torch.equal(changed(noise(), **changes), changed(noise(), epoch=1, **changes))
    assert not torch.equal(changed(noise(), **changes), changed(noise(), seed=1, **changes))


def test_a_row_is_changed_in_the_same_way_in_any_batch() -> None:
    changes = ImageAugmentation(flip=0.5, crop=0.3, shift=0.2, erase=0.5)
    whole = augmented(noise(), changes, drawn(3, 5, ROWS))
    some = [7, 150, 2]
    assert torch.equal(augmented(noise()[some], changes, drawn(3, 5, some)), whole[some])


def test_a_flip_happens_as_often_as_asked_for() -> None:
    flipped = (changed(noise(), flip=0.25) == noise().flip(-1)).all(-1).all(-1).all(-1)
    kept = (changed(noise(), flip=0.25) == noise()).all(-1).all(-1).all(-1)
    assert (flipped ^ kept).all()
    assert 0.15 < flipped.double().mean() < 0.35
    assert torch.equal(changed(noise(), flip=1.0), noise().flip(-1))


def test_a_crop_takes_no_more_of_the_area_than_asked_for() -> None:
    found = changed(ramps(), crop=0.5)
    steps = found[:, 0, 16, 17] - found[:, 0, 16, 16]  # of a pixel, which a crop makes larger
    share = (steps * 16) ** 2
    assert share.min() > 0.5 - 1e-3
    assert share.min() < 0.55
    assert share.max() > 0.95
    torch.testing.assert_close(found[:, 1, 17, 16] - found[:, 1, 16, 16], steps, atol=1e-5, rtol=0)


def test_a_crop_stays_within_the_image() -> None:
    found = changed(ramps(), crop=0.9)
    inner = found[:, 0, :, 1:] - found[:, 0, :, :-1]
    assert (inner.min(-1).values > 0).all(), "an edge that is drawn out would be flat"


def test_a_shift_goes_no_further_than_asked_for_in_both_directions() -> None:
    found = changed(ramps(), shift=0.25)
    for channel in (0, 1):
        moved = found[:, channel, 16, 16] - ramps()[:, channel, 16, 16]
        assert moved.abs().max() < 0.5 + 1e-3  # the image is 2 wide
        assert moved.min() < -0.4
        assert moved.max() > 0.4


def test_a_shift_draws_the_edge_in() -> None:
    assert changed(noise(), shift=0.5).min() >= 1, "nothing but the image's own values"


def test_what_is_erased_becomes_the_mean_and_is_a_rectangle_of_at_most_a_third() -> None:
    images = noise(40)
    found = changed(images, erase=1.0)
    gone = (found == 0).all(1)
    assert torch.equal(found, images * ~gone[:, None])
    share = gone.double().mean((1, 2))
    assert share.min() > 0.01
    assert share.max() < 0.36
    down, across = gone.any(2), gone.any(1)
    assert torch.equal(gone, down[:, :, None] & across[:, None, :])


def test_a_part_is_erased_as_often_as_asked_for() -> None:
    gone = (changed(noise(), erase=0.25) == 0).any(1).any(1).any(1)
    assert 0.15 < gone.double().mean() < 0.35


def test_leaving_one_change_out_leaves_the_others_alone() -> None:
    both = changed(noise(), flip=0.5, erase=0.5)
    gone = both == 0
    assert torch.equal(both, changed(noise(), flip=0.5) * ~gone)

"""The loss in parts equals the loss of the whole."""

import pytest
import torch
from torch.nn import functional as F

from nlp_ft.tasks.losses import BinaryLoss, ChoiceLoss, ClassificationLoss, Loss, SpanLoss, SquaredLoss, TagLoss

torch.manual_seed(3)
LOGITS = torch.randn(11, 4)
LABELS = torch.randint(0, 4, (11,))
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("sizes", [[11], [8, 3], [4, 4, 3], [10, 1]])
def test_parts_of_any_size_add_up_to_torch_cross_entropy(
    sizes: list[int], weights: torch.Tensor | None, smoothing: float
) -> None:
    loss = ClassificationLoss(weights, smoothing)
    parts = list(zip(LOGITS.split(sizes), LABELS.split(sizes), strict=True))
    mean = sum(loss.total(*part) for part in parts) / sum(loss.weight(labels) for _, labels in parts)
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("sizes", [[11], [8, 3]])
def test_shares_that_are_all_of_one_label_give_the_loss_of_its_id(
    sizes: list[int], weights: torch.Tensor | None, smoothing: float
) -> None:
    loss = ClassificationLoss(weights, smoothing)
    parts = list(zip(LOGITS.split(sizes), F.one_hot(LABELS, 4).float().split(sizes), strict=True))
    mean = sum(loss.total(*part) for part in parts) / sum(loss.weight(shares) for _, shares in parts)
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-7)


def test_mixed_shares_give_the_mixed_loss_and_a_row_without_any_adds_nothing() -> None:
    loss = ClassificationLoss(None, 0.1)
    shares = 0.3 * F.one_hot(LABELS, 4) + 0.7 * F.one_hot(LABELS.roll(1), 4)
    losses = [F.cross_entropy(LOGITS, labels, label_smoothing=0.1) for labels in (LABELS, LABELS.roll(1))]
    torch.testing.assert_close(loss.total(LOGITS, shares) / loss.weight(shares), 0.3 * losses[0] + 0.7 * losses[1])
    filled = torch.cat([shares, torch.zeros(1, 4)])
    filled_logits = torch.cat([LOGITS, torch.full((1, 4), 9.0)])
    torch.testing.assert_close(loss.total(filled_logits, filled), loss.total(LOGITS, shares))
    torch.testing.assert_close(loss.weight(filled), loss.weight(shares))


def test_a_row_that_only_fills_a_batch_adds_nothing() -> None:
    loss = ClassificationLoss(WEIGHTS, 0.1)
    filled_logits = torch.cat([LOGITS, torch.full((1, 4), 9.0)])
    filled_labels = torch.cat([LABELS, torch.tensor([-100])])
    assert loss.total(filled_logits, filled_labels) == loss.total(LOGITS, LABELS)
    assert loss.weight(filled_labels) == loss.weight(LABELS)


SETS = torch.randint(0, 2, (11, 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("sizes", [[11], [8, 3], [4, 4, 3], [10, 1]])
def test_parts_of_label_sets_add_up_to_torch_binary_cross_entropy(
    sizes: list[int], weights: torch.Tensor | None, smoothing: float
) -> None:
    loss = BinaryLoss(weights, smoothing)
    parts = list(zip(LOGITS.split(sizes), SETS.split(sizes), strict=True))
    mean = sum(loss.total(*part) for part in parts) / sum(loss.weight(labels) for _, labels in parts)
    smoothed = torch.where(SETS == 1, 1 - smoothing / 2, smoothing / 2)
    expected = F.binary_cross_entropy_with_logits(LOGITS, smoothed, pos_weight=weights)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-7)


def test_a_row_of_label_sets_that_only_fills_a_batch_adds_nothing() -> None:
    loss = BinaryLoss(WEIGHTS, 0.1)
    filled_logits = torch.cat([LOGITS, torch.full((1, 4), 9.0)])
    filled_labels = torch.cat([SETS, torch.full((1, 4), -100)])
    torch.testing.assert_close(loss.total(filled_logits, filled_labels), loss.total(LOGITS, SETS))
    assert loss.weight(filled_labels) == loss.weight(SETS) == 44


TAGS = torch.tensor([[-100, 2, 1], [0, -100, -100]])
TAG_LOGITS = torch.randn(2, 3, 4)
CHOICES = torch.tensor([[0, 1, 0], [1, 0, -100]])
SPANS = torch.tensor([[-100, 1, 2], [-100, 3, 0]])
NUMBERS = torch.tensor([[3.0, 5.0], [1.0, 2.0]])
OF_ROWS: dict[str, tuple[Loss, torch.Tensor, torch.Tensor]] = {
    "labels": (ClassificationLoss(), LOGITS, LABELS),
    "sets": (BinaryLoss(), LOGITS, SETS),
    "tags": (TagLoss(), TAG_LOGITS, TAGS),
    "choices": (ChoiceLoss(), TAG_LOGITS[0, :2, :3], CHOICES),
    "spans": (SpanLoss(), TAG_LOGITS[..., :2], SPANS),
    "numbers": (SquaredLoss(torch.tensor([2.0, 3.0]), torch.tensor([2.0, 0.5])), TAG_LOGITS[0, :2, :2], NUMBERS),
}


@pytest.mark.parametrize("kind", OF_ROWS)
def test_the_loss_of_a_row_is_that_of_a_part_with_this_row_alone(kind: str) -> None:
    loss, logits, labels = OF_ROWS[kind]
    alone = [loss.total(*part) / loss.weight(part[1]) for part in zip(logits.split(1), labels.split(1), strict=True)]
    assert loss.of_rows(logits, labels).tolist() == pytest.approx([float(one) for one in alone], rel=1e-6)


@pytest.mark.parametrize("kind", OF_ROWS)
def test_a_row_without_labels_has_no_loss(kind: str) -> None:
    loss, logits, labels = OF_ROWS[kind]
    ignored = torch.full_like(labels[:1], -100)
    found = loss.of_rows(torch.cat([logits[:1], logits[:1]]), torch.cat([labels[:1], ignored]))
    assert found.isnan().tolist() == [False, True]


def test_weights_and_smoothing_do_not_change_the_loss_of_a_row() -> None:
    expected = ClassificationLoss().of_rows(LOGITS, LABELS)
    assert ClassificationLoss(WEIGHTS, 0.1).of_rows(LOGITS, LABELS).equal(expected)
    assert BinaryLoss(WEIGHTS, 0.1).of_rows(LOGITS, SETS).equal(BinaryLoss().of_rows(LOGITS, SETS))


def test_a_row_mixed_of_two_has_no_loss() -> None:
    assert ClassificationLoss().of_rows(LOGITS, F.one_hot(LABELS, 4).float()).isnan().all()

"""Calibration error against scikit-learn and a loop over bins, and what it refuses."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from xai_utils.metrics.calibration import expected_calibration_error

LABELS = torch.tensor([0, 1, 0, 3])


def slow_calibration(probabilities, labels, bins):
    total = 0.0
    for b in range(bins):
        inside = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(probabilities.tolist(), labels.tolist())
            if b / bins < max(row) <= (b + 1) / bins
        ]
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - sum(p for p, _ in inside) / len(inside))
    return total


@pytest.mark.parametrize("bins", [1, 4, 10, 15])
def test_expected_calibration_error_by_loop_and_scikit_learn(bins):
    random = torch.Generator().manual_seed(5)
    probabilities = (2 * torch.randn(300, 4, generator=random, dtype=torch.float64)).softmax(1)
    labels = torch.where(
        torch.rand(300, generator=random) < 0.6,
        probabilities.argmax(1),
        torch.randint(4, (300,), generator=random),
    )
    got = expected_calibration_error(probabilities, labels, bins)
    assert got == pytest.approx(slow_calibration(probabilities, labels, bins), rel=1e-12)
    confidence, predicted = (part.numpy() for part in probabilities.max(1))
    accuracy, mean = calibration_curve(predicted == labels.numpy(), confidence, n_bins=bins)
    count = np.histogram(confidence, np.linspace(0, 1, bins + 1))[0]
    assert got == pytest.approx((count[count > 0] / 300 * abs(accuracy - mean)).sum(), rel=1e-12)


def test_calibration_error_at_the_edges_of_bins_and_of_certainty():
    probabilities = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25], [1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([1, 1, 0, 0])
    # upper ends belong to the bin: (0, .5] has 0.5 wrong, (.5, 1] the other three, all right
    assert expected_calibration_error(probabilities, labels, 2) == pytest.approx((0.5 + 2 * 0.25 + 0) / 4)
    assert expected_calibration_error(probabilities, labels, 4) == pytest.approx((0.5 + 2 * 0.25 + 0) / 4)
    assert expected_calibration_error(probabilities, labels, 4) == slow_calibration(probabilities, labels, 4)
    assert expected_calibration_error(torch.eye(3), torch.arange(3)) == 0
    assert expected_calibration_error(torch.eye(3), torch.tensor([1, 2, 0])) == 1
    half = torch.randn(50, 6, generator=torch.Generator().manual_seed(6)).softmax(1).bfloat16()
    assert 0 <= expected_calibration_error(half, torch.zeros(50, dtype=torch.int64)) <= 1


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: expected_calibration_error(torch.randn(3, 2), LABELS[:3]), ValueError, r"give logits.softmax\(1\)"),
        (lambda: expected_calibration_error(torch.ones(3), LABELS[:3]), ValueError, r"got shape \(3,\); expected \(N"),
        (lambda: expected_calibration_error(LABELS, LABELS), TypeError, "probabilities: got torch.int64"),
        (lambda: expected_calibration_error(torch.eye(3), LABELS[:3], 0), ValueError, "bins: got 0"),
        (lambda: expected_calibration_error(torch.eye(3), torch.tensor([0, 3, 1])), ValueError, "labels: got 3"),
    ],
)
def test_bad_input_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()

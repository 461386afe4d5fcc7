"""Do a classifier's probabilities mean what they say?"""

import torch
from torch import Tensor


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Σ_b n_b/N · |accuracy_b − mean confidence_b| over equal-width bins of the highest probability (Guo et al. 2017).

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: true classes (N,), integers.
        bins: number M; bin b is ((b − 1)/M, b/M].

    Raises:
        TypeError, ValueError: types, shapes or classes that do not fit, rows that are no probabilities.
    """
    for name, given, floating in (("probabilities", probabilities, True), ("labels", labels, False)):
        kind = given.dtype if isinstance(given, Tensor) else type(given)
        fits = isinstance(kind, torch.dtype) and not kind.is_complex and kind != torch.bool
        if not fits or kind.is_floating_point != floating:
            expected = "a floating-point tensor (N, K)" if floating else "a tensor of integer classes (N,)"
            raise TypeError(f"{name}: got {getattr(kind, '__name__', kind)}; expected {expected}")
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(f"probabilities: got shape {tuple(probabilities.shape)}; expected (N, K), K classes")
    if labels.shape != probabilities.shape[:1]:
        raise ValueError(f"labels: got shape {tuple(labels.shape)}; expected ({len(probabilities)},), one for each row")
    if len(wrong := labels[(labels < 0) | (labels >= probabilities.shape[1])]):
        raise ValueError(f"labels: got {wrong[0].item()}; expected classes from 0 to {probabilities.shape[1] - 1}")
    values = probabilities.detach().double()
    one = (values.sum(1) - 1).abs() <= 0.01  # half precision, too
    right = one & (values >= 0).all(1)
    if not right.all():
        bad = (~right).nonzero()[:5, 0].tolist()
        raise ValueError(f"probabilities: rows {bad} are not ≥ 0 with sum 1; give logits.softmax(1)")
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins: got {bins!r}; expected a whole number from 1")
    confidence, predicted = values.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=values.dtype, device=values.device)[1:-1]
    bin_of = torch.bucketize(confidence, edges)
    gap = (predicted == labels.to(predicted)).to(values) - confidence
    sums = torch.zeros(bins, dtype=values.dtype, device=values.device).index_add(0, bin_of, gap)
    return sums.abs().sum().item() / len(values)

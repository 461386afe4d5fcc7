"""`pixel_accuracy_curve` on 1,000 maps of 64×64 at 101 thresholds, beside a loop over the thresholds.

Both run alternately in one process, on one thread; the bar is a median of at most 1 s under every reading of R.
"""

import statistics
import time

import torch

from xai_utils.metrics import pixel_accuracy_curve

MAPS, SIZE, ROUNDS = 1_000, 64, 5
READINGS = ("signed", "clip", "shift")


def loop(saliency, mask, r):
    """The formula as written, one threshold at a time (no ties in these maps)."""
    values = saliency.double().flatten(1)
    share = values / values.sum(1, keepdim=True)
    ordered, order = share.sort(dim=1)
    cumulative, inside = ordered.cumsum(1), mask.flatten(1).gather(1, order)
    return torch.stack([((cumulative >= level) == inside).double().mean(1) for level in r], 1)


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


torch.set_num_threads(1)
torch.manual_seed(0)
saliency, mask = torch.randn(MAPS, SIZE, SIZE) + 0.5, torch.rand(MAPS, SIZE, SIZE) < 0.3
r = torch.linspace(0, 1, 101, dtype=torch.float64)
apart = (pixel_accuracy_curve(saliency, mask, r) - loop(saliency, mask, r)).abs().max()
print(f"largest difference between the two: {apart * SIZE**2:.0f} pixels (at r = 1 rounding decides about the last)")
times = {name: [] for name in (*READINGS, "loop, signed")}
for _ in range(ROUNDS):
    for reading in READINGS:
        times[reading].append(seconds(pixel_accuracy_curve, saliency, mask, r, reading))
    times["loop, signed"].append(seconds(loop, saliency, mask, r))
print(f"{MAPS:,} maps of {SIZE}×{SIZE}, {len(r)} thresholds, one thread:")
for name, taken in times.items():
    print(f"{name:13}{statistics.median(taken):6.2f} s" + (" (bar 1.00)" if name in READINGS else ""))

"""Paper 2's evaluation and its images: 1,000 maps of 64×64 at 101 thresholds, 30,000 rectangles of 64×64.

The curve runs beside a loop over the thresholds, alternately in one process, on one thread.
"""

import statistics

import torch
from harness import alternate, report

from xai_utils.data import load
from xai_utils.metrics import pixel_accuracy_curve

MAPS, SIZE = 1_000, 64
READINGS = ("signed", "clip", "shift")


def loop(saliency, mask, r):
    """The formula as written, one threshold at a time (no ties in these maps)."""
    values = saliency.double().flatten(1)
    share = values / values.sum(1, keepdim=True)
    ordered, order = share.sort(dim=1)
    cumulative, inside = ordered.cumsum(1), mask.flatten(1).gather(1, order)
    return torch.stack([((cumulative >= level) == inside).double().mean(1) for level in r], 1)


torch.set_num_threads(1)
torch.manual_seed(0)
saliency, mask = torch.randn(MAPS, SIZE, SIZE) + 0.5, torch.rand(MAPS, SIZE, SIZE) < 0.3
r = torch.linspace(0, 1, 101, dtype=torch.float64)
apart = (pixel_accuracy_curve(saliency, mask, r) - loop(saliency, mask, r)).abs().max()
print(f"largest difference between the two: {apart * SIZE**2:.0f} pixels (at r = 1 rounding decides about the last)")
curves = {name: lambda name=name: pixel_accuracy_curve(saliency, mask, r, name) for name in READINGS}
times = alternate(curves | {"loop": lambda: loop(saliency, mask, r)}, rounds=5)
times |= alternate({"rectangles": lambda: load("rectangles", n=30_000, size=64)}, rounds=3)
names = {name: f"curve, {name}: {MAPS:,} maps of {SIZE}×{SIZE}, {len(r)} thresholds, s" for name in READINGS}
names |= {"loop": "the same by a loop over the thresholds (signed), s", "rectangles": "30,000 rectangles of 64×64, s"}
bars = dict.fromkeys(READINGS, "≤ 1") | {"loop": "", "rectangles": "≤ 2"}
rows = [{"what": names[n], "measured": round(statistics.median(times[n]), 2), "bar": bars[n]} for n in names]
report(__file__, "one thread", rows)

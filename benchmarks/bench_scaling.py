"""How the cost grows with images, image size, masks and steps: each method in units of as many plain forward passes.

A flat line means that nothing but the network costs; a falling one, that a fixed part is shared out. The figure is
written beside the numbers: results/bench_scaling.png.
"""

from collections.abc import Callable

import matplotlib
import torch
from harness import RESULTS, alternate, ratio, report

from xai_utils import plot
from xai_utils.explain import LRP, LRPBN, RISE, GradCAM
from xai_utils.metrics.faithfulness import insertion_deletion
from xai_utils.models import AttentionBranchNetwork, from_torch, make_torchvision_importable

matplotlib.use("Agg")
make_torchvision_importable()
import torchvision  # isort: skip
from matplotlib import pyplot as plt  # isort: skip

TARGET, ROUNDS = 1, 3

torch.manual_seed(0)
model, abn = torchvision.models.resnet18(weights=None).eval(), AttentionBranchNetwork(18).eval()
lrp, lrp_bn, grad_cam = LRP(from_torch(model)), LRPBN(abn), GradCAM(model, "layer4")


@torch.no_grad()
def forward(network: torch.nn.Module, images: torch.Tensor, pictures: int | None = None, batch: int = 32) -> None:
    """As many forward passes as there are images, or `pictures` of them, `batch` at a time."""
    for start in range(0, pictures or len(images), batch):
        part = images[:batch] if pictures is None else images[:1].expand(min(batch, pictures - start), -1, -1, -1)
        network(part.contiguous())


def maps(images: torch.Tensor) -> dict[str, float]:
    """One map an image, in forwards of the same images."""
    times = alternate({
        "forward": lambda: forward(model, images),
        "Grad-CAM": lambda: grad_cam.attribute(images, TARGET),
        "LRP": lambda: lrp.attribute(images, TARGET),
        "forward of the ABN": lambda: forward(abn, images),
        "LRP-BN": lambda: lrp_bn.attribute(images, TARGET),
    }, rounds=ROUNDS)  # fmt: skip
    found = {name: ratio(times, name, "forward") for name in ("Grad-CAM", "LRP")}
    return found | {"LRP-BN": ratio(times, "LRP-BN", "forward of the ABN")}


def rise(masks: int) -> dict[str, float]:
    """RISE of one image, in forwards of as many pictures as there are masks."""
    image, explainer = torch.rand(1, 3, 112, 112), RISE(model, n_masks=masks)
    calls = {"forward": lambda: forward(model, image, masks), "RISE": lambda: explainer.attribute(image, TARGET)}
    return {"RISE": ratio(alternate(calls, rounds=ROUNDS), "RISE", "forward")}


def curves(steps: int) -> dict[str, float]:
    """Insertion and deletion of four images, in forwards of as many pictures as both curves have steps."""
    images, saliency = torch.rand(4, 3, 112, 112), torch.rand(4, 112, 112)
    times = alternate({
        "forward": lambda: forward(model, images, 2 * steps * len(images)),
        "curves": lambda: insertion_deletion(model, images, saliency, TARGET, steps=steps),
    }, rounds=ROUNDS)  # fmt: skip
    return {"insertion + deletion": ratio(times, "curves", "forward")}


GRID: dict[str, tuple[tuple[int, ...], Callable[[int], dict[str, float]]]] = {
    "images of 112 pixels": ((1, 2, 4, 8, 16, 32), lambda n: maps(torch.rand(n, 3, 112, 112))),
    "image size, 4 images": ((56, 112, 168, 224, 336), lambda size: maps(torch.rand(4, 3, size, size))),
    "masks of RISE, 1 image": ((64, 128, 256, 512, 1024), rise),
    "steps of a curve, 4 images": ((5, 10, 20, 40, 80), curves),
}
found = {axis: {size: measure(size) for size in sizes} for axis, (sizes, measure) in GRID.items()}

plot.use_style()
fig, axes = plt.subplots(1, len(found), figsize=(11, 2.8), layout="constrained")
for ax, (axis, by_size) in zip(axes, found.items(), strict=True):
    for name in next(iter(by_size.values())):
        ax.plot(list(by_size), [values[name] for values in by_size.values()], "o-", label=name)
    ax.set(xlabel=axis, xscale="log", ylim=(0, None))
    ax.set_xticks(list(by_size), list(map(str, by_size)), minor=False)
    ax.minorticks_off()
    ax.legend(fontsize=7)
axes[0].set_ylabel("plain forward passes")
RESULTS.mkdir(exist_ok=True)
fig.savefig(RESULTS / "bench_scaling.png", dpi=100)

rows = [
    {"axis": axis, "size": size} | {name: round(value, 3) for name, value in values.items()}
    for axis, by_size in found.items()
    for size, values in by_size.items()
]
report(__file__, "ResNet-18 and an Attention Branch Network of it, float32", rows)

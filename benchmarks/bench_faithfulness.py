"""RISE, and insertion + deletion, on a ResNet-50 at 224 pixels, beside the model's plain forward of as many images.

Memory is the peak of a process of its own: RISE with 4,000 masks beside forward passes of the same folded model at
the same batch size (ResNet-18, to save time). Localization is timed alone, all measures over 1,000 pairs.
"""

import resource
import subprocess
import sys

import torch
from harness import alternate, ratio, report, seconds

from xai_utils.explain.rise import RISE
from xai_utils.metrics.faithfulness import insertion_deletion
from xai_utils.metrics.localization import energy_inside, iou, pieces, pointing_game
from xai_utils.models import make_torchvision_importable
from xai_utils.models.folded import fast_copy, images_per_batch

make_torchvision_importable()
import torchvision  # isort: skip

MASKS, IMAGES, STEPS, ROUNDS, MANY_MASKS = 256, 8, 25, 3, 4_000
TO_MIB = 2**20 if sys.platform == "darwin" else 2**10


def resnet(name):
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval()


@torch.no_grad()
def forward(model, pictures, batch):
    """As many forward passes as `pictures` need, of one batch again and again."""
    images = torch.rand(batch, 3, 224, 224)
    for start in range(0, pictures, batch):
        model(images[: pictures - start])


def peak(kind):
    """Peak memory of this process, MiB, after RISE or after forward passes of the folded copy."""
    model, images = resnet("resnet18"), torch.rand(1, 3, 224, 224)
    if kind == "RISE":
        RISE(model, n_masks=MANY_MASKS).attribute(images, 1)
    else:
        with torch.no_grad():
            folded = fast_copy(model, images, model(images))
        forward(folded, 10 * images_per_batch(images, None), images_per_batch(images, None))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / TO_MIB


def localization():
    maps = torch.nn.functional.interpolate(torch.rand(1000, 1, 14, 14), (224, 224), mode="bilinear")[:, 0]
    masks = maps.roll(20, 2) > 0.7

    def all_of_them():
        iou(maps, masks, 0.15, of="maximum")
        iou(maps, masks, torch.linspace(0, 1, 101), of="maximum")
        for measure in (energy_inside, pointing_game):
            measure(maps, masks)
        pieces(maps)

    all_of_them()
    return seconds(all_of_them)


def main():
    model, images, maps = resnet("resnet50"), torch.rand(IMAGES, 3, 224, 224), torch.rand(IMAGES, 224, 224)
    batch = images_per_batch(images, None)
    rise, scored = RISE(model, n_masks=MASKS), 2 * STEPS * IMAGES
    times = alternate({
        "RISE": lambda: rise.attribute(images[:1], 1),
        "forward": lambda: forward(model, MASKS, batch),
    }, rounds=ROUNDS) | alternate({
        "curves": lambda: insertion_deletion(model, images, maps, 1, steps=STEPS),
        "forward of the curves": lambda: forward(model, scored, batch),
    }, rounds=ROUNDS)  # fmt: skip
    command = [sys.executable, __file__, "--peak"]
    peaks = {kind: float(subprocess.check_output([*command, kind], text=True)) for kind in ("RISE", "forward")}
    memory = f"memory of RISE, {MANY_MASKS:,} masks, ResNet-18, above the folded model's forward, MiB"
    found = [
        (f"RISE, 1 image, {MASKS} masks / forward", ratio(times, "RISE", "forward"), "≤ 1.0 (aim 0.8)"),
        (
            f"insertion + deletion, {IMAGES} images, {STEPS} steps / forward of {scored}",
            ratio(times, "curves", "forward of the curves"),
            "≤ 1.05 (aim 0.85)",
        ),
        (memory, peaks["RISE"] - peaks["forward"], "≤ 50"),
        ("all of localization, 1,000 pairs at 224, s", localization(), "≤ 5"),
    ]
    rows = [{"what": what, "measured": round(measured, 3), "bar": bar} for what, measured, bar in found]
    report(__file__, f"ResNet-50 at 224, float32, batches of {batch}", rows)


if sys.argv[1:2] == ["--peak"]:
    print(peak(sys.argv[2]))
else:
    main()

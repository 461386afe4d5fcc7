"""A training step with L_cam (paper 4) beside a plain one: forward, backward and AdamW, 32 grey images at 64 pixels.

The maps come from the last convolution of both networks, and from layer3 of ResNet-18, where the gradient of the maps
passes through convolutions a second time. Memory is the peak of all tensors, as the profiler counts them.
"""

import itertools

import torch
from harness import alternate, ratio, report

from xai_utils.papers.p4_cam_consistency import Watched, network, objective

BATCH, SIDE, WIDTH, CLASSES, ROUNDS = 32, 64, 16, 4, 9
CASES = [("vgg", "features"), ("resnet18", "layer4"), ("resnet18", "layer3")]
LOSSES = {"plain": "none", "L_cam": "grad_cam"}


def trained(kind, layer, loss):
    """A function that takes one training step, always on the same images; every class has a mean."""
    images, labels = torch.rand(BATCH, 1, SIDE, SIDE), torch.arange(BATCH) % CLASSES
    watched = Watched(network(kind, CLASSES, 1, SIDE, WIDTH, 0), layer, images, CLASSES, 10**9)
    watched.maps.fill_(0.1)
    watched.counts.fill_(1)
    optimizer = torch.optim.AdamW(watched.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        objective(watched, (images, labels), loss=loss, weight=1.0, epochs=1)["loss"].backward()
        optimizer.step()

    return step


def peak(step):
    """MiB of tensors that a training step holds at most, above what is held between two steps."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes)) / 2**20


def main():
    rows = []
    for kind, layer in CASES:
        times = alternate({name: trained(kind, layer, loss) for name, loss in LOSSES.items()}, ROUNDS)
        memory = {name: peak(trained(kind, layer, loss)) for name, loss in LOSSES.items()}
        for what, measured in (
            ("time", ratio(times, "L_cam", "plain")),
            ("memory", memory["L_cam"] / memory["plain"]),
        ):
            rows.append({"what": f"{kind}, {layer}: {what}", "measured": round(measured, 3), "bar": "≤ 2.5"})
    report(__file__, f"step with L_cam / plain step, {BATCH} images at {SIDE}, width {WIDTH}, float32", rows)


main()

"""A small training that stops at a marked point and waits to be killed: training_victim.py CHECKPOINT POINT.

`train` is imported by test_training.py, which resumes what was killed here and compares it with a run that was not.
"""

import builtins
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from xai_utils import training

EPOCHS, KILLED_IN = 5, 3


class Watch:
    """Is told of every loss; what it does is no part of the training's code."""

    def __init__(self):
        self.seen = None

    def __call__(self, model):
        if self.seen:
            self.seen(model)


WATCH = Watch()


def make_model():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 6))


def make_data(n, seed):
    return TensorDataset(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)))


def loss(model, batch, generator):
    """Reconstruction under noise: it draws from its own generator and, by dropout, from the global state."""
    WATCH(model)
    (x,) = batch
    noise = torch.randn(x.shape, generator=generator)
    reconstruction = (model(x + 0.1 * noise) - x).square().mean()
    size = model[0].weight.square().mean()
    return {"loss": reconstruction + 0.1 * size, "reconstruction": reconstruction, "size": size}


def augment(batch, generator):
    return (batch[0] * (1 + 0.1 * torch.rand(1, generator=generator)),)


def train(checkpoint=None, loss=loss, **changes):
    model = make_model()
    arguments = {
        "epochs": EPOCHS,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "schedule": lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-2, steps),
        "validation": make_data(20, 2),
        "patience": 4,
        "batch_size": 16,
        "seed": 11,
        "augment": augment,
        "checkpoint": checkpoint,
    } | changes
    return model, training.fit(model, loss, make_data(50, 1), **arguments)


def wait():
    print("here", flush=True)
    time.sleep(60)


class HalfWritten:
    """A file whose write stops half way."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        wait()


def main(checkpoint, point):
    calls = {"loss": 0, "write": 0}
    replace, save = os.replace, torch.save

    def seen(model):
        calls["loss"] += model.training
        if point == "within" and calls["loss"] == 4 * (KILLED_IN - 1) + 2:  # 4 batches an epoch
            wait()

    def counted_save(*args):
        calls["write"] += 1
        if point == "writing" and calls["write"] == KILLED_IN:
            training.open = lambda *args: HalfWritten(builtins.open(*args))  # noqa: SIM115
        save(*args)

    def counted_replace(*args):
        replace(*args)
        if point == "between" and calls["write"] == KILLED_IN:
            wait()

    WATCH.seen, torch.save, os.replace = seen, counted_save, counted_replace
    train(Path(checkpoint))


if __name__ == "__main__":
    import training_victim  # so that its functions are those that the test imports

    training_victim.main(*sys.argv[1:])

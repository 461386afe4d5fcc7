"""Eq. (1) of paper 1 on 10,000 images, beside the least work it can be: one encoder pass and ten decoder passes.

Both run alternately in one process; the bar is a median ratio of at most 1.2, and a peak of at most 1 GiB above the
model and the images at any number of images.
"""

import resource
import statistics
import sys
import time

import torch

from xai_utils.models import IDCVAE

IMAGES, ROUNDS, BATCH = 10_000, 5, 250
TO_MIB = 2**20 if sys.platform == "darwin" else 2**10


@torch.no_grad()
def passes(model, x):
    for part in x.split(BATCH):
        mean, _ = model.encode(part)
        for label in range(model.n_classes):
            model.decode_logits(mean, label)


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


torch.manual_seed(0)
model, x = IDCVAE(), torch.rand(IMAGES, 1, 28, 28)
model.predict(x[:BATCH])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / TO_MIB
model.predict(x)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / TO_MIB - before
pairs = [(seconds(model.predict, x), seconds(passes, model, x)) for _ in range(ROUNDS)]
ratio = statistics.median(a / b for a, b in pairs)
print(f"eq. (1), {IMAGES:,} images, {torch.get_num_threads()} threads: {statistics.median(a for a, _ in pairs):.2f} s;")
print(f"one encoder + ten decoder passes: {statistics.median(b for _, b in pairs):.2f} s; ratio {ratio:.3f} (bar 1.2)")
print(f"memory above a batch of {BATCH}: {peak:.0f} MiB (bar 1,024)")

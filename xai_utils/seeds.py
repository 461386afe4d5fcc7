"""Random numbers that repeat: one seed per run, and named sub-seeds for everything that draws from it.

A sub-seed depends on the seed and on names only (``generator(seed, "order", epoch)``), never on how many
numbers were drawn before. So a resumed training sees the order that an uninterrupted one sees.
"""

import hashlib
import os
import random

import numpy as np
import torch

LARGEST = 2**63 - 1  # torch.Generator.manual_seed takes an int64


def _checked(seed: int) -> int:
    expected = f"expected a whole number from 0 to {LARGEST}."
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed = {seed!r} ({type(seed).__name__}): {expected}")
    if not 0 <= seed <= LARGEST:
        raise ValueError(f"seed = {seed}: {expected}")
    return int(seed)


def seed_everything(seed: int) -> None:
    """Seed Python's ``random``, NumPy and PyTorch (CPU, CUDA, MPS), and ask CUDA for repeatable kernels.

    On the CPU PyTorch repeats by itself at a fixed number of threads; another number of threads, or another processor,
    may change the last digits. ``torch.use_deterministic_algorithms`` stays off: it fills every new tensor, which costs
    time and changes nothing on the CPU. Operations that CUDA has only in an unordered form (``index_add``, bilinear
    upsampling backwards) may differ in the last digits between two runs on a GPU. The number of threads is not touched.
    CUBLAS_WORKSPACE_CONFIG is set unless it is set already; cuBLAS reads it when the process first uses CUDA.

    `seed` runs from 0 to 2⁶³ − 1, else TypeError or ValueError. NumPy's global state gets it modulo 2³².
    """
    seed = _checked(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive(seed: int, *names: str | int) -> int:
    """Sub-seed of 63 bits: the first eight bytes of SHA-256 over the seed and the names, top bit cleared.

    Equal on every machine and in every process (Python's ``hash`` is not). The text that is hashed keeps
    types and borders: ``("ab", "c")``, ``("a", "bc")``, ``("1",)`` and ``(1,)`` are four different names.

    Raises:
        TypeError: a name is neither str nor int.
    """
    parts = [str(_checked(seed))]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | np.integer):
            raise TypeError(f"name = {name!r} ({type(name).__name__}): expected str or int.")
        text = name if isinstance(name, str) else str(int(name))
        parts.append(f"{'s' if isinstance(name, str) else 'i'}{len(text)}:{text}")
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A fresh CPU ``torch.Generator``, seeded with :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A fresh NumPy generator (PCG64), seeded with :func:`derive`."""
    return np.random.default_rng(derive(seed, *names))


def worker_init(worker_id: int) -> None:
    """Seed Python's ``random`` and NumPy in a ``DataLoader`` worker; pass it as ``worker_init_fn``.

    PyTorch seeds itself there with base seed + ``worker_id``, where the base seed comes from the loader's
    ``generator``. The other two follow it, so that no two workers repeat each other.
    """
    seed = torch.initial_seed() % 2**63
    random.seed(derive(seed, "python", worker_id))
    np.random.seed(derive(seed, "numpy", worker_id) % 2**32)

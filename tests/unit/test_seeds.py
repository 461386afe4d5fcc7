"""Seeds: named, independent of each other and of the process, and repeatable down to a training step."""

import hashlib
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from xai_utils import seeds


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_everything_is_seeded():
    seeds.seed_everything(7)
    first = draws()
    assert draws() != first
    seeds.seed_everything(7)
    assert draws() == first
    seeds.seed_everything(8)
    assert all(a != b for a, b in zip(draws(), first))


def test_large_seeds_reach_numpy_and_torch():
    seeds.seed_everything(seeds.LARGEST)
    first = draws()
    seeds.seed_everything(seeds.LARGEST)
    assert draws() == first


def test_kernels_are_repeatable_and_threads_stay(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    threads = torch.get_num_threads()
    seeds.seed_everything(0)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.get_num_threads() == threads
    # the slow mode, which fills every fresh tensor, stays off
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_users_cublas_setting_is_kept(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    seeds.seed_everything(0)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_two_trainings_with_one_seed_are_equal_bit_by_bit():
    def train():
        seeds.seed_everything(3)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 4, 2, 1), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Flatten()
        )
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for epoch in range(3):
            order = torch.randperm(16, generator=seeds.generator(3, "order", epoch))
            optimizer.zero_grad()
            model(torch.rand(16, 1, 8, 8)[order]).square().mean().backward()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(train(), train())


@pytest.mark.parametrize(("seed", "error"), [(True, TypeError), (0.5, TypeError), ("1", TypeError), (-1, ValueError)])
def test_bad_seeds_are_refused(seed, error):
    with pytest.raises(error, match="whole number from 0"):
        seeds.seed_everything(seed)
    with pytest.raises(error, match="whole number from 0"):
        seeds.derive(seed, "a")
    with pytest.raises(ValueError, match="expected a whole number"):
        seeds.derive(2**63)


def test_derive_is_the_documented_formula():
    text = "12|s5:order|i1:3"
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert seeds.derive(12, "order", 3) == int(digest[:16], 16) // 2
    assert seeds.derive(12, "order", np.int64(3)) == seeds.derive(12, "order", 3)


def test_names_keep_types_and_borders():
    names = [(), ("ab", "c"), ("a", "bc"), ("abc",), ("1",), (1,), (1, 1), (11,), ("s1:a",), ("",), ("", "")]
    values = {seeds.derive(s, *n) for n in names for s in (0, 1)}
    assert len(values) == 2 * len(names)
    assert all(0 <= v < 2**63 for v in values)
    assert max(values) > 2**61  # all 63 bits are used
    with pytest.raises(TypeError, match="expected str or int"):
        seeds.derive(0, 1.5)


def test_derive_is_equal_in_another_process():
    code = "from xai_utils import seeds; print(seeds.derive(5, 'masks', 2))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": "77"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    ]
    assert [int(o) for o in outputs] == [seeds.derive(5, "masks", 2)]


def test_generators_do_not_touch_the_global_state():
    seeds.seed_everything(1)
    first = draws()
    seeds.seed_everything(1)
    a = torch.rand(5, generator=seeds.generator(1, "a"))
    b = torch.rand(5, generator=seeds.generator(1, "b"))
    x, y = seeds.numpy_rng(1, "a").random(5), seeds.numpy_rng(1, "a").random(5)
    assert draws() == first
    assert torch.equal(a, torch.rand(5, generator=seeds.generator(1, "a")))
    assert not torch.equal(a, b)
    assert np.array_equal(x, y)
    assert not np.array_equal(x, seeds.numpy_rng(2, "a").random(5))


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(1).item()], dtype=torch.float64)


def test_loader_workers_are_seeded_apart_and_repeat():
    def load(seed):
        loader = torch.utils.data.DataLoader(
            Noise(),
            batch_size=2,
            num_workers=2,
            worker_init_fn=seeds.worker_init,
            generator=seeds.generator(seed, "loader"),
            multiprocessing_context="fork",
        )
        return torch.cat(list(loader))

    first = load(0)
    assert torch.equal(first, load(0))
    assert not torch.equal(first, load(1))
    assert all(len(set(column.tolist())) == 4 for column in first.T)  # two workers never draw the same numbers

"""training.fit against loops written out by hand, and against kills, damaged files and full disks."""

import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import training_victim as victim
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from xai_utils import fingerprint, training
from xai_utils import progress as progress_module
from xai_utils.seeds import derive, generator

SGD = partial(torch.optim.SGD, lr=0.1)


def squares(model, batch, generator):
    x, y = batch
    return {"loss": (model(x) - y).square().mean(), "bias": model.bias.abs().mean()}


def line(n, seed=0):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TensorDataset(x, x.sum(dim=1, keepdim=True) + 1)


def linear():
    torch.manual_seed(1)
    return nn.Linear(3, 1).double()


def same(a, b):
    """Equal to the last bit: weights, statistics, history (time apart) and what the global states give next."""
    (model_a, history_a), (model_b, history_b) = a, b
    for name, value in model_a.state_dict().items():
        assert torch.equal(value, model_b.state_dict()[name]), name
    pd.testing.assert_frame_equal(
        history_a.drop(columns="seconds"), history_b.drop(columns="seconds"), check_exact=True
    )
    for name in ("best_epoch", "stopped_epoch"):
        assert history_a.attrs[name] == history_b.attrs[name]


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


class Scripted(nn.Module):
    """Validation losses as listed, one an epoch; every training batch adds 1 to a weight and a statistic."""

    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("statistic", torch.zeros(1))
        self.losses = losses

    def loss(self, model, batch, generator):
        if self.training:
            self.statistic += 1
            return -self.weight.sum()  # SGD with rate 1 adds 1 a batch
        return self.weight.sum() * 0 + self.losses[int(self.statistic) - 1]

    def fit(self, **arguments):
        one = TensorDataset(torch.zeros(1, 1))
        arguments = {"epochs": len(self.losses), "validation": one, "seed": 0} | arguments
        return training.fit(self, self.loss, one, optimizer=partial(torch.optim.SGD, lr=1.0), **arguments)


# the loop itself ---------------------------------------------------------------------------------------------


def test_equals_a_loop_written_by_hand():
    data, validation, model = line(10), line(5, seed=3), linear()
    weight, bias = model.weight.detach().numpy().copy()[0], model.bias.detach().numpy().copy()
    history = training.fit(model, squares, data, validation=validation, epochs=3, optimizer=SGD, seed=7, batch_size=4)
    x, y = (t.numpy() for t in data.tensors)
    for epoch in range(1, 4):
        losses, biases = [], []
        order = torch.randperm(10, generator=generator(7, epoch, "order")).tolist()
        for batch in (order[:4], order[4:8], order[8:]):
            error = [sum(weight[k] * x[i, k] for k in range(3)) + bias[0] - y[i, 0] for i in batch]
            losses += [e**2 for e in error]
            biases += [abs(bias[0])] * len(batch)
            slope = [sum(2 * e * x[i, k] for e, i in zip(error, batch)) / len(batch) for k in range(3)]
            bias = bias - 0.1 * sum(2 * e for e in error) / len(batch)
            weight = np.array([weight[k] - 0.1 * slope[k] for k in range(3)])
        held_out = [(sum(weight[k] * v[k].item() for k in range(3)) + bias[0] - t.item()) ** 2 for v, t in validation]
        row = history.iloc[epoch - 1]
        assert row["epoch"] == epoch
        assert row["train_loss"] == pytest.approx(sum(losses) / 10, rel=1e-12)
        assert row["train_bias"] == pytest.approx(sum(biases) / 10, rel=1e-12)
        assert row["val_loss"] == pytest.approx(sum(held_out) / 5, rel=1e-12)
        assert row["learning_rate"] == 0.1
    np.testing.assert_allclose(model.weight.detach().numpy()[0], weight, rtol=1e-12)
    np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=1e-12)
    columns = ["epoch", "train_loss", "train_bias", "val_loss", "val_bias", "learning_rate", "seconds"]
    assert list(history.columns) == columns
    assert not model.training


def test_a_last_batch_of_one_image_joins_the_one_before_where_it_cannot_be_normalised():
    """One value per channel is nothing for a BatchNorm; the schedule counts the batches there are."""
    seen, planned = [], []

    def error(model, batch, generator):
        seen.append(len(batch[0]))
        return (model(batch[0]) - batch[1]).square().mean()

    def schedule(optimizer, total_steps):
        planned.append(total_steps)
        return torch.optim.lr_scheduler.ConstantLR(optimizer)

    def trained(norm, count, batch_size):
        seen.clear()
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 1), norm).double()
        options = {"epochs": 2, "optimizer": SGD, "seed": 7, "schedule": schedule, "batch_size": batch_size}
        training.fit(model, error, line(count), validation=line(5), **options)
        return model

    validation = {2: [2, 2, 1], 4: [4, 1]}
    for count, batch_size, expected in ((9, 4, [4, 5]), (10, 4, [4, 4, 2]), (5, 4, [5]), (4, 4, [4]), (3, 2, [3])):
        trained(nn.BatchNorm1d(1), count, batch_size)
        tried = [1] if count % batch_size == 1 else []
        assert seen == tried + (expected + validation[batch_size]) * 2
        assert planned[-1] == 2 * len(expected)
    model = trained(nn.BatchNorm1d(1), 9, 4)
    assert model[1].num_batches_tracked == 2 * 2  # the step that was tried left no trace
    trained(nn.Identity(), 9, 4)
    assert seen == [1] + [4, 4, 1, 4, 1] * 2  # it can be alone
    trained(nn.Identity(), 3, 1)
    assert seen[:3] == [1, 1, 1]  # asked for


@pytest.mark.parametrize(("count", "batch_size"), [(3, 1), (1, 4), (1, 1)])
def test_a_batch_of_one_image_that_cannot_join_is_refused(count, batch_size):
    model = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)).double()
    expected = rf"batch_size: got {batch_size} for {count} images; a batch of one.*Expected batches of 2 images"
    with pytest.raises(ValueError, match=expected):
        training.fit(model, squares, line(count), batch_size=batch_size, epochs=1, optimizer=SGD, seed=7)


def test_another_error_of_the_loss_is_passed_on_as_it_is():
    def failing(model, batch, generator):
        raise ValueError("its own")

    for count in (5, 4):  # where one image is tried, and where not
        with pytest.raises(ValueError, match=r"^its own$"):
            training.fit(linear(), failing, line(count), batch_size=4, epochs=1, optimizer=SGD, seed=7)


def test_one_image_is_tried_as_it_is_trained():
    """In train mode, with the augmentation, from any data set."""
    images = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))

    def cropped(batch, generator):
        return (batch[0][..., :3, :3],)

    def error(model, batch, generator):
        return model(batch[0]).square().mean() + 0 * torch.rand((), generator=generator)

    sizes = []
    for augment in (None, cropped):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval()
        model[1].register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
        data = [(image,) for image in images]  # no TensorDataset
        training.fit(model, error, data, batch_size=4, epochs=1, optimizer=SGD, seed=7, augment=augment)
    assert sizes == [1, 4, 1, 1, 5]  # 4×4 places can be normalised; one place cannot


def test_batch_larger_than_the_data_and_a_single_tensor_as_loss():
    def only_loss(model, batch, generator):
        return squares(model, batch, generator)["loss"]

    model = linear()
    history = training.fit(model, only_loss, line(5), epochs=1, optimizer=SGD, seed=0, batch_size=64)
    assert list(history.columns) == ["epoch", "train_loss", "learning_rate", "seconds"]
    assert history.attrs == {"best_epoch": None, "stopped_epoch": 1, "resumed_from": None}
    expected = squares(linear(), line(5).tensors, None)["loss"]
    assert history["train_loss"][0] == pytest.approx(expected.item(), rel=1e-12)


class Images(Dataset):
    """Not a TensorDataset: single items, as dicts, with noise from the global states as a transform has it."""

    def __init__(self, noise):
        self.noise, self.source = noise, line(10)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        x, y = self.source[i]
        return {"x": x + self.noise * (random.random() + np.random.rand() + torch.rand(1)), "y": [y, "name"]}


class Counter:
    """Interrupts a training after some batches, of whose code it is no part."""

    def __init__(self):
        self.calls, self.stop = 0, None

    def __call__(self):
        self.calls += self.stop is not None
        if self.stop is not None and self.calls > self.stop:
            raise KeyboardInterrupt


COUNTER = Counter()


def squares_of_dict(model, batch, generator):
    COUNTER()
    y, names = batch["y"]
    assert names == ("name",) * len(y)
    return squares(model, (batch["x"], y), generator)


@pytest.mark.parametrize("workers", [0, 2])
def test_other_datasets_give_what_a_tensor_dataset_gives(workers):
    a, b = linear(), linear()
    options = {"epochs": 2, "optimizer": SGD, "seed": 3, "batch_size": 4}
    history = training.fit(a, squares, line(10), **options)
    other = training.fit(b, squares_of_dict, Images(noise=0.0), num_workers=workers, **options)
    same((a, history), (b, other))


def test_noise_of_loaders_is_the_same_in_a_resumed_run(tmp_path):
    def run(**more):
        model = linear()
        options = {"epochs": 2, "optimizer": SGD, "seed": 3, "batch_size": 4, "num_workers": 2}
        return model, training.fit(model, squares_of_dict, Images(noise=1.0), **options | more)

    whole = run()
    same(whole, run())
    model = linear()
    with pytest.raises(KeyboardInterrupt):
        interrupted(model, tmp_path / "c.pt", after=1)
    COUNTER.stop = None
    resumed = run(checkpoint=tmp_path / "c.pt")
    assert resumed[1].attrs["resumed_from"] == 1
    same(whole, resumed)
    assert whole[1]["train_loss"][0] != whole[1]["train_loss"][1]


def interrupted(model, path, after):
    COUNTER.stop = 3 * after  # 10 images in batches of 4
    options = {"epochs": 2, "optimizer": SGD, "seed": 3, "batch_size": 4, "num_workers": 2}
    training.fit(model, squares_of_dict, Images(noise=1.0), checkpoint=path, **options)


def test_order_and_noise_derive_from_seed_and_epoch():
    seen = {}

    def watch(model, batch, noise):
        assert torch.is_grad_enabled() == model.training
        seen.setdefault((model.training, len(seen)), (batch[0].clone(), torch.rand(1, generator=noise)))
        return squares(model, batch, noise)

    options = {"epochs": 2, "optimizer": SGD, "batch_size": 99, "validation": line(4)}
    training.fit(linear(), watch, line(10), seed=1, **options)
    (first, a), (held, b), (second, c), (held_again, d) = seen.values()
    assert torch.equal(held, held_again)
    assert torch.equal(held, line(4).tensors[0])  # in the data's own order
    assert torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)
    assert not torch.equal(first, second)
    assert len({v.item() for v in (a, b, c, d)}) == 4
    assert a == torch.rand(1, generator=generator(1, 1, "train", "noise"))
    again, seen = dict(seen), {}
    training.fit(linear(), watch, line(10), seed=1, **options)
    assert all(torch.equal(x[0], y[0]) and x[1] == y[1] for x, y in zip(again.values(), seen.values()))
    seen = {}
    training.fit(linear(), watch, line(10), seed=2, **options)
    assert not torch.equal(next(iter(seen.values()))[0], first)


def test_augment_sees_training_batches_only():
    def shift(batch, noise):
        return batch[0] + 100, batch[1]

    def mean_of_x(model, batch, noise):
        return {"loss": model(batch[0]).sum() * 0, "x": batch[0].mean()}

    options = {"epochs": 2, "optimizer": SGD, "seed": 0, "validation": line(10)}
    history = training.fit(linear(), mean_of_x, line(10), augment=shift, **options)
    mean = line(10).tensors[0].mean().item()
    np.testing.assert_allclose(history["train_x"], mean + 100)
    np.testing.assert_allclose(history["val_x"], mean)


def test_schedule_is_stepped_after_every_batch():
    def cycle(optimizer, steps):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)

    history = training.fit(linear(), squares, line(10), epochs=4, optimizer=SGD, schedule=cycle, seed=0, batch_size=4)
    optimizer = SGD(linear().parameters())
    schedule = cycle(optimizer, 12)
    rates = []
    for _ in range(12):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert history["learning_rate"].tolist() == rates[2::3]
    assert rates[-1] < 1e-4 < max(rates)


def test_only_parameters_that_require_gradients_reach_the_optimizer():
    model = linear()
    model.bias.requires_grad_(False)
    before = model.bias.clone()
    training.fit(
        model,
        squares,
        line(10),
        epochs=2,
        seed=0,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1),
    )
    assert torch.equal(model.bias, before)
    assert not torch.equal(model.weight, linear().weight)


def test_validation_leaves_model_and_statistics_alone():
    plain, watched = victim.make_model(), victim.make_model()
    options = {"epochs": 2, "optimizer": SGD, "seed": 0, "batch_size": 16}
    training.fit(plain, victim.loss, victim.make_data(50, 1), **options)
    training.fit(watched, victim.loss, victim.make_data(50, 1), validation=victim.make_data(20, 2), **options)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_global_states_after_a_fit_depend_on_the_seed_alone():
    training.fit(linear(), squares, line(10), epochs=1, optimizer=SGD, seed=4)
    one = draws()
    torch.rand(17)
    training.fit(linear(), squares, line(20), epochs=3, optimizer=SGD, seed=4)
    assert draws() == one
    torch.manual_seed(derive(4, "after fit"))
    assert torch.rand(1).item() == one[2]


# early stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "patience", "stopped", "best"),
    [
        ([5, 4, 3, 4, 5, 1], 2, 5, 3),
        ([5, 4, 3, 4, 5, 1], 3, 6, 6),
        ([5, 4, 3, 2], 1, 4, 4),
        ([3, 3, 3, 3], 2, 3, 1),  # equal is no improvement
        ([1, 2, 0, 3, 4], 2, 5, 3),  # an improvement counts anew
        ([1, 2, 3], 1, 2, 1),
    ],
)
def test_stops_after_patience_epochs_and_ends_with_the_best(losses, patience, stopped, best):
    model = Scripted(losses)
    history = model.fit(patience=patience)
    assert history.attrs == {"best_epoch": best, "stopped_epoch": stopped, "resumed_from": None}
    assert history["val_loss"].tolist() == losses[:stopped]
    assert (model.weight.item(), model.statistic.item()) == (best, best)


def test_keep_last_and_best_without_patience():
    for keep, patience, epoch in [
        (None, None, 4),
        ("best", None, 2),
        ("last", None, 4),
        ("last", 2, 4),
        ("last", 1, 3),
    ]:
        model = Scripted([5, 4, 6, 7])
        history = model.fit(keep=keep, patience=patience)
        assert (model.weight.item(), model.statistic.item()) == (epoch, epoch), (keep, patience)
        assert history.attrs["best_epoch"] == 2


# checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    """The three trainings that are to be killed, started together."""
    environment = os.environ | {"PYTHONPATH": str(Path(training.__file__).parents[1])}
    processes = {}
    for point in ("within", "between", "writing"):
        path = tmp_path_factory.mktemp(point) / "c.pt"
        command = [sys.executable, victim.__file__, str(path), point]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        processes[point] = process, path
    yield processes
    for process, _ in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("point", ["within", "between", "writing"])
def test_killed_and_run_again_ends_like_one_that_was_not(point, victims):
    process, path = victims[point]
    assert process.stdout.readline() == "here\n"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (path.parent / ".c.pt.tmp").exists() == (point == "writing")
    with warnings.catch_warnings(action="error"):
        resumed = victim.train(path)
    after_resumed = draws()
    assert resumed[1].attrs["resumed_from"] == {"within": 2, "between": 3, "writing": 2}[point]
    same(resumed, victim.train())
    assert draws() == after_resumed
    assert sorted(p.name for p in path.parent.iterdir() if p.name != ".c.pt.lock") == ["c.pt", "c.pt.resumed"]
    assert (path.parent / "c.pt.resumed").read_text() == f"epoch {resumed[1].attrs['resumed_from']}\n"


def test_a_finished_training_is_not_repeated(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "c.pt"
    whole = victim.train(path)

    def never(model):
        raise AssertionError("trained again")

    monkeypatch.setattr(victim.WATCH, "seen", never)
    again = victim.train(path)
    assert again[1].attrs["resumed_from"] == victim.EPOCHS
    same(whole, again)


def test_an_early_stop_is_resumed_as_such(tmp_path):
    model = Scripted([3, 1, 2, 4, 0])
    model.fit(patience=2, checkpoint=tmp_path / "c.pt")
    again = Scripted([3, 1, 2, 4, 0])
    history = again.fit(patience=2, checkpoint=tmp_path / "c.pt")
    assert history.attrs == {"best_epoch": 2, "stopped_epoch": 4, "resumed_from": 4}
    assert again.weight.item() == model.weight.item() == 2


def checkpoint_of_two_epochs(path, **changes):
    calls = []

    def stop(model):
        calls.append(model.training)
        if sum(calls) > 8:  # 4 batches an epoch
            raise KeyboardInterrupt

    victim.WATCH.seen = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            victim.train(path, **changes)
    finally:
        victim.WATCH.seen = None


def test_state_of_a_gradient_scaler_is_restored(tmp_path):
    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)

    plain = victim.train()
    watched = scaler()
    scaled = victim.train(scaler=watched)
    same(plain, scaled)  # scales are powers of two: exact
    checkpoint_of_two_epochs(tmp_path / "c.pt", scaler=scaler())
    restored = scaler()
    resumed = victim.train(tmp_path / "c.pt", scaler=restored)
    assert resumed[1].attrs["resumed_from"] == 2
    same(plain, resumed)
    assert restored.get_scale() == watched.get_scale() == 4.0 * 2**6  # 20 batches


def damage(path, kind):
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "empty": b"",
        "truncated": content[:middle],
        "last byte missing": content[:-1],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "text": b"not a checkpoint",
        "pickle": pickle.dumps({"settings": {}}),
    }
    path.write_bytes(damaged[kind])


@pytest.mark.parametrize("kind", ["empty", "truncated", "last byte missing", "flipped", "text", "pickle", "weights"])
def test_a_damaged_checkpoint_is_moved_aside(kind, tmp_path):
    path = tmp_path / "c.pt"
    checkpoint_of_two_epochs(path)
    if kind == "weights":
        torch.save(linear().state_dict(), path)
    else:
        damage(path, kind)
    content = path.read_bytes()
    with pytest.warns(UserWarning, match=r"c\.pt .*moved to c\.pt\.unusable-1, training starts afresh") as caught:
        result = victim.train(path)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert (tmp_path / "c.pt.unusable-1").read_bytes() == content
    assert result[1].attrs["resumed_from"] is None
    same(result, victim.train())


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"settings": Evil()}, tmp_path / "c.pt")
    with pytest.warns(UserWarning, match="is damaged"):
        victim.train(tmp_path / "c.pt", epochs=1)
    assert not (tmp_path / "evil").exists()


def test_what_cannot_be_used_is_numbered_and_never_overwritten(tmp_path):
    path, contents = tmp_path / "c.pt", []
    for kind in ("text", "empty", "pickle"):
        checkpoint_of_two_epochs(path)
        damage(path, kind)
        contents.append(path.read_bytes())
        with pytest.warns(UserWarning, match=f"unusable-{len(contents)}, training starts afresh"):
            victim.train(path)
        path.unlink()
    assert [(tmp_path / f"c.pt.unusable-{n}").read_bytes() for n in (1, 2, 3)] == contents


def test_a_checkpoint_tells_how_often_training_went_on(tmp_path):
    path = tmp_path / "c.pt"
    checkpoint_of_two_epochs(path)
    assert not (tmp_path / "c.pt.resumed").exists()
    victim.train(path)
    victim.train(path)
    assert (tmp_path / "c.pt.resumed").read_text() == "epoch 2\nepoch 5\n"
    with pytest.warns(UserWarning, match="is of another run"):
        victim.train(path, seed=12)
    assert not (tmp_path / "c.pt.resumed").exists()  # nothing of it is in these weights


# what a checkpoint was made with -----------------------------------------------------------------------------


def changed_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)


def changed_package(monkeypatch):
    monkeypatch.setattr(fingerprint, "_versions", lambda: "torch 9.9")


def changed_loss(monkeypatch):
    def loss(model, batch, generator):
        (x,) = batch
        return {"loss": (model(x) - x).square().mean()}

    loss.__qualname__ = victim.loss.__qualname__
    monkeypatch.setattr(victim, "loss", loss)


def changed_constant(monkeypatch):
    monkeypatch.setattr(victim.loss, "__defaults__", (0.5,))


def changed_below(monkeypatch):
    monkeypatch.setattr(training, "derive", lambda *words: derive(*words, "other"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (changed_threads, "threads: 1 there, 7 here"),
        (changed_package, 'there, "torch 9.9" here'),
        (changed_loss, "code: "),
        (changed_constant, "code: "),
        (changed_below, "code: "),
    ],
)
def test_a_checkpoint_of_other_code_versions_or_threads_starts_anew_and_says_so(tmp_path, monkeypatch, change, named):
    path = tmp_path / "c.pt"
    checkpoint_of_two_epochs(path)
    content = path.read_bytes()
    change(monkeypatch)
    with pytest.warns(UserWarning, match=r"is of another run .*moved to c\.pt\.unusable-1, .*afresh") as caught:
        result = victim.train(path, victim.loss)
    assert named in str(caught[0].message)
    assert (tmp_path / "c.pt.unusable-1").read_bytes() == content
    same(result, victim.train(loss=victim.loss))


def test_three_trainings_on_one_checkpoint_the_second_is_refused(tmp_path, monkeypatch):
    path, told = tmp_path / "c.pt", []

    def another(model):
        if not told:
            for _ in range(2):
                with (
                    torch.random.fork_rng(),
                    pytest.raises(RuntimeError, match=r"another training is at work on .*c\.pt: wait for its end"),
                ):
                    victim.train(path)
                told.append(1)

    monkeypatch.setattr(victim.WATCH, "seen", another)
    first = victim.train(path)
    assert len(told) == 2
    same(first, victim.train())
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def onecycle(optimizer, steps, pct_start):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-2, steps, pct_start=pct_start)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 6}, "epochs: 5 there, 6 here"),
        ({"batch_size": 17}, "batch_size: 16 there, 17 here"),
        ({"seed": 12}, "seed: 11 there, 12 here"),
        ({"patience": 3}, "patience: 4 there, 3 here"),
        ({"keep": "last"}, "keep"),
        ({"validation": victim.make_data(21, 2)}, "validation: 20 there, 21 here"),
        ({"optimizer": partial(torch.optim.Adam, lr=1e-2, weight_decay=0.1)}, "weight_decay"),
        ({"optimizer": partial(torch.optim.NAdam, lr=1e-2)}, "NAdam"),
        ({"schedule": None}, "schedule"),
        ({"schedule": partial(onecycle, pct_start=0.5)}, "schedule"),
        ({"augment": None}, "augment"),
        ({"num_workers": 1}, "workers"),
        ({"loss": partial(victim.loss)}, "loss"),
        ({"fingerprint": {"sha256": "b"}}, 'fingerprint: {"sha256": "a"} there, {"sha256": "b"} here'),
    ],
)
def test_a_checkpoint_of_other_arguments_is_moved_aside(changes, named, tmp_path):
    path = tmp_path / "c.pt"
    known = {"fingerprint": {"sha256": "a"}}
    checkpoint_of_two_epochs(path, **known)
    with pytest.warns(UserWarning, match=r"is of another run .*training starts afresh") as caught:
        result = victim.train(path, **known | changes)
    assert named in str(caught[0].message)
    assert (tmp_path / "c.pt.unusable-1").exists()
    same(result, victim.train(**known | changes))


def test_a_checkpoint_of_another_model_is_moved_aside(tmp_path):
    path = tmp_path / "c.pt"
    options = {"optimizer": SGD, "epochs": 1, "seed": 0, "checkpoint": path}
    training.fit(linear(), squares, line(10), **options)
    data = TensorDataset(torch.zeros(10, 4), torch.zeros(10, 1))
    with pytest.warns(UserWarning, match=r"shape of weight: \[1, 3\] there, \[1, 4\] here"):
        training.fit(nn.Linear(4, 1), squares, data, **options)


def test_disk_full_in_the_second_epoch_leaves_the_first_checkpoint(tmp_path, monkeypatch):
    path, fsync, calls = tmp_path / "c.pt", os.fsync, []

    def full(descriptor):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*c\.pt: No space left on device\. .*intact") as caught:
        victim.train(path)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
    resumed = victim.train(path)
    assert resumed[1].attrs["resumed_from"] == 1
    same(resumed, victim.train())


# bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["train", "val"])
def test_a_loss_that_is_not_finite_is_named(phase):
    data, bad = line(10), line(10)
    bad.tensors[0][:] = torch.nan
    images = {"train": (bad, data), "val": (data, bad)}[phase]

    def parts(model, batch, noise):
        values = squares(model, batch, noise)
        return {"loss": values["loss"].nan_to_num(), "error": values["loss"]}

    model = linear()
    with pytest.raises(FloatingPointError, match=f"'error' is nan in epoch 1, {phase} batch 1"):
        training.fit(model, parts, images[0], validation=images[1], epochs=3, optimizer=SGD, seed=0, batch_size=4)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_infinity_late_in_the_second_epoch_is_named():
    calls = []

    def late(model, batch, noise):
        calls.append(1)
        return squares(model, batch, noise)["loss"] * (torch.inf if len(calls) == 5 else 1)

    with pytest.raises(FloatingPointError, match="'loss' is inf in epoch 2, train batch 2"):
        training.fit(linear(), late, line(10), epochs=3, optimizer=SGD, seed=0, batch_size=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected 1 or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"patience": 0, "validation": line(2)}, "patience is 0"),
        ({"patience": 3}, "give validation="),
        ({"keep": "best"}, "give validation="),
        ({"keep": "first"}, "keep is 'first'"),
        ({"data": line(0)}, "data is empty"),
        ({"validation": line(0)}, "validation is empty"),
        ({"device": "cuda"}, "the model is on cpu, device is cuda"),
        ({"loss": lambda *_: {"kl": torch.zeros(1)}}, r"epoch 1, train batch 1 has \['kl'\]; expected \['loss'\]"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    arguments = {"data": line(4), "loss": squares, "epochs": 1, "optimizer": SGD, "seed": 0} | arguments
    with pytest.raises(ValueError, match=message):
        training.fit(linear(), **arguments)


# the progress bar --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "terminal", "after", "environment", "drawn"),
    [
        (None, False, 0.0, None, False),
        (None, True, 0.0, None, True),
        (None, True, 3600.0, None, False),
        (True, False, 3600.0, None, True),
        (False, True, 0.0, None, False),
        (True, True, 0.0, "0", False),
        (None, True, 0.0, "0", False),
    ],
)
def test_progress_bar(progress, terminal, after, environment, drawn, monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "AFTER", after)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": lambda: None}))
    monkeypatch.delenv("XAI_PROGRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("XAI_PROGRESS", environment)
    training.fit(linear(), squares, line(10), epochs=2, optimizer=SGD, seed=0, batch_size=4, progress=progress)
    written = capsys.readouterr().err
    assert ("6/6" in written) == drawn, written
    assert drawn or written == ""


# minutes --------------------------------------------------------------------------------------------------------


class Clocked:
    """A clock that a loss of one second a batch moves on."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(training.time, "perf_counter", lambda: self.now)

    def loss(self, model, batch, generator):
        self.now += 1.0
        return squares(model, batch, generator)


def timed(clock, model, minutes, **more):
    options = {"epochs": 9, "batch_size": 4, "optimizer": SGD, "seed": 0} | more
    return training.fit(model, clock.loss, line(8), minutes=minutes, **options)


@pytest.mark.parametrize(("minutes", "epochs"), [(1.0, 9), (0.1, 3), (0.001, 1)])
def test_minutes_are_the_epochs_that_they_hold(monkeypatch, capsys, minutes, epochs):
    history = timed(Clocked(monkeypatch), linear(), minutes)  # an epoch: 2 batches, 2 seconds
    assert len(history) == epochs
    assert f"training on 8 images: {epochs} epochs" in capsys.readouterr().err
    validated = timed(Clocked(monkeypatch), linear(), 0.1, validation=line(8))  # forward takes half of the time
    assert len(validated) == 2


def test_a_training_in_minutes_is_the_one_of_as_many_epochs(monkeypatch):
    model, plain = linear(), linear()
    within = timed(Clocked(monkeypatch), model, 0.1)
    same((model, within), (plain, training.fit(plain, squares, line(8), epochs=3, batch_size=4, optimizer=SGD, seed=0)))


def test_a_training_in_minutes_is_resumed_with_as_many_epochs_whatever_the_clock(monkeypatch, tmp_path):
    model = linear()
    first = timed(Clocked(monkeypatch), model, 0.1, checkpoint=tmp_path / "c.pt")
    assert (tmp_path / "c.pt.epochs").read_text() == "3"
    again, clock = linear(), Clocked(monkeypatch)
    history = timed(clock, again, 1.0, checkpoint=tmp_path / "c.pt")
    assert history.attrs["resumed_from"] == len(first) == 3
    assert clock.now == 0
    same((model, first), (again, history))


def test_words_and_bars_go_to_the_file_that_is_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(progress_module.SHOWN, str(tmp_path / "shown"))
    monkeypatch.setattr(progress_module, "AFTER", 0.0)
    progress_module.say("training on 8 images: 3 epochs")
    with progress_module.bar(2, "batch") as bar:
        bar.update()
        bar.update()
    lines = (tmp_path / "shown").read_text().splitlines()
    assert lines[0] == "training on 8 images: 3 epochs"
    assert lines[-1].startswith("100%|")
    assert "2/2" in lines[-1]
    assert capsys.readouterr() == ("", "")

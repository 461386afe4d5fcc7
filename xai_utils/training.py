"""Training: early stopping, best weights, and checkpoints from which a killed run ends as if it had not been."""

import contextlib
import copy
import functools
import io
import json
import math
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from xai_utils import fingerprint as fingerprints
from xai_utils.data.imageset import ImageBatches
from xai_utils.models.strided import trainable
from xai_utils.progress import bar as progress_bar
from xai_utils.progress import say
from xai_utils.seeds import derive, generator, seed_everything, worker_init

History = pd.DataFrame
Loss = Callable[[nn.Module, Any, torch.Generator], Mapping[str, Tensor] | Tensor]
Augment = Callable[[Any, torch.Generator], Any]
_ALONE = "more than 1 value per channel"  # what BatchNorm says of a batch of one image


def fit(
    model: nn.Module,
    loss: Loss,
    data: Dataset,
    *,
    epochs: int,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    seed: int,
    validation: Dataset | None = None,
    schedule: Callable[[torch.optim.Optimizer, int], Any] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    patience: int | None = None,
    minutes: float | None = None,
    keep: str | None = None,
    batch_size: int = 128,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    augment: Augment | None = None,
    num_workers: int = 0,
    progress: bool | None = None,
    fingerprint: str | Mapping[str, Any] | None = None,
) -> History:
    """Train `model` in place; it ends in eval mode, with the weights that `keep` says.

    Everything random derives from (seed, epoch): order, augmentation, the loss's noise, and the global random
    states, which are seeded at every epoch's start and after the fit. So a run that is killed at any point and
    started again with the same arguments ends bit for bit like one that was not.

    Args:
        model: already on `device`; its memory format is left as it is.
        loss: `loss(model, batch, generator)` -> batch means: a dict whose entry "loss" is minimised, or that one
            tensor. `generator` lives on the CPU, so that the noise is the same on every device.
        data: a map-style dataset. A TensorDataset, and what `ImageSet.batches` gives, is indexed a whole batch at a
            time and needs no workers.
        epochs: the most epochs to train.
        optimizer: made from the parameters that require gradients, as by `partial(torch.optim.Adam, lr=1e-4)`.
        seed: of everything random here.
        validation: measured after every epoch, in eval mode and without gradients.
        schedule: `schedule(optimizer, total_steps)` -> a learning-rate schedule, stepped after every batch.
        scaler: for float16 (autocast belongs into `loss`).
        patience: stop after so many epochs in a row without a lower validation loss; None: never early.
        minutes: train for as many of `epochs` as take so long, at least one, by the time of some steps on a copy of the
            model; `<checkpoint>.epochs` keeps how many, so that a resumed training has as many. None: all.
        keep: end with the weights of the lowest validation loss, "best" (the default with a patience), or of the
            last epoch, "last" (the default without one; right for a schedule of fixed length).
        batch_size: an epoch's last batch holds the remainder. Where that is one image, which a BatchNorm with one value
            per channel cannot normalise, it joins the batch before; one step shows at the start whether it can.
        checkpoint: a file, replaced whole after every epoch. One that is damaged, of other arguments, other code, other
            versions or another number of threads is moved to `<name>.unusable-1` (2, 3, …) with a warning, and
            training starts afresh. `<name>.resumed` has a line for each time that training went on from it. The caller
            deletes them when done. One training at a time.
        device: where batches are moved to.
        augment: `augment(batch, generator)` -> batch, for training batches only, after the move to `device`.
        num_workers: loader processes, for other datasets than these.
        progress: None shows a bar after 10 s in terminals and notebooks; XAI_PROGRESS=0 in the environment never.
        fingerprint: what else a checkpoint must agree with: the run's parameters, the data's sha256 …

    Returns:
        One row per epoch: epoch, train_<name> and val_<name> (means over images), learning_rate (of the last batch),
        seconds; in attrs best_epoch (None without validation), stopped_epoch, resumed_from (None: not resumed).

    Raises:
        ValueError: arguments that do not fit together; a batch of one image where BatchNorm needs more.
        FloatingPointError: a loss that is not finite, naming epoch, batch and component.
        OSError: the checkpoint cannot be written; the one before it is intact.
        RuntimeError: another training is at work on the checkpoint.
    """
    device = torch.device(device)
    keep = keep or ("last" if patience is None else "best")
    if minutes is not None:
        epochs = _within(minutes, epochs, model, loss, data, validation, batch_size, device, augment, checkpoint)
    settings = {"epochs": epochs, "batch_size": batch_size, "patience": patience, "keep": keep, "seed": seed}
    _check(settings, model, data, validation, device)
    optim = optimizer([p for p in model.parameters() if p.requires_grad])
    split = torch.Tensor.split
    if len(data) % batch_size == 1:
        try:
            _try_one_image(model, loss, data, device, augment)
        except ValueError as error:
            if _ALONE not in str(error):
                raise
            if len(data) == 1:
                raise ValueError(_about_one_image(batch_size, 1, error)) from error
            split = _split_joined
    steps = len(split(torch.arange(len(data), device="cpu"), batch_size))
    parts = {"model": model, "optimizer": optim}
    if schedule is not None:
        parts["schedule"] = schedule(optim, epochs * steps)
    parts["scaler"] = scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    settings |= {"images": len(data), "validation": validation and len(validation), "workers": num_workers}
    settings |= {"loss": loss, "augment": augment, "device": device.type, "fingerprint": fingerprint}
    settings |= {f"shape of {name}": list(value.shape) for name, value in model.state_dict().items()}
    settings |= parts
    if checkpoint is not None:
        settings |= fingerprints.environment()
        settings["code"] = fingerprints.code_of(fit, model, loss, augment, optimizer, schedule, type(data))
    settings = {name: json.dumps(v, default=_describe, sort_keys=True) for name, v in settings.items()}

    with _alone(checkpoint):
        saved = _resume(Path(checkpoint), settings) if checkpoint else None
    rows, best = (saved["rows"], saved["best"]) if saved else ([], None)
    resumed_from, rate = len(rows) or None, 0.0
    for name, part in parts.items() if saved else ():
        part.load_state_dict(saved[name])

    def step(value: Tensor) -> None:
        nonlocal rate
        rate = float(optim.param_groups[0]["lr"])
        optim.zero_grad(set_to_none=True)
        scaler.scale(value).backward()
        scaler.step(optim)
        scaler.update()
        if schedule is not None:
            parts["schedule"].step()
        bar.update()

    def losses(phase: str, images: Dataset, order: tuple[Tensor, ...]) -> Iterator[Mapping[str, Tensor] | Tensor]:
        noise, change = seeds(phase, "noise"), seeds(phase, "augment")
        for batch in _batches(images, order, num_workers, seeds(phase, "workers")):
            batch = _to(batch, device)
            batch = augment(batch, change) if augment is not None and phase == "train" else batch
            try:
                value = loss(model, batch, noise)
            except ValueError as error:
                if _ALONE in str(error):
                    raise ValueError(_about_one_image(batch_size, len(images), error)) from error
                raise
            yield value

    with _alone(checkpoint), trainable(model), progress_bar((epochs - len(rows)) * steps, "batch", progress) as bar:
        while len(rows) < epochs and (patience is None or not rows or len(rows) - _best(rows) < patience):
            epoch, start = len(rows) + 1, time.perf_counter()
            seeds = functools.partial(generator, seed, epoch)
            seed_everything(derive(seed, "epoch", epoch))
            model.train()
            order = split(torch.randperm(len(data), generator=seeds("order"), device="cpu"), batch_size)
            row = {"epoch": epoch} | _means("train", epoch, losses("train", data, order), order, step)
            if validation is not None:
                model.eval()
                order = torch.arange(len(validation), device="cpu").split(batch_size)
                with torch.no_grad():
                    row |= _means("val", epoch, losses("val", validation, order), order)
            rows.append(row | {"learning_rate": rate, "seconds": time.perf_counter() - start})
            if keep == "best" and _best(rows) == epoch:
                best = {name: value.clone() for name, value in model.state_dict().items()}
            if checkpoint:
                state = {name: part.state_dict() for name, part in parts.items()}
                _write({"settings": settings, "rows": rows, "best": best} | state, Path(checkpoint))
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    seed_everything(derive(seed, "after fit"))
    history = History(rows)
    best_epoch = None if validation is None else _best(rows)
    history.attrs = {"best_epoch": best_epoch, "stopped_epoch": len(rows), "resumed_from": resumed_from}
    return history


def one_cycle(optimizer: torch.optim.Optimizer, total_steps: int, peak: float) -> torch.optim.lr_scheduler.OneCycleLR:
    """One-cycle learning rate (Smith 2018) for `fit(schedule=partial(one_cycle, peak=…))`: up to `peak`, then down."""
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total_steps)


def _check(
    settings: dict[str, Any], model: nn.Module, data: Dataset, validation: Dataset | None, device: torch.device
) -> None:
    for name in ("epochs", "batch_size", "patience"):
        if settings[name] is not None and settings[name] < 1:
            raise ValueError(f"{name} is {settings[name]}; expected 1 or more")
    for name, images in {"data": data, "validation": validation}.items():
        if images is not None and len(images) == 0:
            raise ValueError(f"{name} is empty; expected at least one image: check the split it was taken from")
    if settings["keep"] not in ("best", "last"):
        raise ValueError(f'keep is {settings["keep"]!r}; expected "best" or "last"')
    if validation is None and (settings["patience"] is not None or settings["keep"] == "best"):
        raise ValueError('patience and keep="best" go by the validation loss: give validation=, or drop them')
    if elsewhere := {p.device.type for p in model.parameters()} - {device.type}:
        raise ValueError(f"the model is on {elsewhere.pop()}, device is {device}: call model.to(device) first")


def _within(
    minutes: float,
    epochs: int,
    model: nn.Module,
    loss: Loss,
    data: Dataset,
    validation: Dataset | None,
    batch_size: int,
    device: torch.device,
    augment: Augment | None,
    checkpoint: str | Path | None,
) -> int:
    """How many of `epochs` take at most so many minutes, at least one; nothing that the training uses is changed."""
    note = Path(f"{checkpoint}.epochs") if checkpoint else None
    if note and note.is_file():
        return int(note.read_text(encoding="utf-8"))
    trial, first = copy.deepcopy(model).train(), torch.arange(min(batch_size, len(data)), device="cpu")
    times: list[float] = []
    for batch in _batches(data, (first,) * 4, 0, generator(0, "time")):
        start = time.perf_counter()
        batch = _to(batch, device)
        batch = augment(batch, generator(0, "augment")) if augment is not None else batch
        with trainable(trial):
            value = loss(trial, batch, generator(0, "noise"))
            (value if isinstance(value, Tensor) else value["loss"]).backward()
        times.append(time.perf_counter() - start)
    one = min(times) / len(first) * (len(data) + 0.5 * len(validation or ()))  # seconds of an epoch
    chosen = max(1, min(epochs, int(60 * minutes / one)))
    say(f"training on {len(data)} images: {chosen} epochs, about {max(one * chosen / 60, 0.1):.1f} minutes")
    if note:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(chosen), encoding="utf-8")
    return chosen


def _try_one_image(model: nn.Module, loss: Loss, data: Dataset, device: torch.device, augment: Augment | None) -> None:
    """Ask for the loss of one image in train mode; BatchNorm statistics stay as they are."""
    state = copy.deepcopy(model.state_dict())
    model.train()
    try:
        for batch in _batches(data, (torch.zeros(1, dtype=torch.int64, device="cpu"),), 0, generator(0, "one image")):
            batch = _to(batch, device)
            batch = augment(batch, generator(0, "augment")) if augment is not None else batch
            loss(model, batch, generator(0, "noise"))
    finally:
        model.load_state_dict(state)


def _about_one_image(batch_size: int, n_images: int, error: ValueError) -> str:
    return (
        f"batch_size: got {batch_size} for {n_images} images; a batch of one leaves a BatchNorm one value per channel "
        f"({error}). Expected batches of 2 images or more, or larger images"
    )


def _split_joined(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Batches of which the last, of one image, has joined the one before."""
    parts = order.split(batch_size)
    return *parts[:-2], torch.cat(parts[-2:])


def _batches(data: Dataset, order: tuple[Tensor, ...], num_workers: int, workers: torch.Generator) -> Iterable:
    if type(data) in (TensorDataset, ImageBatches):
        return (data[part] for part in order)
    sampler = [part.tolist() for part in order]  # new workers every epoch: with persistent ones a resume differs
    options = {"num_workers": num_workers, "worker_init_fn": worker_init, "generator": workers}
    return DataLoader(data, batch_sampler=sampler, **options)


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Mapping):
        return {name: _to(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_to(value, device) for value in batch)
    return batch.to(device) if isinstance(batch, Tensor) else batch


def _means(
    phase: str, epoch: int, losses: Iterator, order: tuple[Tensor, ...], step: Callable | None = None
) -> dict[str, float]:
    """Means of the loss's components over all images; `step`, if given, is called with every batch's loss."""
    totals: dict[str, float] = {}
    for number, (parts, images) in enumerate(zip(losses, order, strict=True), start=1):
        place = f"epoch {epoch}, {phase} batch {number}"
        parts = {"loss": parts} if isinstance(parts, Tensor) else parts
        if "loss" not in parts or (totals and totals.keys() != parts.keys()):
            raise ValueError(f"loss of {place} has {list(parts)}; expected {list(totals) or ['loss']}")
        for name, part in parts.items():
            value = part.item()
            if not math.isfinite(value):
                todo = "look for non-finite images, or lower the learning rate"
                raise FloatingPointError(f"loss component {name!r} is {value} in {place}: {todo}")
            totals[name] = totals.get(name, 0.0) + value * len(images)
        if step is not None:
            step(parts["loss"])
    return {f"{phase}_{name}": total / sum(map(len, order)) for name, total in totals.items()}


def _best(rows: list[dict]) -> int:
    return min(rows, key=lambda row: row["val_loss"])["epoch"]  # of equals the first


def _describe(value: Any) -> Any:
    """What a checkpoint remembers of a setting that JSON does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, torch.optim.Optimizer):
        return [type(value), [{k: v for k, v in group.items() if k != "params"} for group in value.param_groups]]
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler | torch.amp.GradScaler):
        return [type(value), value.state_dict()]
    return value.tolist() if isinstance(value, Tensor) else getattr(value, "__qualname__", type(value).__name__)


@contextlib.contextmanager
def _alone(checkpoint: str | Path | None = None) -> Iterator[None]:
    """One training at a time on a checkpoint; without one, nothing to hold."""
    if checkpoint is None:
        yield
        return
    path = Path(checkpoint)
    mark = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(mark, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise RuntimeError(
            f"another training is at work on {path}: wait for its end, or give this one another checkpoint"
        ) from None
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}. Make it a writable place") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()  # while it is held
        lock.release()


def _resume(path: Path, settings: dict[str, str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        saved = _read(path)
        there = saved.get("settings", {})
        names = [*(n for n in settings | there if n != "code"), "code"]  # last: another argument may be other code, too
        differ = [n for n in names if settings.get(n) != there.get(n)]
        if not differ:
            with open(path.with_name(f"{path.name}.resumed"), "a", encoding="utf-8") as log:
                log.write(f"epoch {len(saved['rows'])}\n")
            return saved
        values = "; ".join(f"{n}: {there.get(n)} there, {settings.get(n)} here" for n in differ[:2])
        reason = f"is of another run ({values}; {len(differ)} settings differ)"
    except ValueError:
        reason = "is damaged"
    number = 1
    while (aside := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    os.replace(path, aside)
    path.with_name(f"{path.name}.resumed").unlink(missing_ok=True)
    warnings.warn(f"checkpoint {path} {reason}: moved to {aside.name}, training starts afresh", stacklevel=3)
    return None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train first, or correct the path")
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:  # torch.load does not look at the archive's checksums
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        content.seek(0)
        return dict(torch.load(content, map_location="cpu", weights_only=True))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path} is damaged, or not a file of weights: {error}") from error


def _write(content: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()  # so a full disk fails in Python's write, not within torch's archive writer
    torch.save(content, buffer)
    temporary = path.with_name(f".{path.name}.tmp")  # one name: the next write clears what a kill left
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}. What stood there is intact; make room and run again"
        raise OSError(error.errno, message) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()

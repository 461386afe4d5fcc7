"""One notebook run: checked parameters, seeds, device and a locked folder at the start, one record at the end.

A run lives in ``<results>/<profile>/<paper>/<arm>/seed_<k>/``; its files appear there together, in `Run.record`.
"""

import atexit
import base64
import io
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pandas as pd

from xai_utils.data.store import repository_root, resolve, sha256_of, unpublished
from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import alt_text, answer, claims, parameters, provenance, weights
from xai_utils.suite.publish import OWNED, publish, settle
from xai_utils.suite.record import NAME, DataSource, Provenance, Record, published, results_root, run_folder, subject
from xai_utils.suite.rules import Learned, with_reason
from xai_utils.suite.strict import checked, seconds_of

if TYPE_CHECKING:  # torch takes two seconds, and what only reads records needs none of it
    import torch
    from matplotlib.figure import Figure
    from torch import nn

    from xai_utils.suite.findings import Language
    from xai_utils.suite.shown import ClosingTable, Line, Told

SIZE_LIMIT = 3_000_000  # bytes in a run folder: results are committed
STEPS, PASSES = 600, 20  # own images: batches of a training, and how often it sees each image, at least
BESIDE = ("networks", "overlays")  # folders in a run's folder, which are not counted
_ID = r"[A-Z]\d+(\.\w+)+"  # of a metric
_active: "Run | None" = None  # one run per process: a notebook run again from the top gives the old one up


def _device(name: str) -> "torch.device":
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name != "auto" and name not in present:
        raise ValueError(f"device = {name!r}: expected auto, cpu, cuda or mps.")
    if name != "auto" and not present[name]:
        raise RuntimeError(f"device = {name!r}: PyTorch finds no such device here. Set device to 'auto' or 'cpu'.")
    return torch.device(next(kind for kind in present if present[kind]) if name == "auto" else name)


def _lengths(folder: Path) -> dict[str, int]:
    """The epochs of each training that was given minutes: `training.fit` notes them."""
    notes = sorted((folder / "checkpoints").glob("*.pt.epochs"))
    return {note.name.removesuffix(".pt.epochs"): int(note.read_text(encoding="utf-8")) for note in notes}


def _resumptions(folder: Path) -> dict[str, int]:
    """How often each training went on from its checkpoint: `training.fit` writes a line each time."""
    logs = sorted((folder / "checkpoints").glob("*.pt.resumed"))
    return {log.name.removesuffix(".pt.resumed"): len(log.read_text(encoding="utf-8").splitlines()) for log in logs}


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RuntimeError(
            f"cannot write the results folder {folder}: {error.strerror or error}. Free some space, make it a writable "
            "folder or point XAI_RESULTS to another one, and try again. Nothing was left half-written; an older record "
            "there is as it was."
        ) from error


def _show(png: bytes, text: str, about: dict[str, Any]) -> None:
    """Show a picture in the cell that is running; nothing outside of IPython."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        from IPython.display import publish_display_data

        publish_display_data({"image/png": base64.b64encode(png).decode(), "text/plain": text}, about)


def _grey(fig: "Figure", why: str) -> None:
    """Take the pictures (of three channels, or drawn in shades of grey) out of a figure, and say why."""
    drawn = [image for axes in fig.axes for image in axes.images]
    for image in (pictures := [i for i in drawn if i.get_array().ndim == 3 or i.get_cmap().name == "gray"]):
        image.set_data(np.full((*image.get_array().shape[:2], 3), 0.85))
    if pictures:
        fig.text(0.005, 0.005, why, fontsize=6)


def _check_size(folder: Path, files: dict[str, bytes]) -> None:
    sizes = {name: len(content) for name, content in files.items()}
    for path in folder.iterdir():  # what stays there: the executed notebook, say
        left = path.match("notebook.running-*") or path.name == "notebook.failed.ipynb"  # by runs that did not end
        if path.is_file() and not left and not any(map(path.match, (*OWNED, ".lock", *files))):
            sizes[path.name] = path.stat().st_size
    if (total := sum(sizes.values())) > SIZE_LIMIT:
        largest = ", ".join(f"{k} {sizes[k] / 1e6:.2f} MB" for k in sorted(sizes, key=sizes.get)[:-4:-1])
        raise ValueError(
            f"{folder} would hold {total / 1e6:.2f} MB, more than {SIZE_LIMIT / 1e6:g} MB ({largest}, …). "
            "Keep fewer or smaller figures and arrays. Nothing was written."
        )


def _brief(values: list[claims.Value]) -> str:
    """The paper's own numbers for one claim, the first three of them."""
    shown = []
    for value in values[:3]:
        name = value.id.split(".", 2)[2] + " " if len(values) > 1 else ""
        spread = f" ± {value.std}" if value.std is not None else ""
        shown.append(f"{name}{value.value}{spread} {value.unit}".strip())
    return "; ".join(shown) + f"; … ({len(values)} in all)" * (len(values) > 3) or "—"


class Run:
    """A started run, made by `start`: it collects what is measured, and `record` writes it once.

    Read-only by convention: paper, profile, arm, seed, parameters (a mapping), settings (a mapping, what the arm
    sets besides parameters), overrides (names of the parameters that the caller passed with other values than profile
    and arm have), device (torch.device), folder.
    """

    def __init__(self, paper: str, names: Mapping[str, Any]) -> None:
        root = repository_root()
        known, found = parameters.schema(paper), parameters.resolve(paper, names)
        self.paper, self.parameters = paper, MappingProxyType(found.values)
        self.profile, self.seed = found.values["profile"], found.values["seed"]
        self.arm = found.values.get("arm", "main")
        self.settings, self.overrides = MappingProxyType(known.settings(self.arm)), found.overrides
        self.replaced = MappingProxyType(found.replaced)
        passed = os.environ.get(parameters.PASSED)
        self._passed = {*(found.overrides if passed is None else passed.split())}
        self.device = _device(found.values.get("device", "auto"))
        self.folder = run_folder(self.profile, paper, self.arm, self.seed, bool(found.overrides))
        self._reported = claims.load()
        if paper not in self._reported.papers:
            raise ValueError(f"results/reported.yaml has no paper {paper!r}: add its values and claims first.")
        self._started, self._clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        self._git = provenance.git_state(root)
        self._modules = provenance.module_hashes(root, paper, self.profile)  # as loaded, whatever changes later
        self._metrics: dict[str, Estimate] = {}
        self._sources: list[DataSource] = []
        self._published = {name: published(value) for name, value in found.values.items()}
        self._weights = {}
        if (path := found.values.get("weights")) and resolve(path).is_file():
            self._weights["weights"] = sha256_of(resolve(path))
        self._figures: dict[str, bytes] = {}
        self._arrays: dict[str, bytes] = {}
        self._images: tuple[int, str, bytes] = (0, "", b"")  # lines of images.csv, what makes one suspicious, the file
        self._beside: dict[str, dict[str, bytes]] = {}  # folder → files
        self._closed, self._process = "", os.getpid()
        self._lock = filelock.FileLock(self.folder / ".lock", timeout=0, thread_local=False)

    def __repr__(self) -> str:
        return f"Run({self.paper}, {self.profile}, {self.arm}, seed {self.seed}, {self.device})"

    def _open(self) -> None:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._acquire(seconds_of("XAI_WAIT"))
            except filelock.Timeout:
                raise RuntimeError(
                    f"another run is writing into {self.folder}. Wait until it has ended (a notebook's kernel holds "
                    "on until it records or restarts), or choose another seed, arm, profile or XAI_RESULTS."
                ) from None
            settle(self.folder)  # what a run had begun that was killed while it recorded

    def _acquire(self, seconds: float) -> None:
        """Take the folder's lock, at once or within some seconds: a batch waits for a run that another left behind."""
        try:
            self._lock.acquire()
        except filelock.Timeout:
            if seconds > 0:
                waits = f"another run is writing into {self.folder}; waiting for its end, {seconds:g} s at most"
                print(waits, file=sys.__stderr__, flush=True)  # to the batch's log, not into the notebook
                self._lock.acquire(timeout=seconds)
                return
            raise

    def _close(self, reason: str) -> None:
        if self._closed or os.getpid() != self._process:  # a forked child's end is not the run's
            return
        self._closed = reason
        try:
            with suppress(OSError):  # the folder may be gone, or not ours to change any more
                (self.folder / ".lock").unlink()  # while it is held; filelock knows of that
        finally:
            self._lock.release()

    def _admit(self, kind: str, name: str, pattern: str = NAME, taken: Mapping[str, Any] | None = None) -> None:
        if self._closed:
            raise RuntimeError(f"this run {self._closed}. Begin a new one with suite.start.")
        if not re.fullmatch(pattern, name, re.ASCII):
            example = "P1.1.accuracy" if pattern is _ID else "fig2_morph"
            raise ValueError(f"{kind} {name!r}: expected a name such as {example!r}.")
        if name in (taken or ()):
            raise ValueError(f"{kind} {name!r} was given before in this run: use another name, or start again.")

    def checkpoint(self, name: str) -> Path:
        """File for a training's checkpoint. It survives a kill; a successful `record` deletes it."""
        self._admit("checkpoint", name)
        with _writing(self.folder):
            (self.folder / "checkpoints").mkdir(exist_ok=True)
        return self.folder / "checkpoints" / f"{name}.pt"

    def measure(
        self, id: str, found: Estimate | float | None, unit: str = "", n: int | None = None, note: str = ""
    ) -> float:
        """Add a metric, named as the rules in reported.yaml name it (``P1.1.accuracy``), and hand its value back.

        `found` is an estimate, or a plain number. `unit`, `n` (the cases behind it) and `note` complete it. None means
        "not defined": then `note` must say why, and NaN comes back.
        """
        self._admit("metric", id, _ID, self._metrics)
        more = {name: value for name, value in {"unit": unit, "n": n, "note": note}.items() if value not in ("", None)}
        try:
            estimate = replace(found, **more) if isinstance(found, Estimate) else Estimate(found, **more)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{id}: {error}.") from None
        self._metrics[id] = estimate
        return math.nan if estimate.value is None else estimate.value

    def measure_all(self, found: Mapping[str, Estimate | float | None], prefix: str = "") -> None:
        """Add the metrics of a section in one call: all of them, or, if one is refused, none.

        Args:
            found: id → estimate or number, as `measure` takes them; None alone has no note, so give an `Estimate`.
            prefix: what all ids begin with ("P2.4.signed" for "P2.4.signed.share_of_r").
        """
        before = dict(self._metrics)
        try:
            for name, value in found.items():
                self.measure(f"{prefix}.{name}" if prefix else name, value)
        except Exception:
            self._metrics = before
            raise

    def table(self, *prefixes: str) -> pd.DataFrame:
        """The metrics measured so far whose ids begin with one of `prefixes` (none: all), one row each."""
        chosen = {name: m for name, m in self._metrics.items() if name.startswith(prefixes or "")}
        columns = ["value", "low", "high", "n"]
        rows = {name: [getattr(metric, column) for column in columns] for name, metric in chosen.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("metric")

    def competent(self, claim: str) -> Learned:
        """Whether the network that `claim` (such as "P3.1") is about has learned its task, by reported.yaml's bounds.

        Ask when that is measured and the data set is noted, before its maps are drawn: `plot.banner(fig,
        run.competent("P3.1").warning)` puts a warning over the maps of a network that has not.

        Returns:
            `learned` (None: it cannot be told; True where no bound is set for the claim), `text` with the number,
            `warning` ("" unless it has not learned).

        Raises:
            ValueError: the paper has no such claim.
            claims.MissingMetric: what says whether it has learned was not measured yet.
        """
        return self._reported.papers[self.paper].competent(claim, self._metrics, self._about())

    def _about(self) -> dict[str, Any]:
        return subject(self._published, self.profile, self.arm, self._sources)

    def uses(self, provenance: Mapping[str, str]) -> None:
        """Note a data set (``ImageSet.provenance``: name, sha256, variant)."""
        self._admit("data set", "data")
        source = checked(DataSource, dict(provenance), "the provenance of a data set")
        if source not in self._sources:
            self._sources.append(source)

    def figure(self, name: str, fig: "Figure", alt: str = "") -> "Figure":
        """Keep `fig` as it is now (PNG, 100 dpi; the same picture gives the same bytes), show it and hand it back.

        A notebook shows the very picture that is kept, at once: a figure is drawn one time only. Pictures of a data set
        for research only (`unpublished`) that the run `uses` are greyed in it; maps and curves stay. `alt` says what
        the figure shows to who does not see it: it goes into the metadata of the cell's output. ValueError: it says
        hardly more than the name.
        """
        self._admit("figure", name, taken=self._figures)
        if not hasattr(fig, "savefig"):
            raise TypeError(f"figure {name!r}: expected a matplotlib Figure, got {type(fig).__name__}.")
        about = {"image/png": {"alt": alt_text.checked(name, alt)}} if alt else {}
        held = sorted({source.name for source in self._sources} & unpublished()) if self._sources else []
        if held:
            _grey(fig, f"pictures of {', '.join(held)} are not republished")
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
        self._figures[name] = buffer.getvalue()
        _show(self._figures[name], f"<figure {name}>", about)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(fig)  # or Jupyter would draw and show it again
        return fig

    def arrays(self, name: str, **arrays: Any) -> None:
        """Keep arrays or tensors of numbers, booleans or text for ``<name>.npz``."""
        self._admit("arrays", name, taken=self._arrays)
        whole = {k: v.detach().cpu().numpy() if hasattr(v, "detach") else np.asarray(v) for k, v in arrays.items()}
        if bad := [key for key, array in whole.items() if array.dtype.hasobject]:
            raise TypeError(f"arrays {name!r}: {', '.join(bad)} holds Python objects; expected numbers or text.")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **whole)
        self._arrays[name] = buffer.getvalue()

    @property
    def own(self) -> bool:
        """Whether any images that the run `uses` so far are a user's own."""
        return any(source.variant == "own" for source in self._sources)

    def length(
        self, parameter: str, images: int, batch_size: int, *, share: float = 1.0, best: bool = True, **given: Any
    ) -> dict[str, Any]:
        """How long to train, as arguments of `training.fit`: `given` as it is, but on own images by their number.

        On own images, unless the caller passed `parameter`: at least `PASSES` epochs and `STEPS` batches, as many as
        the minutes allow (parameter `minutes`), and of them the one with the lowest validation loss.

        Args:
            parameter: that says how long the paper's training is ("epochs").
            images: that are trained on.
            batch_size: images of one training step.
            share: of the run's minutes that this training may take.
            best: False: the last epoch counts, as where the loss changes on the way.
            given: what `training.fit` gets on the paper's data: epochs, patience.
        """
        if not self.own or parameter in self._passed:
            return given
        epochs = max(PASSES, math.ceil(STEPS / math.ceil(images / batch_size)))
        decided = {"epochs": epochs, "minutes": share * self.parameters["minutes"]}
        return given | decided | ({"keep": "best"} if best else {})

    def images(
        self,
        everything: Any,
        judged: Any,
        prediction: Any,
        *,
        suspicion: Mapping[str, Any],
        confidence: Any = None,
        outcome: Any = None,
        scores: pd.DataFrame | Mapping[str, Any] | None = None,
        explained: Any = None,
        maps: Mapping[str, Any] | None = None,
        networks: "Mapping[str, tuple[nn.Module, answer.Build]] | None" = None,
        note: str = "",
    ) -> None:
        """Keep a line an image for ``images.csv``: file, split, truth, prediction, confidence, outcome, scores.

        Of own images also those that were not judged (without a prediction), and the trained networks in ``networks/``;
        of the paper's data only the networks that are kept (`weights.KEPT`).
        With the parameter `overlays` the maps of so many of the most suspicious images (−1: of all) in ``overlays/``.

        Args:
            everything: ImageSet of all images.
            judged: ImageSet of the n images that were judged.
            prediction: (n,) class numbers, or numbers of a regression.
            suspicion: what makes an image suspicious, in words → (n,), the higher the more; one entry. None where that
                could not be learnt: then 1 − confidence stands in, and the words say so.
            confidence: (n,) in [0, 1].
            outcome: (n,) words; default: "right" or "wrong", of a regression prediction minus target.
            scores: score → (m,), or a table with a column a score, whose index holds ids of images.
            explained: ImageSet of the m images that have maps; default: `judged`.
            maps: explainer → (m, h, w) maps or (m, k, C, H, W) films.
            networks: name → the trained network, and what builds it (`answer.save_network`).
            note: what a network wants done to its images first.
        """
        ((why, values),) = suspicion.items()
        if values is None:
            why, values = "a low confidence", 1 - answer.as_array(confidence)
        chosen = judged if explained is None else explained
        if scores is not None and not isinstance(scores, pd.DataFrame):
            scores = pd.DataFrame({name: answer.as_array(column) for name, column in scores.items()}, chosen.ids)
        more = {"confidence": confidence, "outcome": outcome, "suspicion": values, "scores": scores}
        rows = answer.table(everything, judged, prediction, **more, whole=self.own)
        self._images = (len(rows), why, answer.as_csv(rows))
        about = {"classes": list(everything.class_names), "image": list(everything.pixels.shape[1:]), "note": note}
        kept = {} if self.own or self.overrides else weights.kept(self.paper, self.profile, self.arm, self.seed)
        for name, (model, build) in (networks or {}).items():
            if self.own:
                files = {f"{name}.safetensors": answer.save_network(model, build, about)}
            elif name in kept:
                files = weights.left(kept[name], model, build, about, judged, values)
            else:
                continue
            self._beside.setdefault("networks", {}).update(files)
        wanted = self.parameters.get("overlays", 0)
        if wanted and maps and not {source.name for source in self._sources} & unpublished():
            order = answer.most_suspicious(rows, len(rows))["file"].tolist()
            there = set(chosen.ids)
            order = [name for name in order if name in there]
            self._beside["overlays"] = answer.overlays(chosen, maps, order[: None if wanted < 0 else wanted])

    def _publish_beside(self) -> None:
        """Put the folders of networks and overlays in place of those of the run before."""
        for name in BESIDE:
            for left in (self.folder / name, draft := self.folder / f".{name}.tmp"):
                shutil.rmtree(left, ignore_errors=True)
            if files := self._beside.get(name):
                draft.mkdir()
                for file, content in files.items():
                    (draft / file).write_bytes(content)
                os.replace(draft, self.folder / name)

    def finding(self, *wanted: str, language: "Language" = "en", figure: bool = True) -> "Told | Line":
        """What the committed standard records say about claims (``run.finding("P2.4")``), whatever $XAI_RESULTS is.

        A notebook shows the sentences of results/findings.yaml, the verdict and (`figure`) the standard figure; one
        line instead where a record is not current, or within a standard run, which makes these records.
        """
        from xai_utils.suite import shown

        if self.profile == "standard":
            return shown.Line(
                f"{', '.join(wanted)}: this run is one of the standard runs, so it shows no result of them."
            )
        return shown.finding(wanted, language, figure)

    def closing_table(self) -> "ClosingTable":
        """The paper's claims in words: the paper, this run, the committed standard result, verdict, why in one line.

        claims.MissingMetric: a rule names a metric that was not measured.
        """
        from xai_utils.suite import shown

        verdicts = claims.evaluate(self._reported, self.paper, self._metrics, self._about())
        return shown.closing_table(self.paper, self._metrics, verdicts)

    def record(self) -> pd.DataFrame:
        """Judge the claims and write the run's folder; then drop its checkpoints and its lock.

        If it fails, the folder is as it was and the run stays open: measure what was missing, or free the disk,
        and call it again.

        Returns:
            One row per claim: claim, kind, statement, paper (its numbers), this run (evidence), verdict (with, in
            brackets, what is open or why it is not tested).

        Raises:
            claims.MissingMetric: a rule names a metric that was not measured.
            ValueError: the folder would exceed 3 MB.
            RuntimeError: recorded before, or the folder cannot be written.
        """
        self._admit("record", "record")
        verdicts = claims.evaluate(self._reported, self.paper, self._metrics, self._about())
        known = provenance.module_hashes(repository_root(), self.paper, self.profile) | self._modules
        record = Record(
            paper=self.paper,
            profile=self.profile,
            arm=self.folder.parent.name,
            seed=self.seed,
            parameters=self._published,
            overrides=list(self.overrides),
            settings=dict(self.settings),
            metrics=self._metrics,
            claims=verdicts,
            figures=list(self._figures),
            arrays=list(self._arrays),
            images=self._images[0],
            suspicion=self._images[1],
            provenance=Provenance(
                commit=self._git[0],
                dirty=self._git[1],
                started=self._started,
                seconds=round(time.monotonic() - self._clock, 1),
                device=self.device.type,
                data=self._sources,
                modules=dict(sorted(known.items())),
                weights=self._weights,
                resumed=_resumptions(self.folder),
                epochs=_lengths(self.folder),
                **provenance.environment(),
            ),
        )
        files = {f"{name}.png": content for name, content in self._figures.items()}
        files |= {f"{name}.npz": content for name, content in self._arrays.items()}
        files |= {answer.TABLE: self._images[2]} if self._images[2] else {}
        text = json.dumps(record.model_dump(mode="json"), allow_nan=False, indent=1, ensure_ascii=False)
        files["record.json"] = f"{text}\n".encode()
        with _writing(self.folder):
            _check_size(self.folder, files)
            publish(self.folder, files)
            self._publish_beside()
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self._close("has been recorded")
        if self.own:
            print(answer.told(self.folder, place=f"results/{self.folder.relative_to(results_root()).as_posix()}"))
        rows = []
        for name, claim in (paper := self._reported.papers[self.paper]).judged.items():
            brief, verdict = _brief(paper.reported(name)), verdicts[name]
            judged = with_reason(verdict.verdict, verdict.reason)
            rows.append((name, claim.kind, claim.statement, brief, verdict.evidence, judged))
        return pd.DataFrame(rows, columns=["claim", "kind", "statement", "paper", "this run", "verdict"])


def start(paper: str, parameters: Mapping[str, Any]) -> Run:
    """Begin a run: check the parameters, settle which values count, lock its folder, seed everything.

    Where the arm, or the profile, says another value than the one that was handed in, and the caller did not pass it,
    theirs counts: it is printed with the old one, and written back into `parameters` if that can be changed, so that a
    notebook's own names are what it computes with. `xai_utils.suite.parameters` says how that is decided.

    A run of this process that was never recorded is given up first, so a notebook can be run again from its top.
    Nothing global is set but the seeds and what `seeds.seed_everything` says; the number of threads is only noted.

    Args:
        paper: notebook stem, such as ``01_id_cvae_morphing``.
        parameters: the notebook's ``globals()``. Its public names of plain type (str, int, float, bool, None, lists
            and tuples of them) must be exactly those of ``notebooks/parameters/<paper>.yaml``.

    Raises:
        ValueError: unknown, missing, mistyped or out-of-range parameters, all in one message; a schema or
            reported.yaml that is not valid.
        FileNotFoundError: the paper has no parameter schema.
        RuntimeError: the device is absent, another run holds the folder, or the folder cannot be written.
    """
    from xai_utils import seeds

    global _active
    wanted = os.environ.get("XAI_PREFIX")
    if wanted and Path(wanted).resolve() != Path(sys.prefix).resolve():
        raise RuntimeError(
            f"the kernel python3 runs in the environment {sys.prefix}, and notebooks/run in {wanted}: another kernel "
            "of that name comes first. Remove it (jupyter kernelspec list shows where it is), or install this one: "
            "python -m ipykernel install --sys-prefix"
        )
    run = Run(paper, parameters)
    expected = os.environ.get("XAI_FOLDER")
    if expected and Path(expected).resolve() != run.folder.resolve():
        raise RuntimeError(
            f"the record would lie in {run.folder}, and notebooks/run keeps the notebook in {expected}: leave profile, "
            "arm, seed, XAI_RESULTS and XAI_ROOT as notebooks/run has them, and let the kernel import this checkout"
        )
    if _active:
        _active._close("was given up for a later one")
    run._open()
    _active = run
    for name, (old, who) in run.replaced.items():
        print(f"{who} sets {name} = {run.parameters[name]!r} (it was {old!r})")
    if run.overrides:
        own = ", ".join(f"{name} = {run.parameters[name]!r}" for name in run.overrides)
        place = run.folder.parent.name
        print(f"{own}: not what profile {run.profile} and arm {run.arm} say, so this run is filed under {place}")
    if isinstance(parameters, MutableMapping):
        parameters.update({name: run.parameters[name] for name in run.replaced})
    seeds.seed_everything(run.seed)
    return run


@atexit.register
def _give_up() -> None:
    """A process that ends without a record, such as a failed notebook's kernel, leaves no lock file behind."""
    if _active:
        _active._close("has ended with its process")


def versions() -> pd.Series:
    """Versions of Python and of the packages that a record names."""
    here = provenance.environment()
    return pd.Series({"python": here["python"], **here["packages"]}, name="version")

"""`python -m xai_utils.data list | fetch NAME … | verify [NAME …] | check FOLDER`."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from xai_utils.data import contents, origins, store
from xai_utils.data.store import DataSet

STANDARD = "standard"  # for `fetch`: every set that the standard profile needs
SPEED = 5e6  # bytes a second: what the times of `list` and `fetch` assume


def _load(datasets: Sequence[DataSet]) -> str:
    """How much is to be loaded, and how long that and the building take."""
    size = sum(origin.bytes for dataset in datasets for origin in dataset.origins)
    minutes = max(1, round((size / SPEED + sum(dataset.seconds for dataset in datasets)) / 60))
    return f"{size / 1e6:,.0f} MB, about {minutes} min at {SPEED / 1e6:.0f} MB/s"


def show() -> int:
    """Print two lines a set: whether it is here, how large, from where and how long to load; its licence and terms."""
    for name, dataset in store.registry().items():
        here, root = store.place(dataset)
        hosts = dict.fromkeys(_host(origin.urls[0]) for origin in dataset.origins)
        way = f"{_load([dataset])}, from {', '.join(hosts)}" if hosts else "nothing to load"
        print(f"{name:15} {here:9} {way}" + (f"  ({root})" if root else ""))
        print(f"{'':15} {'':9} {dataset.licence}" + (f"; needs --accept {name}" if dataset.terms else ""))
    return 0


def _host(url: str) -> str:
    return url.rpartition("/")[0] if url.startswith("doi:") else urlsplit(url).hostname or url


def fetch(names: Sequence[str], accepted: Sequence[str], mirror: str | None, timeout: float, dry_run: bool) -> int:
    """Fetch some sets, each on its own; 1 if one could not be had."""
    known, status = store.registry(), 0
    wanted = [n for name in names for n in ([k for k in known if known[k].standard] if name == STANDARD else [name])]
    for name in (*wanted, *accepted):
        if name not in known:
            raise store.unknown_name(name, {*known, STANDARD})
    datasets = [known[name] for name in dict.fromkeys(wanted)]
    lacking = [dataset for dataset in datasets if store.place(dataset)[0] == "missing"]
    if dry_run or len(datasets) > 1:
        free = shutil.disk_usage(store.download_root()).free / 1e9
        print(
            f"{len(datasets)} sets, {len(lacking)} to load: {_load(lacking)}; {free:,.1f} GB are free", file=sys.stderr
        )
    if dry_run:
        for dataset in lacking:
            for origin in dataset.origins:
                url = f"{mirror}/{origin.file}" if mirror else origin.urls[0]
                print(f"{dataset.name}: {url} ({origin.bytes:,} bytes)")
            if dataset.terms:
                print(f"{dataset.name}: {dataset.terms} To accept that: --accept {dataset.name}")
        return 0
    for dataset in datasets:
        try:
            origins.fetch(dataset.name, mirror=mirror, accept=dataset.name in accepted, timeout=timeout)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


def verify(names: Sequence[str]) -> int:
    """Check every file that is there; 1 if one is wrong, or if a set asked for by name is missing."""
    status = 0
    for dataset in [store.entry(name) for name in names] or store.registry().values():
        here, _ = store.place(dataset)
        if here in ("embedded", "missing") or dataset.folder:
            print(
                f"{dataset.name}: {here}" + (" (kept as a folder, without a list of its files)" * bool(dataset.folder))
            )
            status |= here == "missing" and dataset.name in names
        for root in filter(None, (store.prepared_root(), store.download_root())):
            for file in dataset.files:
                if (root / file.path).is_file():
                    status |= _verify_file(dataset, file, root)
    return int(status)


def _verify_file(dataset: DataSet, file: store.DataFile, root: store.Path) -> bool:
    """Print what is wrong with one file, and with each of the files in it; whether anything is."""
    path = root / file.path
    fault, found = store.fault(dataset, file, root)
    if dataset.recipe == "build" and (fault or found):
        found = contents.compare(path, store.contents_list(dataset))
        for name, what in found.wrong.items():
            print(f"{dataset.name}: {path}: {name} {what}")
        print(f"{dataset.name}: {path}: {found.summary()}")
    else:
        print(f"{dataset.name}: {fault or f'{path} is right'}")
    return fault is not None


def check(chosen: argparse.Namespace) -> int:
    """Look at a folder of your own images, print a table and what was found; 1 if a run would stop at something."""
    from xai_utils.data.own import check_folder  # torch takes seconds, and the other commands need none of it

    found = check_folder(
        chosen.folder,
        masks=chosen.masks,
        targets=chosen.targets,
        paper=chosen.paper,
        groups=chosen.group_by,
        fit=chosen.square,
        size=chosen.size,
    )
    print(found)
    if any("-p " in str(finding) for finding in found.findings):
        print("-p NAME VALUE is written after notebooks/run; this check takes --masks, --group-by, --square and --size")
    return int(bool(found.refused))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 = done, 1 = damaged, missing, refused or not fetched, 2 = wrong usage (by argparse)."""
    parser = argparse.ArgumentParser(
        prog="python -m xai_utils.data", description="Data sets: where they are, and how to get them"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all sets: whether they are here, size, licence, from where, how long")
    get = commands.add_parser("fetch", help="build sets from their public origin, in data/")
    get.add_argument("names", nargs="+", metavar="NAME", help=f"of `list`, or {STANDARD}: all of the standard profile")
    get.add_argument("--dry-run", action="store_true", help="only say what would be loaded")
    get.add_argument(
        "--accept", nargs="+", action="extend", default=[], metavar="NAME", help="accept the terms of use of these sets"
    )
    get.add_argument("--mirror", metavar="URL", help="base address to use instead of the registered origins")
    get.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds without a byte (default 30)")
    intact = commands.add_parser("verify", help="check every file that is there, also inside archives built here")
    intact.add_argument("names", nargs="*", metavar="NAME")
    own = commands.add_parser("check", help="look at a folder of your own images before anything is trained on it")
    own.add_argument("folder", help="one folder a class, or images and targets.csv; relative to the working directory")
    own.add_argument("--masks", metavar="NAME", help="folder of masks, below FOLDER")
    own.add_argument("--targets", metavar="FILE", help="of a regression, below FOLDER (targets.csv where it is there)")
    own.add_argument("--for", dest="paper", metavar="PAPER", help="what this paper asks for: 1 to 5, or its notebook")
    own.add_argument(
        "--group-by", default="", metavar="RULE", help="as -p group_by: prefix:8, an expression, a CSV file"
    )
    own.add_argument("--square", default="letterbox", metavar="WAY", help="as -p square: letterbox, stretch or crop")
    own.add_argument("--size", type=int, metavar="PX", help="as -p size (default: the paper's at quick)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "fetch":
            return fetch(chosen.names, chosen.accept, chosen.mirror, chosen.timeout, chosen.dry_run)
        if chosen.command == "check":
            return check(chosen)
        return show() if chosen.command == "list" else verify(chosen.names)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished downloads are kept, run the same command again", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

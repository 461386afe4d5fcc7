"""`python -m xai_utils.data list | fetch NAME | verify [NAME …]`."""

import argparse
import sys

from xai_utils.data import store


def show() -> int:
    """Print one line per set: where it is, its size and licence."""
    print(f"{'name':15} {'found':10} {'MB':>7}  licence")
    for name, dataset in store.registry().items():
        found, root = store.place(dataset)
        size = sum(file.bytes for file in dataset.files) / 1e6
        print(f"{name:15} {found:10} {size:7.1f}  {dataset.licence}" + (f"  ({root})" if root else ""))
    return 0


def verify(names: list[str]) -> int:
    """Check every present file; 1 if one is damaged, or if a set asked for by name is missing."""
    status = 0
    for dataset in [store.entry(name) for name in names] or store.registry().values():
        found, _ = store.place(dataset)
        if found in ("embedded", "missing"):
            print(f"{dataset.name}: {found}")
            status |= found == "missing" and dataset.name in names
        for root in filter(None, (store.prepared_root(), store.download_root())):
            for file in dataset.files:
                if (path := root / file.path).is_file():
                    fault = store.problem(path, file)
                    print(f"{dataset.name}: {fault or f'{path} is right'}")
                    status |= fault is not None
    return int(status)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 = done, 1 = damaged, missing or not fetched, 2 = wrong usage (by argparse)."""
    parser = argparse.ArgumentParser(
        prog="python -m xai_utils.data", description="Data sets: where they are, and fetch"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all sets, where they were found, size, licence")
    fetch = commands.add_parser("fetch", help="download a set from its public origin into data/")
    fetch.add_argument("name")
    fetch.add_argument("--mirror", metavar="URL", help="base URL to use instead of the registered origins")
    fetch.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds without a byte (default 30)")
    check = commands.add_parser("verify", help="check size and checksum of every file that is there")
    check.add_argument("names", nargs="*", metavar="NAME")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "fetch":
            store.fetch(chosen.name, mirror=chosen.mirror, timeout=chosen.timeout)
            return 0
        return show() if chosen.command == "list" else verify(chosen.names)
    except (OSError, ValueError, NotImplementedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was received is kept, and the next fetch goes on there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

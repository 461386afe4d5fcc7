"""The arrays beside a record, read with care: a committed file is data of others."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]
LARGEST = 10**9  # bytes that a file of arrays may unpack to


def load_arrays(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a run's folder: "file.array" → its values, for the files `names` (without ".npz").

    Raises:
        ValueError: a file is missing, cannot be read, or unpacks to more than `LARGEST` bytes.
    """
    found = {}
    for name in names:
        path = folder / f"{name}.npz"
        try:
            with zipfile.ZipFile(path) as archive:
                if (size := sum(member.file_size for member in archive.infolist())) > LARGEST:
                    raise ValueError(f"it unpacks to {size} bytes, more than {LARGEST}")
            with np.load(path, allow_pickle=False) as stored:
                found |= {f"{name}.{key}": stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} cannot be read: {error}; run the notebook again") from error
    return found

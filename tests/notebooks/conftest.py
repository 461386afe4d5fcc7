"""How nbval reruns the notebooks: python -m pytest --nbval --nbval-cell-timeout=600 tests/notebooks notebooks.

tests/notebooks stands in that line so that this file applies. It compares text only: what goes to stderr (warnings,
progress) and the HTML twin of a table are left out. Records go to a temporary folder, never into results/.
"""

import os
import shutil
import tempfile

NOT_COMPARED = ("stderr", "text/html")


def pytest_configure(config):
    if config.getoption("nbval", False):
        config.temporary_results = tempfile.mkdtemp(prefix="nbval-results-")
        for name in ("MPLBACKEND", "NUMBA_DISABLE_JIT"):  # tests/conftest.py sets them, for unit tests only
            os.environ.pop(name, None)
        os.environ.update(XAI_RESULTS=config.temporary_results, XAI_PROGRESS="0")  # kernels inherit both


def pytest_unconfigure(config):
    shutil.rmtree(getattr(config, "temporary_results", ""), ignore_errors=True)


def pytest_collection_modifyitems(items):
    for notebook in {item.parent for item in items if hasattr(item.parent, "skip_compare")}:
        notebook.skip_compare = (*notebook.skip_compare, *NOT_COMPARED)

"""How nbval reruns the notebooks: make notebooks, or for one
python -m pytest --nbval --nbval-cell-timeout=600 tests/notebooks notebooks/01_id_cvae_morphing.ipynb -k ipynb

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
        for name in ("MPLBACKEND", "TORCHINDUCTOR_CACHE_DIR"):  # of this process, not of kernels
            os.environ.pop(name, None)
        os.environ.update(XAI_RESULTS=config.temporary_results, XAI_PROGRESS="0")  # kernels inherit both


def pytest_unconfigure(config):
    shutil.rmtree(getattr(config, "temporary_results", ""), ignore_errors=True)


LONGEST_FIRST = ("test_runs_p1.py", "05_lrp_bn.ipynb", "03_gradcam_defects.ipynb")


def pytest_collection_modifyitems(items):
    # two workers take file after file in this order: the longest ones must not be left to the end
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    for notebook in {item.parent for item in items if hasattr(item.parent, "skip_compare")}:
        notebook.skip_compare = (*notebook.skip_compare, *NOT_COMPARED)

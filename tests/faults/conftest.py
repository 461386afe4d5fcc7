"""The fault runs use what the unit tests run: small papers, repositories, servers and trainings."""

import sys
from pathlib import Path

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT / "suite"), str(UNIT / "data"), str(UNIT)]

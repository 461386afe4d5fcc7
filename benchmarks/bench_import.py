"""What `import xai_utils` costs above `import torch`, in fresh processes, alternating; the bar is 0.5 s."""

import statistics
import subprocess
import sys

ROUNDS = 5
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module):
    result = subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=True)
    return float(result.stdout)


seconds("xai_utils")
pairs = [(seconds("torch"), seconds("xai_utils")) for _ in range(ROUNDS)]
extra = statistics.median(b - a for a, b in pairs)
print(f"import torch {statistics.median(a for a, _ in pairs):.2f} s, xai_utils {extra:+.2f} s on top (bar 0.50)")

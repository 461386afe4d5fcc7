"""What `import xai_utils` costs, alone and above `import torch`, in fresh processes; the bar is 0.5 s."""

import statistics
import subprocess
import sys

ROUNDS = 5
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module):
    result = subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=True)
    return float(result.stdout)


seconds("torch, xai_utils")
rounds = [[seconds(modules) for modules in ("xai_utils", "torch", "torch, xai_utils")] for _ in range(ROUNDS)]
alone, torch, extra = (statistics.median(values) for values in zip(*((a, b, c - b) for a, b, c in rounds)))
print(f"import xai_utils {alone:.2f} s; import torch {torch:.2f} s, xai_utils {extra:+.2f} s on top (bar 0.50)")

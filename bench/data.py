"""Planning and making batches on 157 billion tokens: seconds and memory, beside random slices of a memory map.

The file is sparse (pages of zeros that occupy no disk space), so that the disk does not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import heading, ratio, result, size

TOKENS, HELD_OUT = size((157_286_400_000, 8_000_000_000), (20_000_000, 2_000_000))
STEPS = size(100, 3)
PART = """
import json, resource, sys, time
import numpy as np
from cl_bench import config
from cl_bench.data import batches, sources
def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
took, memory, began = {}, megabytes(), time.perf_counter()
def lap(name):
    global began
    took[name], began = time.perf_counter() - began, time.perf_counter()
files = sources.inspect(config.DataConfig(source="nanogpt", path=sys.argv[1]))
lap("plan")
planned = config.DataConfig(source="nanogpt", path=sys.argv[1], fingerprint=files.fingerprint)
training = batches.Batches(sources.mixture(planned, ""), 1024, seed=1234)
training.micro_batch(0, 512)
lap("start")
took["first"] = megabytes() - memory
steps = int(sys.argv[2])
for step in range(1, steps + 1):
    training.micro_batch(step * 512, 512)
lap("batches")
took["memory"] = megabytes() - memory
tokens, random = np.memmap(sys.argv[1] + "/train.bin", np.uint16, "r"), np.random.default_rng(0)
lap("open")
for _ in range(steps):
    np.stack([tokens[s : s + 1025] for s in random.integers(0, len(tokens) - 1025, 512)]).astype(np.int64)
lap("slices")
print(json.dumps(took))
"""


def main() -> None:
    """Measure and print."""
    heading(f"{TOKENS / 1e9:.3g} billion tokens ({2 * TOKENS / 1e9:.3g} GB, nanoGPT's format, sparse)")
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("train", TOKENS), ("val", HELD_OUT)):
            path = Path(folder) / f"{name}.bin"
            path.touch()
            os.truncate(path, 2 * n)
        out = subprocess.run(
            [sys.executable, "-c", PART, folder, str(STEPS)], check=True, capture_output=True, text=True
        ).stdout
    took = json.loads(out)
    result("seconds to check and identify the data", f"{took['plan']:.2f} s", "<= 5 s", took["plan"] <= 5)
    result("seconds to open it and make the first batch of 512", f"{took['start']:.2f} s", "<= 5 s", took["start"] <= 5)
    result("memory for both", f"{took['first']:.0f} MB", "<= 64 MB", took["first"] <= 64)
    met = took["memory"] <= 64
    result(f"memory after {STEPS} steps of 512 x 1024 more", f"{took['memory']:.0f} MB", "<= 64 MB", met)
    rate = STEPS * 512 * 1024 / took["batches"]
    result("tokens per second, batches alone", f"{rate / 1e6:.0f} M", ">= 10 M", rate >= 1e7)
    ratio("random slices of a memory map, in seconds", took["batches"] / took["slices"])


if __name__ == "__main__":
    main()

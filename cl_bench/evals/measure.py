"""Zero-shot evaluation of a run's newest checkpoint on one file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

import torch

from cl_bench.config import RunConfig
from cl_bench.data import tokenizer as tokenizers
from cl_bench.evals import tasks, weights, zeroshot
from cl_bench.evals.zeroshot import Progress
from cl_bench.runs.paths import RunDir

BATCH_TOKENS = 16384


def measure(
    run: RunDir,
    config: RunConfig,
    task: Literal["wikitext103", "lambada"],
    path: Path,
    *,
    stride: int | None = None,
    strict: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a task, on a GPU if there is one; returns the entry for zeroshot.json.

    `stride` applies to wikitext103, `strict` to lambada; `batch` is the number of windows or passages per forward pass.
    Raises UserError for a file of another format, a stride beyond the window and a checkpoint that cannot be loaded.
    """
    window = config.seqlen
    batch = batch or max(1, BATCH_TOKENS // window)
    stride = min(zeroshot.STRIDE, window) if stride is None else stride
    zeroshot.check_stride(stride, window)
    tokenizer = tokenizers.from_config(config.data)
    # The file is read before the weights, which takes longer.
    text = tasks.wikitext(path, tokenizer) if task == "wikitext103" else None
    passages = tasks.lambada(path, tokenizer, strict=strict) if task == "lambada" else []
    trained = weights.load(run, config)
    model = trained.model.to("cuda" if torch.cuda.is_available() else "cpu")
    result = (
        zeroshot.perplexity(model, text, window, stride, batch, progress)
        if text is not None
        else zeroshot.accuracy(model, passages, window, batch, strict=strict, progress=progress)
    )
    return dataclasses.asdict(result) | {
        "step": trained.step,
        "consumed_tokens": trained.consumed_tokens,
        "tokenizer": tokenizer.name,
        "data": str(path),
        "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }

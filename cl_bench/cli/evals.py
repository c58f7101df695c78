"""What one asks of a trained model: its zero-shot quality (`cl-bench eval`) and its weights (`cl-bench export`)."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cl_bench.cli import runs
from cl_bench.config import DataConfig, RunConfig
from cl_bench.config.schema import ConfigError
from cl_bench.errors import UserError
from cl_bench.runs import zeroshot_record
from cl_bench.runs.paths import RunDir
from cl_bench.training import worker

TASKS = ("wikitext103", "lambada")


def evaluate(argv: Sequence[str]) -> int:
    """`cl-bench eval`: a zero-shot metric of a run's newest save, printed and added to its zeroshot.json."""
    parser = argparse.ArgumentParser(
        prog="cl-bench eval", description="Zero-shot quality of a run's newest save, on a GPU where there is one."
    )
    parser.add_argument("name", metavar="RUN")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help='wikitext103: wiki.test.tokens; lambada: JSON lines with "text", or a passage a line',
    )
    parser.add_argument(
        "--stride", type=int, metavar="N", help="wikitext103: tokens between windows (default: 32, at most the window)"
    )
    parser.add_argument("--strict", action="store_true", help="lambada: tokenise the last word apart from its passage")
    parser.add_argument("--batch", type=int, metavar="N", help="windows or passages at a time (default: 16,384 tokens)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--outputs", default="outputs", help="folder of runs and sweeps (default: outputs)")
    args = parser.parse_args(argv)
    if args.stride is not None and args.task != "wikitext103":
        raise UserError(f"--stride = {args.stride}: belongs to --task wikitext103; leave it out")
    if args.strict and args.task != "lambada":
        raise UserError("--strict: belongs to --task lambada; leave it out")
    if args.batch is not None and args.batch < 1:
        raise UserError(f"--batch = {args.batch}: must be at least 1; leave it out for as many as 16,384 tokens hold")
    run = runs.find_one(args.name, args.outputs)
    config = worker.load_config(run)
    entry = _measure(run, config, args)
    zeroshot_record.add(run, args.task, entry)
    print(json.dumps({"run": run.run_id, "task": args.task} | entry) if args.json else _line(run, args.task, entry))
    return 0


def _measure(run: RunDir, config: RunConfig, args: argparse.Namespace) -> dict[str, Any]:
    """What zeroshot.json keeps of one evaluation."""
    import torch

    from cl_bench.data import tokenizer
    from cl_bench.evals import tasks, weights, zeroshot

    window = config.seqlen
    batch = args.batch or max(1, 16384 // window)
    stride = min(zeroshot.STRIDE, window) if args.stride is None else args.stride
    if args.task == "wikitext103":
        zeroshot.check_stride(stride, window)
    path = Path(args.data)
    encoding = tokenizer.from_config(config.data)
    text = tasks.wikitext(path, encoding) if args.task == "wikitext103" else None
    passages = tasks.lambada(path, encoding, strict=args.strict) if args.task == "lambada" else []
    trained = weights.load(run, config)
    model = trained.model.to("cuda" if torch.cuda.is_available() else "cpu")
    with _progress(args.task) as progress:
        result = (
            zeroshot.perplexity(model, text, window, stride, batch, progress)
            if text is not None
            else zeroshot.accuracy(model, passages, window, batch, strict=args.strict, progress=progress)
        )
    return dataclasses.asdict(result) | {
        "step": trained.step,
        "consumed_tokens": trained.consumed_tokens,
        "tokenizer": encoding.name,
        "data": str(path),
        "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _line(run: RunDir, task: str, entry: dict[str, Any]) -> str:
    """A result in one line."""
    from cl_bench.evals import zeroshot

    where = f"step {entry['step']:,} of {run.run_id}"
    if task == "wikitext103":
        capped = " (the cap, e^20)" if entry["word_ppl"] >= math.exp(zeroshot.LARGEST_EXPONENT) else ""
        return (
            f"wikitext103: word perplexity {entry['word_ppl']:,.2f}{capped} ({entry['loss']:.4f} nats a token; "
            f"{entry['tokens']:,} {entry['tokenizer']} tokens, {entry['words']:,} words; window {entry['window']}, "
            f"stride {entry['stride']}; {where})"
        )
    cut = f", {entry['cut']:,} passages cut to it" if entry["cut"] else ""
    return (
        f"lambada, {'strict' if entry['strict'] else 'detokenised'}: last-word accuracy {entry['accuracy']:.2%} "
        f"({entry['correct']:,} of {entry['passages']:,}; {entry['tokenizer']} tokens; window {entry['window']}{cut}; "
        f"{where})"
    )


@contextlib.contextmanager
def _progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr, gone when done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task(task)
        yield lambda done, total: bar.update(bar_id, completed=done, total=total)


def export(argv: Sequence[str]) -> int:
    """`cl-bench export`: a run's newest save as a folder that transformers loads."""
    parser = argparse.ArgumentParser(
        prog="cl-bench export", description="Write a run's newest save as a Hugging Face GPT-2 folder."
    )
    parser.add_argument("name", metavar="RUN")
    parser.add_argument("folder", metavar="DIR", help="must not exist, or be empty")
    parser.add_argument("--outputs", default="outputs", help="folder of runs and sweeps (default: outputs)")
    args = parser.parse_args(argv)
    run = runs.find_one(args.name, args.outputs)
    config = worker.load_config(run)
    from cl_bench.data import tokenizer
    from cl_bench.evals import hf_export as hf
    from cl_bench.evals import weights

    folder = Path(args.folder)
    hf.check_folder(folder)
    try:
        encoding, why = tokenizer.from_config(config.data), "its tokenizer is not two files, vocab.json and merges.txt"
    except ConfigError as error:  # the weights are worth having without
        encoding, why = None, str(error)
    trained = weights.load(run, config)
    note = {"run": run.run_id, "step": trained.step, "consumed_tokens": trained.consumed_tokens}
    files = tokenizer_files(config.data) if encoding is not None else None
    has_tokenizer = hf.write(folder, trained.model, config, encoding, files, note)
    print(f"{folder}: step {trained.step:,} of {run.run_id}, for transformers' GPT2LMHeadModel and AutoTokenizer")
    if not has_tokenizer:
        print(f"it holds no tokenizer: {why}")
    return 0


def tokenizer_files(config: DataConfig) -> tuple[Path, Path] | None:
    """vocab.json and merges.txt that a run's data names, None where it names none."""
    if not config.vocab_file or not config.merges_file:
        return None
    return Path(config.vocab_file).expanduser(), Path(config.merges_file).expanduser()

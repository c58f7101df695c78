"""`cl-bench eval` and `cl-bench export`: zero-shot quality and weights of a trained model."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.progress import Progress

from cl_bench.cli import completion, runs
from cl_bench.errors import UserError
from cl_bench.runs import identity, zeroshot_record
from cl_bench.runs.paths import RunDir

# torch takes seconds to import: commands import cl_bench.evals when they run, not for their help.

_LARGEST_PPL = math.exp(20)
"""Megatron-LM's cap on the perplexity."""
_RUN = click.argument("name", metavar="RUN", shell_complete=completion.names)


@click.command("eval")
@_RUN
@click.option("--task", type=click.Choice(("wikitext103", "lambada")), required=True, help="what to measure")
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help='wikitext103: wiki.test.tokens; lambada: JSON lines with "text", or a passage per line',
)
@click.option(
    "--stride", type=int, metavar="N", help="wikitext103: tokens between windows (default: 32, at most the window)"
)
@click.option("--strict", is_flag=True, help="lambada: tokenize the last word apart from its passage")
@click.option("--batch", type=int, metavar="N", help="windows or passages per batch (default: 16,384 tokens)")
@click.option("--json", "as_json", is_flag=True, help="print the result as one JSON object")
@runs.outputs_option
def evaluate(
    name: str,
    task: Literal["wikitext103", "lambada"],
    data: Path,
    stride: int | None,
    strict: bool,
    batch: int | None,
    as_json: bool,
    outputs: str,
) -> None:
    """Measure the zero-shot quality of a run's newest save.

    The result is printed and added to the run's zeroshot.json. Uses a GPU if
    there is one.
    """
    if stride is not None and task != "wikitext103":
        raise UserError(f"--stride = {stride}: only for --task wikitext103; leave it out")
    if strict and task != "lambada":
        raise UserError("--strict: only for --task lambada; leave it out")
    if batch is not None and batch < 1:
        raise UserError(f"--batch = {batch}: must be at least 1; leave it out for 16,384 tokens per batch")
    run = runs.find_one(name, outputs)
    config = identity.load_config(run)
    from cl_bench.evals.measure import measure

    with _progress(task) as progress:
        result = measure(run, config, task, data, stride=stride, strict=strict, batch=batch, progress=progress)
    zeroshot_record.add(run, task, result)
    click.echo(json.dumps({"run": run.run_id, "task": task} | result) if as_json else _in_one_line(run, task, result))


def _in_one_line(run: RunDir, task: str, result: dict[str, Any]) -> str:
    checkpoint = f"step {result['step']:,} of {run.run_id}"
    if task == "wikitext103":
        capped = " (the cap, e^20)" if result["word_ppl"] >= _LARGEST_PPL else ""
        return (
            f"wikitext103: word perplexity {result['word_ppl']:,.2f}{capped} ({result['loss']:.4f} nats per token; "
            f"{result['tokens']:,} {result['tokenizer']} tokens, {result['words']:,} words; window {result['window']}, "
            f"stride {result['stride']}; {checkpoint})"
        )
    cut = f", {result['cut']:,} passages truncated" if result["cut"] else ""
    return (
        f"lambada, {'strict' if result['strict'] else 'detokenized'}: last-word accuracy {result['accuracy']:.2%} "
        f"({result['correct']:,} of {result['passages']:,}; {result['tokenizer']} tokens; window {result['window']}"
        f"{cut}; {checkpoint})"
    )


@contextlib.contextmanager
def _progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """A transient progress bar on a terminal's stderr."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task(task)
        yield lambda done, total: bar.update(bar_id, completed=done, total=total)


@click.command()
@_RUN
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@runs.outputs_option
def export(name: str, folder: Path, outputs: str) -> None:
    """Write a run's newest save as a Hugging Face folder.

    transformers loads it as a GPT-2 model with its tokenizer. FOLDER must not
    exist, or be empty.
    """
    run = runs.find_one(name, outputs)
    config = identity.load_config(run)
    from cl_bench.evals.hf_export import export

    trained, missing_tokenizer = export(run, config, folder)
    click.echo(f"{folder}: step {trained.step:,} of {run.run_id}, for transformers' GPT2LMHeadModel and AutoTokenizer")
    if missing_tokenizer:
        click.echo(f"without a tokenizer: {missing_tokenizer}")

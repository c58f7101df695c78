"""`cl-bench prepare`: encode texts of any size into a folder of tokens for data=nanogpt."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cl_bench.config import DataConfig, schema
from cl_bench.config.schema import ConfigError
from cl_bench.data import encode, text
from cl_bench.data.chunking import PARTS, Stretch
from cl_bench.launch import display

_ROWS = (".jsonl", ".ndjson")
_VALIDATION_FRACTION = DataConfig.__dataclass_fields__["validation_fraction"].default


@click.command()
@click.argument("paths", metavar="TEXT…", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, metavar="FOLDER", type=click.Path(), help="for train.bin, val.bin and meta.json")
@click.option("--tokenizer", type=click.Choice(("gpt2", "bytes")), default="gpt2", help="default: gpt2")
@click.option("--vocab-file", metavar="FILE", type=click.Path(), help="gpt2: vocab.json (encoder.json)")
@click.option("--merges-file", metavar="FILE", type=click.Path(), help="gpt2: merges.txt (vocab.bpe)")
@click.option("--key", metavar="KEY", default="text", help="key of a row's text (default: text)")
@click.option(
    "--validation-fraction",
    type=float,
    metavar="SHARE",
    default=_VALIDATION_FRACTION,
    help=f"share held out (default: {_VALIDATION_FRACTION})",
)
@click.option("--workers", type=int, metavar="N", help="processes (default: one per core)")
def prepare(paths: tuple[str, ...], out: str, key: str, workers: int | None, **options: Any) -> None:
    """Encode texts of any size into tokens on disk.

    TEXT is a UTF-8 file, a folder (every file below it) or a quoted glob. A
    .jsonl file holds one document per line; any other file is one document.
    After an interruption, even by kill -9, the same command resumes.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: must be 1 or more")
    try:
        config = schema.build(DataConfig, {"source": "text", "path": paths[0], **options})
        job = encode.EncodingJob(stretches_of(config, paths), config, key=key)
        folder = Path(out).expanduser().absolute()
        meta = _encode(job, folder, workers or encode.workers_for(job.n_bytes))
    except ConfigError as error:
        raise ConfigError(_as_typed(str(error))) from None
    _print_result(meta, folder, config)


def _encode(job: encode.EncodingJob, folder: Path, workers: int) -> dict[str, Any]:
    """Run the job with a progress bar on a terminal's stderr."""
    console = Console(stderr=True)
    with Progress(
        TextColumn(folder.name),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=job.n_bytes)
        try:
            return encode.run(job, folder, workers, lambda done, _: bar.update(task, completed=done))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command resumes") from None


def _as_typed(message: str) -> str:
    """A message about configuration keys, in terms of this command's options."""
    message = re.sub(r"\bdata\.path = ", "", message)
    names = "tokenizer|vocab_file|merges_file|validation_fraction"
    return re.sub(
        rf"(?:\bdata\.|^)({names})\b( = |=)?",
        lambda m: f"--{m[1].replace('_', '-')}" + (" " if m[2] else ""),
        message,
    )


def stretches_of(config: DataConfig, paths: Sequence[str]) -> tuple[Stretch, ...]:
    """Stretches of the files to encode: of texts, with those to hold out; of rows, whole (rows are held out by hash).

    Raises ConfigError for paths without text.
    """
    configs = [DataConfig(source="text", path=path) for path in paths]
    by_path = {d.path: d for source in configs for d in text.find_documents(source) if d.n_bytes}
    if not by_path:
        raise ConfigError(f"{' '.join(paths)}: empty; name files that contain text")
    rows = [d for d in by_path.values() if d.path.suffix in _ROWS]
    documents = [d for d in by_path.values() if d.path.suffix not in _ROWS]
    stretches = [Stretch(d.path, d.n_bytes, 0, d.n_bytes, "train", is_rows=True) for d in rows]
    return tuple(stretches) + (encode.text_stretches(text.split(config, documents)) if documents else ())


def _print_result(meta: dict[str, Any], folder: Path, config: DataConfig) -> None:
    counts = [(meta[part]["tokens"], meta[part]["documents"]) for part in PARTS]
    train, held_out = (f"{tokens:,} tokens of {n:,} document{'s' * (n != 1)}" for tokens, n in counts)
    display.console.print(f"{train} for training, {held_out} held out", soft_wrap=True)
    files = [f"data.{n}={v}" for n in ("vocab_file", "merges_file") if (v := getattr(config.absolute(), n))]
    command = ["cl-bench", "sweep", "data=nanogpt", f"data.path={folder}", *files]
    display.console.print(f"train  {shlex.join(command)}", soft_wrap=True, highlight=False)

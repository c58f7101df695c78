"""`cl-bench prepare`: texts of any size -> a folder of tokens to train on with data=nanogpt."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cl_bench.config import DataConfig, schema
from cl_bench.config.schema import ConfigError
from cl_bench.data import encode, text
from cl_bench.data.chunking import PARTS, Stretch
from cl_bench.errors import UserError
from cl_bench.launch import display

_ROWS = (".jsonl", ".ndjson")


def prepare(argv: Sequence[str]) -> int:
    """`cl-bench prepare`: encode texts into a folder; the same command goes on with what was interrupted."""
    args = _parser().parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: must be 1 or more")
    try:
        return _prepare(args)
    except ConfigError as error:
        raise ConfigError(_as_typed(str(error))) from None


def _prepare(args: argparse.Namespace) -> int:
    config = schema.build(
        DataConfig,
        {
            "source": "text",
            "path": args.path[0],
            "tokenizer": args.tokenizer,
            "vocab_file": args.vocab_file,
            "merges_file": args.merges_file,
            "validation_fraction": args.validation_fraction,
        },
    )
    job = encode.EncodingJob(stretches_of(config, args.path), config, key=args.key)
    folder = Path(args.out).expanduser().absolute()
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
        workers = args.workers or encode.workers_for(job.n_bytes)
        try:
            meta = encode.run(job, folder, workers, lambda done, _: bar.update(task, completed=done))
        except KeyboardInterrupt:
            raise UserError("interrupted; the same command goes on where it was") from None
    _say(meta, folder, config)
    return 0


def _as_typed(message: str) -> str:
    """A message about keys of the configuration, under the names of this command's options."""
    message = re.sub(r"\bdata\.path = ", "", message)
    names = "tokenizer|vocab_file|merges_file|validation_fraction"
    return re.sub(
        rf"(?:\bdata\.|^)({names})\b( = |=)?",
        lambda m: f"--{m[1].replace('_', '-')}" + (" " if m[2] else ""),
        message,
    )


def stretches_of(config: DataConfig, paths: Sequence[str]) -> tuple[Stretch, ...]:
    """What to encode: whole text files, or the end of the largest one, are held out; of rows, by their hash.

    Raises ConfigError for paths that hold no text.
    """
    configs = [DataConfig(source="text", path=path) for path in paths]
    by_path = {d.path: d for source in configs for d in text.find_documents(source) if d.n_bytes}
    if not by_path:
        raise ConfigError(f"{' '.join(paths)}: empty; give files with text in them")
    rows = [d for d in by_path.values() if d.path.suffix in _ROWS]
    documents = [d for d in by_path.values() if d.path.suffix not in _ROWS]
    stretches = [Stretch(d.path, d.n_bytes, 0, d.n_bytes, "train", is_rows=True) for d in rows]
    return tuple(stretches) + (encode.text_stretches(text.split(config, documents)) if documents else ())


def _say(meta: dict[str, Any], folder: Path, config: DataConfig) -> None:
    counts = [(meta[part]["tokens"], meta[part]["documents"]) for part in PARTS]
    words = [f"{n:,} tokens of {documents:,} document{'s' * (documents != 1)}" for n, documents in counts]
    display.console.print(f"{words[0]} to train on, {words[1]} held out", soft_wrap=True)
    files = [f"data.{n}={v}" for n in ("vocab_file", "merges_file") if (v := getattr(config.absolute(), n))]
    command = ["python", "-m", "cl_bench.sweep", "data=nanogpt", f"data.path={folder}", *files]
    display.console.print(f"train  {shlex.join(command)}", soft_wrap=True, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cl-bench prepare",
        description="Encode texts of any size into tokens on disk. A .jsonl file holds one document a line; any other "
        "is one document. Interrupted, even by kill -9, the same command goes on where it was.",
    )
    parser.add_argument("path", nargs="+", help="UTF-8 files, folders (every file below them) or quoted globs")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where train.bin, val.bin and meta.json go")
    parser.add_argument("--tokenizer", choices=("gpt2", "bytes"), default="gpt2", help="default: gpt2")
    parser.add_argument("--vocab-file", metavar="FILE", help="gpt2: vocab.json (encoder.json)")
    parser.add_argument("--merges-file", metavar="FILE", help="gpt2: merges.txt (vocab.bpe)")
    parser.add_argument("--key", default="text", help="under which key a row has its text (default: text)")
    fraction = DataConfig.__dataclass_fields__["validation_fraction"].default
    parser.add_argument(
        "--validation-fraction", type=float, default=fraction, help=f"share held out (default: {fraction})"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    return parser

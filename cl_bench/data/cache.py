"""Cache of tokenised text corpora: `outputs/data/<fingerprint>`, recreated if it is missing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import bin_files, chunking, encode, text
from cl_bench.data.text import Document, Progress, TextCorpus
from cl_bench.runs import paths

_CHUNK = 1 << 22


def prepare(corpus: TextCorpus, outputs: str | Path, progress: Progress | None = None) -> Path:
    """Write the corpus's tokens to `outputs/data/<fingerprint>` unless they exist. Returns the folder.

    Atomic: files are written to a temporary folder, which is renamed; of two processes that prepare the same corpus at
    once, one uses the other's folder.
    """
    folder = paths.data_cache(outputs) / corpus.fingerprint
    if _is_whole(folder):
        return folder
    if corpus.config.tokenizer != "bytes":
        return _encode(corpus, folder, progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{corpus.fingerprint}.", dir=folder.parent))
    try:
        total = corpus.n_train + corpus.n_validation
        with (aside / "train.bin").open("wb") as train, (aside / "validation.bin").open("wb") as validation:
            done = 0
            for documents, file in ((corpus.train, train), (corpus.validation, validation)):
                for document in documents:
                    cut = document == corpus.tail
                    head = document.n_bytes - corpus.tail_bytes
                    done = _copy(document, file, validation if cut else None, head, done, total, progress)
            for file in (train, validation):
                file.flush()
                os.fsync(file.fileno())
        meta = {
            "vocab_size": corpus.vocab_size,
            "dtype": "uint8",
            "train": {"tokens": corpus.n_train, "documents": [d.name for d in corpus.train]},
            "validation": {"tokens": corpus.n_validation, "documents": [d.name for d in corpus.validation]},
        }
        paths.write_atomic(aside / bin_files.META, json.dumps(meta, indent=1))
        aside.chmod(0o755)
        with contextlib.suppress(OSError):  # the folder exists: another process was first, with the same bytes
            if folder.exists() and not _is_whole(folder):  # or its files are missing or cut short
                shutil.rmtree(folder)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if not (folder / bin_files.META).exists():
        raise ConfigError(
            f"{folder}: cannot be written; is the disk full or {folder} left over? delete it and try again"
        )
    return folder


def _encode(corpus: TextCorpus, folder: Path, progress: Progress | None) -> Path:
    """Encode a corpus into `folder`, going on with what an interrupted attempt left."""
    if folder.exists() and not _is_whole(folder):  # its files are missing or cut short
        shutil.rmtree(folder)
    names = (f"{chunking.PARTS[0]}.bin", f"{chunking.PARTS[1]}.bin")
    job = encode.EncodingJob(encode.text_stretches(corpus), corpus.config, names, identity=corpus.fingerprint)
    encode.run(job, folder, encode.workers_for(job.n_bytes), progress)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a prepared folder holds as many tokens as its meta.json states."""
    try:
        meta = bin_files.read_meta(folder)
        itemsize = np.dtype(meta["dtype"]).itemsize
        return all((folder / f"{p}.bin").stat().st_size == meta[p]["tokens"] * itemsize for p in chunking.PARTS)
    except (ConfigError, OSError, KeyError, TypeError):
        return False


def ensure(config: DataConfig, outputs: str | Path) -> Path:
    """The folder of a planned run's tokens, recreated from the text if it is missing or damaged.

    Raises ConfigError if the text has changed since the run was planned.
    """
    folder = paths.data_cache(outputs) / str(config.fingerprint)
    if _is_whole(folder):
        return folder
    corpus = text.inspect(config)
    if corpus.fingerprint != config.fingerprint:
        raise ConfigError(
            f"the text of data={config.source} changed since the run was planned (fingerprint {corpus.fingerprint}, "
            f"planned {config.fingerprint}); launch the sweep again"
        )
    return prepare(corpus, outputs)


def _copy(
    document: Document,
    file: IO[bytes],
    rest: IO[bytes] | None,
    head: int,
    done: int,
    total: int,
    progress: Progress | None,
) -> int:
    """Copy the first `head` bytes of a document to `file` and the others to `rest`."""
    with document.path.open("rb") as source:
        position = 0
        while chunk := source.read(_CHUNK):
            cut = max(0, head - position) if rest else len(chunk)
            file.write(chunk[:cut])
            if rest:
                rest.write(chunk[cut:])
            position += len(chunk)
            if progress:
                progress(done + position, total)
    if position != document.n_bytes:
        raise ConfigError(f"{document.path}: changed while it was read; try again")
    return done + position

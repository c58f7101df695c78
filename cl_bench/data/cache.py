"""Cache of tokenised text corpora: `outputs/data/<fingerprint>`, recreated if it is missing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import bin_files, chunking, encode, text
from cl_bench.data.chunking import Stretch
from cl_bench.data.text import Progress, TextCorpus
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
    staging = Path(tempfile.mkdtemp(prefix=f".{corpus.fingerprint}.", dir=folder.parent))
    try:
        total, done = corpus.n_train + corpus.n_validation, 0
        with (staging / "train.bin").open("wb") as train, (staging / "validation.bin").open("wb") as validation:
            for stretch in encode.text_stretches(corpus):
                for n_bytes in _copy(stretch, train if stretch.part == "train" else validation):
                    done += n_bytes
                    if progress:
                        progress(done, total)
            for file in (train, validation):
                file.flush()
                os.fsync(file.fileno())
        meta = {
            "vocab_size": corpus.vocab_size,
            "dtype": "uint8",
            "train": {"tokens": corpus.n_train, "documents": [d.name for d in corpus.train]},
            "validation": {"tokens": corpus.n_validation, "documents": [d.name for d in corpus.validation]},
        }
        paths.write_atomic(staging / bin_files.META, json.dumps(meta, indent=1))
        staging.chmod(0o755)
        with contextlib.suppress(OSError):  # the folder exists: another process was first, with the same bytes
            if folder.exists() and not _is_whole(folder):  # or its files are missing or cut short
                shutil.rmtree(folder)
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not (folder / bin_files.META).exists():
        raise ConfigError(
            f"{folder}: cannot be written; is the disk full, or the folder a leftover? delete it and try again"
        )
    return folder


def _encode(corpus: TextCorpus, folder: Path, progress: Progress | None) -> Path:
    """Encode a corpus into `folder`, resuming an interrupted attempt."""
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


def changed(config: DataConfig, what: str, fingerprint: str) -> ConfigError:
    """The error for data whose `fingerprint` is not the planned one."""
    return ConfigError(
        f"the {what} of data={config.source} changed since the run was planned (fingerprint {fingerprint}, planned "
        f"{config.fingerprint}); launch the sweep again"
    )


def ensure(config: DataConfig, outputs: str | Path) -> Path:
    """The folder of a planned run's tokens, recreated from the text if it is missing or damaged.

    Raises ConfigError if the text has changed since the run was planned.
    """
    folder = paths.data_cache(outputs) / str(config.fingerprint)
    if _is_whole(folder):
        return folder
    corpus = text.inspect(config)
    if corpus.fingerprint != config.fingerprint:
        raise changed(config, "text", corpus.fingerprint)
    return prepare(corpus, outputs)


def _copy(stretch: Stretch, file: IO[bytes]) -> Iterator[int]:
    """Copy a stretch of text to `file`; yields the number of bytes after each piece."""
    with stretch.path.open("rb") as source:
        source.seek(stretch.begin)
        left = stretch.end - stretch.begin
        while left and (chunk := source.read(min(_CHUNK, left))):
            file.write(chunk)
            left -= len(chunk)
            yield len(chunk)
        if left or os.fstat(source.fileno()).st_size != stretch.size:
            raise ConfigError(f"{stretch.path}: changed while it was read; try again")

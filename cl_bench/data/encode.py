"""Resumable encoding of text files to token files, in parallel and in constant memory.

Worker processes encode pieces. The parent writes their tokens in the order of the text, so that the files are the same
for any number of workers, and keeps a journal of the pieces that are durable. A resumed job truncates the files to the
journal's last entry and continues there.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, Any

import numpy as np

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import chunking, tokenizer
from cl_bench.data.bin_files import META
from cl_bench.data.chunking import PARTS, Encoded, Part, Stretch
from cl_bench.data.text import Progress, Split
from cl_bench.errors import UserError
from cl_bench.runs import lock, paths

PIECE_BYTES = 1 << 22
_SYNC_S = 2.0
"""Seconds between entries of the journal: the most work that a kill can lose."""
_JOURNAL = "journal.json"
_WATCH_S = 1.0


@dataclasses.dataclass(frozen=True)
class EncodingJob:
    """Text to encode, with the settings."""

    stretches: tuple[Stretch, ...]
    config: DataConfig
    """Source of the tokenizer, and of validation_fraction for rows."""
    files: tuple[str, str] = ("train.bin", "val.bin")
    """Names of the two parts' files."""
    key: str = "text"
    """Key of the text in a row."""
    piece_bytes: int = PIECE_BYTES
    identity: str | None = None
    """Identifies text and settings; None: computed from names, sizes and times of the files."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all text."""
        return sum(s.end - s.begin for s in self.stretches)

    def rules(self) -> chunking.Rules:
        """Settings of the encoding besides the tokenizer."""
        dtype = str(np.min_scalar_type(tokenizer.from_config(self.config).vocab_size - 1).newbyteorder("<").name)
        return chunking.Rules(dtype, self.key, self.config.validation_fraction)

    def pieces(self) -> Iterator[tuple[Stretch, bool]]:
        """Every piece, and whether its stretch ends with it."""
        for stretch in self.stretches:
            for piece in stretch.pieces(self.piece_bytes):
                yield piece, piece.end == stretch.end

    def digest(self) -> str:
        """Identifies the job, so that it is not resumed after the text has changed."""
        if self.identity:
            return self.identity
        digest = hashlib.sha256()
        for s in self.stretches:
            mtime = s.path.stat().st_mtime_ns
            settings = [str(s.path.absolute()), s.size, mtime, s.begin, s.end, s.part, s.is_rows]
            digest.update(json.dumps(settings).encode())
        fraction = self.config.validation_fraction
        rules = [tokenizer.fingerprint(self.config), self.key, fraction, self.piece_bytes, self.files]
        digest.update(json.dumps(rules).encode())
        return digest.hexdigest()[:16]


def text_stretches(split: Split) -> tuple[Stretch, ...]:
    """The stretches of a text corpus, in the order of its documents."""
    stretches = []
    for part, documents in zip(PARTS, (split.train, split.validation), strict=True):
        for document in documents:
            stretch = Stretch(document.path, document.n_bytes, 0, document.n_bytes, part, is_rows=False)
            if document == split.tail:
                head = document.n_bytes - split.tail_bytes
                stretches.append(dataclasses.replace(stretch, end=head))
                stretch = dataclasses.replace(stretch, begin=head, part="validation")
            stretches.append(stretch)
    return tuple(stretches)


def workers_for(n_bytes: int) -> int:
    """Number of processes for `n_bytes` of text: one per core, or just one if that takes a few seconds."""
    return len(os.sched_getaffinity(0)) if n_bytes > 16 * PIECE_BYTES else 1


def run(job: EncodingJob, folder: Path, workers: int, progress: Progress | None = None) -> dict[str, Any]:
    """Encode a job into `folder`, which appears once it is complete. Returns its meta.json.

    Waits for another process that runs the same job. Raises ConfigError for text that cannot be encoded, an empty part,
    and a complete or partial folder of another job; UserError for a killed worker and a full disk.
    """
    aside = folder.with_name(f".{folder.name}.part")
    with lock.alone(folder.with_name(f".{folder.name}.lock")):
        digest = job.digest()
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            if not (folder / META).is_file():
                raise ConfigError(f"{folder}: exists but holds no tokens; choose another folder")
            return _same(folder, digest, "holds other tokens; delete it, or choose another folder")
        aside.mkdir(parents=True, exist_ok=True)
        if not (aside / META).exists():
            if (aside / _JOURNAL).exists():
                problem = f"is a partial result of another job; delete it (`rm -r {aside}`) to begin anew"
                _same(aside, digest, problem, _JOURNAL)
            try:
                _write(job, aside, digest, workers, progress)
            except OSError as error:
                if error.filename is not None and not Path(error.filename).is_relative_to(aside):
                    raise  # a text file that was removed
                raise UserError(
                    f"{aside}: cannot be written ({error.strerror}); free some space; the same command resumes the work"
                ) from None
        meta = _same(aside, digest, f"holds other tokens; delete it (`rm -r {aside}`) to begin anew")
        (aside / _JOURNAL).unlink(missing_ok=True)
        aside.rename(folder)
        return meta


def _same(folder: Path, digest: str, problem: str, file: str = META) -> dict[str, Any]:
    """A folder's meta.json or journal. Raises ConfigError if it belongs to another job."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads((folder / file).read_text())
        if content.get("job") == digest:
            return content
    raise ConfigError(f"{folder}: {problem}")


@dataclasses.dataclass
class _Journal:
    """Progress of a job: the durable pieces, and the bytes and documents of each part."""

    job: str
    pieces: int = 0
    n_bytes: dict[Part, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    documents: dict[Part, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0))


def _write(job: EncodingJob, aside: Path, digest: str, workers: int, progress: Progress | None) -> None:
    """Encode the pieces after the journal's last entry, then write the meta.json."""
    state = _Journal(digest)
    with contextlib.suppress(FileNotFoundError):
        state = _Journal(**json.loads((aside / _JOURNAL).read_text()))
    rules, total = job.rules(), job.n_bytes
    names = dict(zip(PARTS, job.files, strict=True))
    with contextlib.ExitStack() as opened:
        files = {part: opened.enter_context((aside / names[part]).open("ab")) for part in PARTS}
        for part, file in files.items():
            file.truncate(state.n_bytes[part])
        todo = itertools.islice(job.pieces(), state.pieces, None)
        done = sum(p.end - p.begin for p, _ in itertools.islice(job.pieces(), state.pieces))
        synced = time.monotonic()
        results = opened.enter_context(contextlib.closing(_encode(job, rules, todo, workers)))
        for piece, encoded in results:
            for part, file in files.items():
                file.write(encoded.ids[part])
                state.n_bytes[part] += len(encoded.ids[part])
                state.documents[part] += encoded.documents[part]
            state.pieces += 1
            done += piece.end - piece.begin
            if progress:
                progress(done, total)
            if time.monotonic() - synced > _SYNC_S:
                _sync(files, aside, state)
                synced = time.monotonic()
        _sync(files, aside, state)
    itemsize = np.dtype(rules.dtype).itemsize
    counts = {p: {"tokens": state.n_bytes[p] // itemsize, "documents": state.documents[p]} for p in PARTS}
    for part in PARTS:
        if not counts[part]["tokens"]:
            shutil.rmtree(aside)
            raise ConfigError(
                f"no {'training' if part == 'train' else part} text among {sum(state.documents.values())} documents "
                f"with a held-out share of {job.config.validation_fraction:g}; change the share, or give more text"
            )
    encoding = tokenizer.from_config(job.config)
    meta = {"vocab_size": encoding.vocab_size, "dtype": rules.dtype, "tokenizer": encoding.name, "eot": encoding.eot}
    paths.write_atomic(aside / META, json.dumps({**meta, **counts, "job": digest}, indent=1))


def _sync(files: Mapping[Part, IO[bytes]], aside: Path, state: _Journal) -> None:
    """Make the tokens durable, then the journal that refers to them."""
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
    paths.write_atomic(aside / _JOURNAL, json.dumps(dataclasses.asdict(state)))


def _encode(
    job: EncodingJob, rules: chunking.Rules, todo: Iterator[tuple[Stretch, bool]], workers: int
) -> Generator[tuple[Stretch, Encoded], None, None]:
    """Every piece with its tokens, in order; at most two per worker are in progress."""
    if workers == 1:
        encoding = tokenizer.from_config(job.config)
        for piece, last in todo:
            yield piece, chunking.encode(piece, last, encoding, rules)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks held by other threads
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(job.config, rules, os.getpid()))
    pending: collections.deque[tuple[Stretch, Future[Encoded]]] = collections.deque()
    try:
        for piece, last in todo:
            pending.append((piece, pool.submit(_encode_in_worker, piece, last)))
            if len(pending) >= 2 * workers:
                first, result = pending.popleft()
                yield first, result.result()
        while pending:
            first, result = pending.popleft()
            yield first, result.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that encodes text was killed (out of memory?); the same command resumes the work; --workers N "
            "sets fewer processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_worker_settings: tuple[tokenizer.Tokenizer, chunking.Rules] | None = None


def _begin(config: DataConfig, rules: chunking.Rules, parent: int) -> None:
    """Set up a worker, which ignores Ctrl-C and exits when its parent does, even if that is killed."""
    global _worker_settings
    _worker_settings = tokenizer.from_config(config), rules
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _encode_in_worker(piece: Stretch, last: bool) -> Encoded:
    assert _worker_settings
    return chunking.encode(piece, last, *_worker_settings)

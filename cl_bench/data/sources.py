"""Data of a run, from any source: checked at planning, tokenised if it is text, opened for training.

Text is read and hashed completely before its tokens are written to `outputs/data/<fingerprint>`. Token files stay in
place and are never read completely: they are identified by names, sizes, headers, indices and sampled pages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import bin_files, cache, megatron, spans, text
from cl_bench.data.spans import Dataset, Mixture
from cl_bench.data.text import Progress, TextCorpus

_GPT2_VOCABULARY = 50257


@dataclasses.dataclass(frozen=True)
class TokenFiles:
    """Checked token files."""

    config: DataConfig
    mixture: Mixture
    fingerprint: str

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self.mixture.vocab_size

    def describe(self) -> str:
        """Source and sizes."""
        train, validation = (
            sum(getattr(d, part) for d in self.mixture.datasets) for part in ("n_train", "n_validation")
        )
        return f"{self.config.label()}: {train:,} tokens to train on, {validation:,} held out"


@dataclasses.dataclass(frozen=True)
class AssumedData:
    """Stand-in for missing data in a dry run: the vocabulary is assumed, length and ids are unchecked."""

    config: DataConfig
    fingerprint: str = "not given"

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, as assumed."""
        in_bytes = self.config.is_text and self.config.tokenizer == "bytes"
        return 256 if in_bytes else self.config.vocab_size or _GPT2_VOCABULARY

    def describe(self) -> str:
        """A note in place of source and sizes."""
        return f"data={self.config.source} is not given (data.path): planned without it, its length and ids unchecked"


Corpus = TextCorpus | TokenFiles


def inspect(config: DataConfig, progress: Progress | None = None) -> Corpus:
    """Find, check and identify the data. Reads text completely, and the index and a sample of token files.

    Raises ConfigError for data that cannot be trained on.
    """
    return text.inspect(config, progress) if config.is_text else _inspect_files(config)


def _inspect_files(config: DataConfig) -> TokenFiles:
    digest = hashlib.sha256(json.dumps([config.source]).encode())
    if config.source == "megatron":
        weighted = _weighted_prefixes(config)
        total = sum(weight for _, weight in weighted)
        digest.update(json.dumps([[round(weight / total, 12) for _, weight in weighted], config.split]).encode())
        for prefix, _ in weighted:
            digest.update(megatron.fingerprint(megatron.read_index(prefix)))
    mixture = _token_files(config)
    for dataset in mixture.datasets:
        for part in (dataset.train, dataset.validation):
            digest.update(spans.sample(part, mixture.vocab_size))
    return TokenFiles(config, mixture, digest.hexdigest()[:16])


def _weighted_prefixes(config: DataConfig) -> list[tuple[Path, float]]:
    """Prefix and weight of each Megatron dataset of positive weight."""
    weights = zip(config.paths, config.weights, strict=True) if config.paths else [(str(config.path), 1.0)]
    return [(megatron.prefix_of(path), weight) for path, weight in weights if weight > 0]


def _token_files(config: DataConfig) -> Mixture:
    """The mixture of a source of token files. Raises ConfigError for missing files and other formats."""
    vocab_size = config.vocab_size or _GPT2_VOCABULARY
    if config.source == "megatron":
        weighted = _weighted_prefixes(config)
        datasets = tuple(megatron.dataset(prefix, config.split) for prefix, _ in weighted)
        return Mixture(datasets, tuple(weight for _, weight in weighted), vocab_size)
    if config.source == "llmc":
        return Mixture((bin_files.llmc(str(config.path)),), (1.0,), vocab_size)
    dataset = bin_files.nanogpt(str(config.path))
    prepared_size = bin_files.read_meta(Path(str(config.path)).expanduser()).get("vocab_size")
    return Mixture((dataset,), (1.0,), config.vocab_size or prepared_size or vocab_size)


def check_length(corpus: Corpus | Mixture, seqlen: int) -> None:
    """Raise ConfigError unless training and validation data hold at least one block of `seqlen` + 1 tokens each."""
    if isinstance(corpus, TextCorpus):
        parts = [("text", corpus.n_train, corpus.n_validation)]
    else:
        datasets = corpus.datasets if isinstance(corpus, Mixture) else corpus.mixture.datasets
        parts = [(f"part of {d.name}", max(s.n for s in d.train), max(s.n for s in d.validation)) for d in datasets]
    for what, train, validation in parts:
        for part, n in (("training", train), ("validation", validation)):
            if n < seqlen + 1:
                raise ConfigError(
                    f"the {part} {what} holds {n} tokens, less than one block of max_seqlen + 1 = {seqlen + 1}; give "
                    "more data, shorten max_seqlen or change the share that is held out"
                )


def mixture(config: DataConfig, outputs: str | Path, *, verify: bool = True) -> Mixture:
    """The data of a planned run; text is tokenised again if its tokens are missing.

    `verify` reads the sample of token files again; one process per run is enough. Raises ConfigError if the data has
    changed since the run was planned.
    """
    if config.is_text:
        return _open(cache.ensure(config, outputs), config)
    if not verify:
        return _token_files(config)
    files = _inspect_files(config)
    if files.fingerprint != config.fingerprint:
        raise cache.changed(config, "tokens", files.fingerprint)
    return files.mixture


def _open(folder: Path, config: DataConfig) -> Mixture:
    """The tokens in a prepared folder."""
    meta = bin_files.read_meta(folder)
    parts = [spans.whole_file(folder / f"{part}.bin", meta["dtype"]) for part in ("train", "validation")]
    return Mixture((Dataset(config.label(), (parts[0],), (parts[1],)),), (1.0,), meta["vocab_size"])

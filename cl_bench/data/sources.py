"""A run's data, whatever its source: checked when it is planned, tokenised if it is text, opened when it trains.

Text is read whole and hashed before its tokens are written to `outputs/data/<fingerprint>`. Files of tokens stay where
they are and are never read whole: what identifies them are names, sizes, headers, indices and sampled pages.
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
from cl_bench.data.text import Progress, Text

_GPT2_VOCABULARY = 50257


@dataclasses.dataclass(frozen=True)
class TokenFiles:
    """Checked files of tokens."""

    config: DataConfig
    mixture: Mixture
    fingerprint: str

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self.mixture.vocab_size

    def in_words(self) -> str:
        """Source and sizes."""
        train, validation = (
            sum(getattr(d, part) for d in self.mixture.datasets) for part in ("n_train", "n_validation")
        )
        return f"{self.config.label()}: {train:,} tokens to train on, {validation:,} held out"


@dataclasses.dataclass(frozen=True)
class NotGiven:
    """Data that a plan is made without: its vocabulary is assumed, and nothing of it is checked."""

    config: DataConfig
    fingerprint: str = "not given"

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, as far as it is known."""
        in_bytes = self.config.is_text and self.config.tokenizer == "bytes"
        return 256 if in_bytes else self.config.vocab_size or _GPT2_VOCABULARY

    def in_words(self) -> str:
        """What stands in for source and sizes."""
        return f"data={self.config.source} is not given (data.path): planned without it, its length and ids unchecked"


Corpus = Text | TokenFiles


def inspect(config: DataConfig, progress: Progress | None = None) -> Corpus:
    """Find, check and identify the data. Reads all of a text, and of files of tokens the index and a sample.

    Raises ConfigError for whatever cannot be trained on.
    """
    return text.inspect(config, progress) if config.is_text else _inspect_files(config)


def _inspect_files(config: DataConfig) -> TokenFiles:
    digest = hashlib.sha256(json.dumps([config.source]).encode())
    if config.source == "megatron":
        blend = _blend(config)
        total = sum(weight for _, weight in blend)
        digest.update(json.dumps([[round(weight / total, 12) for _, weight in blend], config.split]).encode())
        for prefix, _ in blend:
            digest.update(megatron.fingerprint(megatron.read_index(prefix)))
    mixture = _files(config)
    for dataset in mixture.datasets:
        for part in (dataset.train, dataset.validation):
            digest.update(spans.sample(part, mixture.vocab_size))
    return TokenFiles(config, mixture, digest.hexdigest()[:16])


def _blend(config: DataConfig) -> list[tuple[Path, float]]:
    """Prefix and weight of each of Megatron's datasets that gives any samples."""
    named = zip(config.paths, config.weights, strict=True) if config.paths else [(str(config.path), 1.0)]
    return [(megatron.prefix_of(path), weight) for path, weight in named if weight > 0]


def _files(config: DataConfig) -> Mixture:
    """Where the tokens of a source of files lie. Raises ConfigError for files that are missing or of another form."""
    vocab_size = config.vocab_size or _GPT2_VOCABULARY
    if config.source == "megatron":
        blend = _blend(config)
        datasets = tuple(megatron.dataset(prefix, config.split) for prefix, _ in blend)
        return Mixture(datasets, tuple(weight for _, weight in blend), vocab_size)
    if config.source == "llmc":
        return Mixture((bin_files.llmc(str(config.path)),), (1.0,), vocab_size)
    dataset = bin_files.nanogpt(str(config.path))
    noted = bin_files.read_meta(Path(str(config.path)).expanduser()).get("vocab_size")
    return Mixture((dataset,), (1.0,), config.vocab_size or noted or vocab_size)


def check_length(corpus: Corpus | Mixture, seqlen: int) -> None:
    """Raise ConfigError when there is not one block of `seqlen` + 1 tokens for training and for validation."""
    if isinstance(corpus, Text):
        parts = [("text", corpus.n_train, corpus.n_validation)]
    else:
        datasets = corpus.datasets if isinstance(corpus, Mixture) else corpus.mixture.datasets
        parts = [(f"part of {d.name}", max(s.n for s in d.train), max(s.n for s in d.validation)) for d in datasets]
    for what, train, validation in parts:
        for part, n in (("training", train), ("validation", validation)):
            if n < seqlen + 1:
                raise ConfigError(
                    f"the {part} {what} holds {n} tokens, less than one block of max_seqlen + 1 = {seqlen + 1}; give "
                    "more data, shorten max_seqlen or hold out another share of it"
                )


def mixture(config: DataConfig, outputs: str | Path, *, verify: bool = True) -> Mixture:
    """What a planned run trains on; a text is tokenised again if its tokens are gone.

    `verify` reads the sample of files of tokens again; one process of a run is enough. Raises ConfigError when the
    data is no longer what was planned.
    """
    if config.is_text:
        return _opened(cache.prepared(config, outputs), config)
    if not verify:
        return _files(config)
    files = _inspect_files(config)
    if files.fingerprint != config.fingerprint:
        raise ConfigError(
            f"the tokens of data={config.source} changed since the run was planned (fingerprint {files.fingerprint}, "
            f"planned {config.fingerprint}); launch the sweep again"
        )
    return files.mixture


def _opened(folder: Path, config: DataConfig) -> Mixture:
    """The tokens in a prepared folder."""
    meta = bin_files.read_meta(folder)
    parts = [spans.whole_file(folder / f"{part}.bin", meta["dtype"]) for part in ("train", "validation")]
    return Mixture((Dataset(config.label(), (parts[0],), (parts[1],)),), (1.0,), meta["vocab_size"])

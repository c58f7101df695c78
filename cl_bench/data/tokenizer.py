"""Tokenizers: bytes, or GPT-2's byte-pair encoding from the user's own two files.

Nothing is downloaded. tiktoken encodes, but its loader of these files is not used: it caches a copy by file name in a
temporary folder and would keep using it after the file has changed. It is imported only to build an encoding: it loads
slowly.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError

EOT = "<|endoftext|>"
_SPECIAL = re.compile(r"<.+>|\[.+\]", re.DOTALL)
"""Form of special tokens, which no merge produces and no text is encoded as."""
_PATTERN = r"""(?:'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s++$|\s+(?!\S)|\s"""
"""GPT-2's pattern of words, in which pairs are merged (openai/gpt-2, src/encoder.py), in an equivalent form: the
words, which need no look-ahead, are a group of their own, so that tiktoken's engine (the crate fancy-regex) matches
them by a finite automaton and backtracks over white space only: nearly twice as fast as tiktoken's own pattern."""
_LONG_WHITE = re.compile(r"[\t-\r \x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]{100000,}")
"""White space long enough to exhaust that engine's backtracking stack."""
_GPT2_FILES = "GPT-2's own are vocab.json (encoder.json) and merges.txt (vocab.bpe)"


class Tokenizer(Protocol):
    """A tokenizer as used by training, preparation and evaluation."""

    @property
    def name(self) -> str:
        """Name in messages and prepared folders."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    def eot(self) -> int | None:
        """The id that ends a document; None for a tokenizer without one."""

    def encode(self, text: str) -> np.ndarray:
        """int64 ids (n,); no text is encoded as a special token."""

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids; bytes that are not UTF-8 become U+FFFD. Raises ConfigError for unknown ids."""


class Bytes:
    """Ids are the bytes of the text in UTF-8."""

    name = "bytes"
    vocab_size = 256
    eot: int | None = None

    def encode(self, text: str) -> np.ndarray:
        """int64 ids (n,), one per byte."""
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64)

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids. Raises ConfigError for ids beyond 255."""
        array = _valid_ids(ids, self.vocab_size, self.name)
        return array.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class GPT2:
    """GPT-2's byte-pair encoding, or another of the same form: 256 bytes, ordered merges and special tokens."""

    name = "gpt2"

    def __init__(self, vocab_file: Path, merges_file: Path) -> None:
        import tiktoken

        vocab = _read_vocab(vocab_file)
        ranks = _ranks(vocab, vocab_file, merges_file)
        mergeable = set(ranks.values())
        special = {token: number for token, number in vocab.items() if number not in mergeable}
        if EOT not in special:
            raise ConfigError(f"data.vocab_file = {vocab_file}: has no {EOT}, which ends a document; {_GPT2_FILES}")
        unmerged = [token for token in special if not _SPECIAL.fullmatch(token)]
        if unmerged:
            raise ConfigError(
                f"data.merges_file = {merges_file}: no line produces {unmerged[0]!r}, one of {len(unmerged):,} such "
                f"tokens of data.vocab_file = {vocab_file}; it is cut short, or the two files belong to different "
                "encodings"
            )
        self.vocab_size = max(vocab.values()) + 1
        self.eot: int | None = special[EOT]
        pairs = sorted((number, token.hex()) for token, number in ranks.items())
        self.fingerprint = hashlib.sha256(json.dumps([pairs, special], sort_keys=True).encode()).hexdigest()
        """Identifies the encoding, independent of the layout of its files."""
        self._encoding = tiktoken.Encoding(self.name, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=special)

    def encode(self, text: str) -> np.ndarray:
        """int64 ids (n,); '<|endoftext|>' in a text is encoded as ordinary characters."""
        try:
            return self._ids(text)
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold and UTF-8 cannot
            return self.encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        except ValueError:
            # The last character of white space belongs to the next word, so cuts before it change no token.
            ends = (match.end() for match in _LONG_WHITE.finditer(text))
            cuts = [0, *(end - 1 for end in ends if end < len(text)), len(text)]
            return np.concatenate([self._ids(text[a:b]) for a, b in itertools.pairwise(cuts)])

    def _ids(self, text: str) -> np.ndarray:
        ids: np.ndarray = self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.int64)
        return ids

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids. Raises ConfigError for ids beyond the vocabulary."""
        return self._encoding.decode(_valid_ids(ids, self.vocab_size, self.name).tolist())


def from_config(config: DataConfig) -> Tokenizer:
    """The tokenizer of a data configuration.

    Raises ConfigError for missing or invalid files of an encoding, and for token files without data.vocab_file and
    data.merges_file.
    """
    if config.is_text and config.tokenizer == "bytes":
        return Bytes()
    if config.vocab_file is None or config.merges_file is None:
        raise ConfigError(
            f"data.source = {config.source} holds token ids of an unknown tokenizer; give data.vocab_file="
            f"vocab.json and data.merges_file=merges.txt ({_GPT2_FILES}) to read or write text with it"
        )
    return gpt2(config.vocab_file, config.merges_file)


def fingerprint(config: DataConfig) -> str:
    """Identifies the tokenizer of a text source. Raises ConfigError like `from_config`."""
    encoding = from_config(config)
    return encoding.fingerprint if isinstance(encoding, GPT2) else encoding.name


def gpt2(vocab_file: str, merges_file: str) -> GPT2:
    """GPT-2's encoding from its two files, cached until they change. Raises ConfigError."""
    paths = (Path(vocab_file).expanduser().absolute(), Path(merges_file).expanduser().absolute())
    return _cached(*paths, *(path.stat().st_mtime_ns if path.exists() else 0 for path in paths))


@functools.lru_cache(maxsize=4)
def _cached(vocab_file: Path, merges_file: Path, *_: int) -> GPT2:
    return GPT2(vocab_file, merges_file)


def _ranks(vocab: dict[str, int], vocab_file: Path, merges_file: Path) -> dict[bytes, int]:
    """Bytes of a token -> its id, for the single bytes and the merges.

    tiktoken merges in the order of ids, so the merges must be in that order.
    """
    bytes_of = byte_of_character()
    ranks = {bytes([b]): vocab[c] for c, b in bytes_of.items() if c in vocab}
    if len(ranks) != len(bytes_of):
        raise ConfigError(
            f"data.vocab_file = {vocab_file}: holds {len(ranks)} of the 256 single bytes; not a byte-level BPE "
            f"vocabulary ({_GPT2_FILES})"
        )
    last = max(ranks.values())
    for number, line in enumerate(_read(merges_file).split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split()
        if len(pair) != 2:
            raise ConfigError(f"data.merges_file = {merges_file}: line {number} is not a pair of tokens; {_GPT2_FILES}")
        merged = vocab.get("".join(pair))
        if merged is None or not all(p in vocab for p in pair):
            raise ConfigError(
                f"data.merges_file = {merges_file}: line {number} merges {' '.join(pair)!r}, missing "
                f"from data.vocab_file = {vocab_file}; the two files belong to different encodings"
            )
        if merged <= last:
            raise ConfigError(
                f"data.merges_file = {merges_file}: line {number} produces id {merged}, not above {last}, the id of "
                f"an earlier merge; {_GPT2_FILES}"
            )
        last = merged
        ranks[bytes(bytes_of[c] for c in "".join(pair))] = merged
    if len(ranks) == len(bytes_of):
        raise ConfigError(f"data.merges_file = {merges_file}: holds no merges; {_GPT2_FILES}")
    return ranks


def _read_vocab(file: Path) -> dict[str, int]:
    try:
        vocab = json.loads(_read(file))
    except ValueError as error:
        raise ConfigError(f"data.vocab_file = {file}: not JSON ({error}); {_GPT2_FILES}") from None
    if not isinstance(vocab, dict) or not vocab or not all(type(v) is int and v >= 0 for v in vocab.values()):
        raise ConfigError(f"data.vocab_file = {file}: not an object of tokens and their ids; {_GPT2_FILES}")
    if len(set(vocab.values())) != len(vocab):
        raise ConfigError(f"data.vocab_file = {file}: two tokens share an id; {_GPT2_FILES}")
    return vocab


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); {_GPT2_FILES}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text; {_GPT2_FILES}") from None


def byte_of_character() -> dict[str, int]:
    """GPT-2's printable character of each byte: the byte's own if it is printable, else the next from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


def _valid_ids(ids: Any, vocab_size: int, name: str) -> np.ndarray:
    array = np.asarray(ids).reshape(-1)
    if array.size and not (array.min() >= 0 and array.max() < vocab_size):
        raise ConfigError(f"ids from {array.min()} to {array.max()}: the vocabulary of {name} ends at {vocab_size - 1}")
    return array

"""Pieces of text that can be encoded independently, to the same tokens as the whole.

GPT-2's pattern always ends a word between a character that is not white space and one that is: none of its alternatives
continues from the former to the latter. It looks ahead only after white space, and never behind. So the words on either
side of such a position do not depend on the other side, and a cut there changes no token.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from cl_bench.config.schema import ConfigError
from cl_bench.data.tokenizer import Tokenizer

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")

_SAFE = re.compile(
    rb"(?:[!-~]"  # ASCII; then two, three and four bytes, without the blocks that hold white space (U+0085, U+00A0,
    rb"|[\xc3-\xdf][\x80-\xbf]"  # U+1680, U+2000 … U+205F, U+3000)
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|\xe3\x80[\x81-\xbf]|\xe3[\x81-\xbf][\x80-\xbf]|[\xe4-\xef][\x80-\xbf]{2}"
    rb"|[\xf0-\xf4][\x80-\xbf]{3})(?=[\t\n\r ])"
)
_LONGEST_CHARACTER = 4
_WINDOW = 1 << 16


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive bytes of a file that belong to one part; a text's first and last byte are moved to safe cuts."""

    path: Path
    size: int
    """Bytes of the whole file."""
    begin: int
    end: int
    part: Part
    """Ignored for rows, which are assigned by the hash of their text."""
    is_rows: bool
    """Whether the file holds one JSON object per line, each a document, rather than being one document."""

    def pieces(self, n_bytes: int) -> Iterator[Stretch]:
        """The stretch in pieces of `n_bytes`."""
        for begin in range(self.begin, max(self.end, self.begin + 1), n_bytes):
            yield dataclasses.replace(self, begin=begin, end=min(begin + n_bytes, self.end))


@dataclasses.dataclass
class Encoded:
    """Tokens of one piece."""

    ids: dict[Part, bytes]
    """Little-endian tokens of each part."""
    documents: dict[Part, int]
    """Documents that ended in the piece."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Settings of the encoding besides the tokenizer."""

    dtype: str
    key: str = "text"
    """Key of the text in a row."""
    fraction: float = 0.0
    """Share of the rows that is held out."""


def encode(piece: Stretch, last: bool, tokenizer: Tokenizer, rules: Rules) -> Encoded:
    """Tokens of a piece; `last` if its stretch, and thereby a text document, ends with it.

    Raises ConfigError for text that is not UTF-8 and for rows without text.
    """
    ids: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
    documents = dict.fromkeys(PARTS, 0)
    if piece.is_rows:
        # Bytes have no token for the end of a document; a newline separates the words of two documents.
        end = np.array([tokenizer.eot if tokenizer.eot is not None else ord("\n")])
        for text in _rows(piece, rules.key):
            part = part_of(text, rules.fraction)
            ids[part] += [tokenizer.encode(text), end]
            documents[part] += 1
    else:
        ids[piece.part].append(tokenizer.encode(_text(piece)))
        if last and tokenizer.eot is not None:
            ids[piece.part].append(np.array([tokenizer.eot]))
        documents[piece.part] = int(last)
    encoded = {
        part: np.concatenate(arrays).astype(rules.dtype).tobytes() if arrays else b"" for part, arrays in ids.items()
    }
    return Encoded(encoded, documents)


def part_of(text: str, fraction: float) -> Part:
    """The part of a row, by the hash of its text: independent of its position, and equal for its copies."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "little") < fraction * 2**64 else "train"


def safe_cut(path: Path, position: int, size: int) -> int:
    """The first position from `position` on where a text may be cut; its beginning and end always qualify."""
    if position <= 0 or position >= size:
        return min(max(position, 0), size)
    start = max(0, position - _LONGEST_CHARACTER)
    with path.open("rb") as file:
        file.seek(start)
        window = b""
        while chunk := file.read(_WINDOW):
            window += chunk
            for match in _SAFE.finditer(window):
                if start + match.end() >= position:
                    return start + match.end()
            start += max(0, len(window) - 2 * _LONGEST_CHARACTER)
            window = window[-2 * _LONGEST_CHARACTER :]
    return size


def _text(piece: Stretch) -> str:
    begin = safe_cut(piece.path, piece.begin, piece.size)
    end = safe_cut(piece.path, piece.end, piece.size)
    with piece.path.open("rb") as file:
        file.seek(begin)
        raw = file.read(end - begin)
    if len(raw) != end - begin:
        raise ConfigError(f"{piece.path}: changed while it was read; try again")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(piece.path, begin + error.start, piece.size, error.reason) from None


def not_utf8(path: Path, byte: int, size: int, reason: str) -> ConfigError:
    """The error for a text file that cannot be decoded."""
    return ConfigError(
        f"{path}: not UTF-8 text (byte {byte} of {size}: {reason}); convert it, e.g. `iconv -f LATIN1 -t UTF-8`, or "
        "leave it out"
    )


def _rows(piece: Stretch, key: str) -> Iterator[str]:
    """The texts of the rows whose first byte lies within the piece."""
    with piece.path.open("rb") as file:
        if piece.begin:
            file.seek(piece.begin - 1)
            file.readline()  # the rest of the previous row: just its newline if a row begins here
        while (start := file.tell()) < piece.end:
            line = file.readline()
            if not line.strip():
                if not line:
                    return
                continue
            where = f"{piece.path}: the row at byte {start}"
            try:
                text = json.loads(line)[key]
            except (ValueError, KeyError, TypeError, IndexError) as error:
                problem = f"has no key {key!r}" if isinstance(error, KeyError) else "is not a JSON object in UTF-8"
                raise ConfigError(f"{where} {problem}; correct it, or see --key") from None
            if not isinstance(text, str):
                raise ConfigError(f"{where} has no text under {key!r}; correct it, or see --key")
            yield text

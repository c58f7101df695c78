"""Text in pieces that can be encoded apart, with the same tokens as the whole.

Where a character that is not white space stands before one that is, GPT-2's pattern always ends a word: none of its
alternatives goes on from the former to the latter. And it looks ahead only at what follows white space, never behind.
So the words before such a place and those after it do not depend on the other side, and a cut there changes no token.
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
    """Of rows: ignored, each goes where its text's hash sends it."""
    is_rows: bool
    """Whether the file holds one JSON object a line, each a document, rather than being one document."""

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
    """How text becomes tokens, besides the tokenizer."""

    dtype: str
    key: str = "text"
    """Of rows: under which key the text lies."""
    fraction: float = 0.0
    """Of rows: share of the documents held out."""


def encode(piece: Stretch, last: bool, tokenizer: Tokenizer, rules: Rules) -> Encoded:
    """Tokens of a piece; `last`: whether its stretch, and with it a text document, ends here.

    Raises ConfigError for text that is not UTF-8 and for rows without text.
    """
    encoded = Encoded(dict.fromkeys(PARTS, b""), dict.fromkeys(PARTS, 0))
    if not piece.is_rows:
        ids = [tokenizer.encode(_text(piece))]
        if last and tokenizer.eot is not None:
            ids.append(np.array([tokenizer.eot]))
        encoded.ids[piece.part] = np.concatenate(ids).astype(rules.dtype).tobytes()
        encoded.documents[piece.part] = int(last)
        return encoded
    found: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
    # Bytes have no token for the end of a document; a newline at least keeps two documents' words apart.
    end = np.array([tokenizer.eot if tokenizer.eot is not None else ord("\n")])
    for text in _rows(piece, rules.key):
        part = part_of(text, rules.fraction)
        found[part] += [tokenizer.encode(text), end]
        encoded.documents[part] += 1
    for part, arrays in found.items():
        encoded.ids[part] = np.concatenate(arrays).astype(rules.dtype).tobytes() if arrays else b""
    return encoded


def part_of(text: str, fraction: float) -> Part:
    """Where a row goes, by the hash of its text: wherever it stands, and with all its copies."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "little") < fraction * 2**64 else "train"


def safe_cut(path: Path, position: int, size: int) -> int:
    """The first byte at or after `position` before which a text may be cut; the file's beginning and end always are."""
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
        raise ConfigError(
            f"{piece.path}: not UTF-8 text (byte {begin + error.start} of {piece.size}: {error.reason}); convert it, "
            "e.g. `iconv -f LATIN1 -t UTF-8`, or leave it out"
        ) from None


def _rows(piece: Stretch, key: str) -> Iterator[str]:
    """The texts of the rows whose first byte lies within the piece."""
    with piece.path.open("rb") as file:
        if piece.begin:
            file.seek(piece.begin - 1)
            file.readline()  # the row that began before; just its newline, where one begins here
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
                raise ConfigError(f"{where} {problem}; mend it, or see --key") from None
            if not isinstance(text, str):
                raise ConfigError(f"{where} has no text under {key!r}; mend it, or see --key")
            yield text

"""Tokens of the evaluation files WikiText-103 and LAMBADA, as read by Megatron-LM (tasks/zeroshot_gpt).

The paper reports Megatron-LM's metrics, hence its word count and detokenisation.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from cl_bench.data.tokenizer import Tokenizer
from cl_bench.errors import UserError

# WikiText separates punctuation by spaces and marks hyphens and separators inside a token with @. Order matters.
_WIKITEXT_FIRST = (
    ("s '", "s'"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
)
_WIKITEXT_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'), ("'", "'"))
"""Pairs that lose the spaces just inside them."""
_WIKITEXT_LAST = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)
_WIKITEXT_TITLE = re.compile(r" (= )+.+ (= )+")
# LAMBADA's first release is tokenised as in the Penn Treebank; these rules leave other text unchanged.
_LAMBADA = (
    (re.compile(r"\s+([.,!?;:])(?=\s|$)"), r"\1"),
    (re.compile(r"\s+(n't|'(?:s|re|ve|ll|d|m))(?=\s|$)"), r"\1"),
    (re.compile(r"``\s?"), '"'),
    (re.compile(r"\s?''"), '"'),
)


@dataclasses.dataclass(frozen=True)
class Text:
    """A text to score as a whole."""

    tokens: np.ndarray
    """int64 ids (n,), at least two."""
    words: int
    """Words of the unchanged file as Megatron-LM counts them, at least two."""


@dataclasses.dataclass(frozen=True)
class Passage:
    """A text whose last word is to be predicted."""

    context: np.ndarray
    """int64 ids (n,), at least one."""
    word: np.ndarray
    """int64 ids (m,) of the last word, at least one."""
    line: int
    """Line number in the file, from 1."""


def wikitext(path: Path, tokenizer: Tokenizer) -> Text:
    """WikiText-103's raw file (wiki.test.tokens), detokenised and then tokenised in one piece.

    Words are separated by single spaces, without the file's outer white space. As a space precedes every line end, a
    line end counts as one word, in place of WikiText's <eos>. Raises UserError for another file format.
    """
    raw = _read(path)
    if _is_json(raw):
        raise UserError(f"{path}: JSON lines, not the raw text of WikiText-103 (wiki.test.tokens); give that file")
    words = len(raw.strip().split(" "))
    tokens = tokenizer.encode(detokenise_wikitext(raw))
    if words < 2 or len(tokens) < 2:
        raise UserError(
            f"{path}: {words} words between spaces, {len(tokens)} tokens, but a perplexity needs two of each; give "
            "WikiText-103's raw file (wiki.test.tokens)"
        )
    return Text(tokens, words)


def detokenise_wikitext(text: str) -> str:
    """Plain text from WikiText's form, by Megatron-LM's rules in its order, without one that matches nothing."""
    for old, new in _WIKITEXT_FIRST:
        text = text.replace(old, new)
    for left, right in _WIKITEXT_PAIRS:
        inside = rf"{re.escape(left)}\s*([^{re.escape(right)}]*?)\s*{re.escape(right)}"
        text = re.sub(inside, rf"{left}\1{right}", text)
    for old, new in _WIKITEXT_LAST:
        text = text.replace(old, new)
    return text


def lambada(path: Path, tokenizer: Tokenizer, *, strict: bool) -> list[Passage]:
    """LAMBADA's passages: JSON lines with the key "text", or plain text, one passage per line. Blank lines are skipped.

    With `strict` the text is unchanged, and its last white-space-separated word, with one space before it, is tokenised
    apart from the stripped context. Otherwise the text is detokenised and tokenised in one piece; the word is every
    token that holds any of it. Raises UserError for another file format.
    """
    passages = []
    for line, text in _lines(path):
        if _WIKITEXT_TITLE.fullmatch(text):
            raise UserError(
                f"{path}, line {line}: {text.strip()[:40]!r} is a title of WikiText's raw text, not a passage; give "
                "LAMBADA's file, or --task wikitext103"
            )
        if len(text.split()) < 2:
            raise UserError(f"{path}, line {line}: {text[:40]!r} has no word before its last one; give whole passages")
        context, word = (_strict if strict else _in_one_piece)(text, tokenizer)
        if not len(context) or not len(word):
            raise UserError(f"{path}, line {line}: the tokenizer {tokenizer.name} does not separate the last word")
        passages.append(Passage(context, word, line))
    return passages


def detokenise_lambada(text: str) -> str:
    """Plain text from the Penn Treebank's form of quotes, contractions and punctuation."""
    for pattern, new in _LAMBADA:
        text = pattern.sub(new, text)
    return text.strip()


def _strict(text: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    word = text.split()[-1]
    return tokenizer.encode(text[: text.rindex(word)].strip()), tokenizer.encode(f" {word}")


def _in_one_piece(text: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    text = detokenise_lambada(text)
    word = text.split()[-1]
    tokens = tokenizer.encode(text)
    for first in range(len(tokens) - 1, -1, -1):
        if tokenizer.decode(tokens[first:]).endswith(word):
            return tokens[:first], tokens[first:]
    return tokens, tokens[:0]


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of each passage."""
    raw = _read(path)
    lines = [(number, line) for number, line in enumerate(raw.split("\n"), 1) if line.strip()]
    if not _is_json(raw) and path.suffix not in (".json", ".jsonl"):
        return lines
    return [(number, _text_of(path, number, line)) for number, line in lines]


def _text_of(path: Path, number: int, line: str) -> str:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); give one object per line") from None
    text = item.get("text") if isinstance(item, dict) else None
    if not isinstance(text, str):
        keys = f"has the keys {', '.join(item) or 'none'}" if isinstance(item, dict) else f"is {type(item).__name__}"
        raise UserError(f'{path}, line {number}: {keys}, not "text" with a passage; give {{"text": "…"}} on each line')
    return text


def _read(path: Path) -> str:
    """The text of a UTF-8 file, line ends unchanged. Raises UserError if it is missing, empty or not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text (byte {error.start}: {error.reason}); convert it, e.g. with iconv"
        ) from None
    except OSError as error:
        raise UserError(f"--data = {path}: cannot be read ({error.strerror}); name the evaluation file") from None
    if not text.strip():
        raise UserError(f"{path}: empty; give the evaluation file with its text")
    return text


def _is_json(raw: str) -> bool:
    """Whether a text begins with a JSON object."""
    line = raw.lstrip().split("\n", 1)[0]
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return line.startswith('{"')

"""A text cut where it may be cut has the tokens of the whole; rows go to the piece that their first byte lies in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_bench.config.schema import ConfigError
from cl_bench.data import chunking, tokenizer
from cl_bench.data.chunking import Rules, Stretch

SPACES = " \t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
OTHERS = "aZ09'!é½Ж東。\u3001\u0939\u180e\u200b\U0001d4b3s\x00"


@pytest.fixture(scope="module")
def gpt2(gpt2_files: dict[str, str]) -> tokenizer.GPT2:
    return tokenizer.gpt2(**gpt2_files)


def pieces_of(path: Path, n_bytes: int, *, rows: bool = False) -> list[Stretch]:
    size = path.stat().st_size
    return list(Stretch(path, size, 0, size, "train", rows).pieces(n_bytes))


def encoded(path: Path, n_bytes: int, tokens: tokenizer.Tokenizer) -> list[int]:
    pieces = pieces_of(path, n_bytes)
    parts = [chunking.encode(p, p is pieces[-1], tokens, Rules("uint16")).ids["train"] for p in pieces]
    return np.frombuffer(b"".join(parts), np.uint16).tolist()


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(SPACES + OTHERS + " \n  's"), max_size=60))
def test_every_safe_cut_leaves_the_tokens_as_they_are(text: str, gpt2: tokenizer.GPT2) -> None:
    whole, raw = gpt2.encode(text).tolist(), text.encode()
    for match in chunking._SAFE.finditer(raw):
        left, right = raw[: match.end()].decode(), raw[match.end() :].decode()
        assert gpt2.encode(left).tolist() + gpt2.encode(right).tolist() == whole, (left, right)
        assert not left[-1].isspace()


def test_no_cut_after_unicode_white_space() -> None:
    for space in SPACES:
        assert chunking._SAFE.search((space + " x").encode()) is None, repr(space)
    for other in "a!éЖ東。ह𝒳":
        assert chunking._SAFE.search((other + " x").encode()), other


def test_a_text_in_pieces_of_any_size_has_the_tokens_of_the_whole(gpt2: tokenizer.GPT2, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("It's a  test,\n\n\twe'll see: 東京は 1 2 3.   \u3000x\n" * 20 + "end  ")
    whole = [*gpt2.encode(path.read_text()).tolist(), gpt2.eot]
    for n_bytes in (1, 3, 7, 64, 500, 10**6):
        assert encoded(path, n_bytes, gpt2) == whole


def test_a_text_without_a_safe_cut_is_one_piece(gpt2: tokenizer.GPT2, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("x" * 200_000)  # longer than a window of the search
    assert chunking.safe_cut(path, 10, 200_000) == 200_000
    path.write_text("x" * 100_000 + " " + "x" * 100_000)
    assert chunking.safe_cut(path, 10, 200_001) == 100_000
    assert encoded(path, 50_000, gpt2) == [*gpt2.encode(path.read_text()).tolist(), gpt2.eot]


def test_rows_are_encoded_once_for_any_size_of_pieces(gpt2: tokenizer.GPT2, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [f"row {n}\nwith two lines é" for n in range(50)] + [""]
    path.write_text("\n".join(json.dumps({"text": t, "n": 1}) for t in texts) + "\n\n")
    rules = Rules("uint16", fraction=0.3)
    expected: dict[chunking.Part, list[int]] = {"train": [], "validation": []}
    for text in texts:
        expected[chunking.part_of(text, 0.3)] += [*gpt2.encode(text).tolist(), gpt2.eot]
    assert len(expected["validation"]) > 50
    for n_bytes in (1, 10, 77, 10**6):
        parts = [chunking.encode(p, False, gpt2, rules) for p in pieces_of(path, n_bytes, rows=True)]
        for part in chunking.PARTS:
            ids = np.frombuffer(b"".join(p.ids[part] for p in parts), np.uint16).tolist()
            assert ids == expected[part], n_bytes
        assert sum(sum(p.documents.values()) for p in parts) == 51


def test_copies_of_a_row_go_to_the_same_part() -> None:
    parts = {text: chunking.part_of(text, 0.5) for text in map(str, range(1000))}
    assert parts == {text: chunking.part_of(text, 0.5) for text in map(str, range(1000))}
    assert 400 < list(parts.values()).count("validation") < 600  # 500 ± 6 standard deviations of 16
    assert chunking.part_of("x", 0.0) == "train"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'{"other": "x"}', "the row at byte 15 has no key 'text'"),
        (b'{"text": 3}', "the row at byte 15 has no text under 'text'"),
        (b'["text"]', "the row at byte 15 is not a JSON object"),
        (b"{oops", "the row at byte 15 is not a JSON object"),
        (b'{"text": "\xff"}', "the row at byte 15 is not a JSON object in UTF-8"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "ab"}\n' + row + b"\n")
    with pytest.raises(ConfigError, match=said):
        chunking.encode(pieces_of(path, 10**6, rows=True)[0], True, tokenizer.Bytes(), Rules("uint8"))


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"good words " * 10 + b"caf\xe9 au lait")
    pieces = pieces_of(path, 40)
    for piece in pieces[:2]:
        chunking.encode(piece, False, tokenizer.Bytes(), Rules("uint8"))
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 113 of 122"):
        chunking.encode(pieces[2], False, tokenizer.Bytes(), Rules("uint8"))

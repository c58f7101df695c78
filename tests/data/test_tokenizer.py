"""Text becomes GPT-2's ids through the user's own two files, and wrong files are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import tokenizer

NASTY = [
    "",
    " ",
    "\n\n \t x",
    "I'll say 'tis  we've 're'S   ",
    "naïve café, 東京 42nd – ½ 𝒳 👩‍🚀\u00a0\u2003\u3000x",
    "<|endoftext|> is thirteen characters",
    "\r\nfour    spaces\r\n\tand a tab\x00\x7f",
    "a" * 300 + "!" * 300 + "1" * 300,
]


@pytest.fixture(scope="module")
def gpt2(gpt2_files: dict[str, str]) -> tokenizer.GPT2:
    return tokenizer.gpt2(**gpt2_files)


def bpe(**files: str | None) -> DataConfig:
    return DataConfig(source="text", path="x", tokenizer="gpt2", **files)


def test_known_ids(gpt2: tokenizer.GPT2) -> None:
    assert (gpt2.name, gpt2.vocab_size, gpt2.eot) == ("gpt2", 50257, 50256)
    ids = gpt2.encode("hello world")
    assert ids.dtype == np.int64
    assert ids.tolist() == [31373, 995]  # tiktoken's own documentation
    assert gpt2.encode("<|endoftext|>").tolist() == [27, 91, 437, 1659, 5239, 91, 29]


def test_the_same_ids_as_the_tokenizers_package(gpt2: tokenizer.GPT2, gpt2_files: dict[str, str]) -> None:
    from tokenizers import ByteLevelBPETokenizer

    other = ByteLevelBPETokenizer(gpt2_files["vocab_file"], gpt2_files["merges_file"])
    for text in [*NASTY, Path(__file__).read_text()]:
        assert gpt2.encode(text).tolist() == other.encode(text).ids, text
        assert gpt2.decode(gpt2.encode(text)) == text


WORDS = " \t\n\r\x0b\x0c\x1c\x85\u00a0\u2003\u2028\u3000aZ09'!é½Ж東。\u0939\u200b\U0001d4b3"


@settings(max_examples=300, deadline=None)
@given(text=st.lists(st.sampled_from([*WORDS, "  ", "\n\n", "'s", "'ll", " x", "x ", "1a"]), max_size=40).map("".join))
def test_words_are_cut_as_tiktoken_cuts_them(text: str, gpt2: tokenizer.GPT2, tiktokens_own: Any) -> None:
    assert gpt2.encode(text).tolist() == tiktokens_own.encode_ordinary(text)


@pytest.fixture(scope="module")
def tiktokens_own(gpt2: tokenizer.GPT2) -> Any:
    """The same ranks under the pattern that tiktoken has for GPT-2."""
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    ranks = gpt2._encoding._mergeable_ranks
    return tiktoken.Encoding("own", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("space", [" ", "\n"])
def test_very_long_white_space_is_encoded(gpt2: tokenizer.GPT2, space: str) -> None:
    run = space * 2_000_000
    with pytest.raises(ValueError, match="Max stack size"):
        gpt2._ids(f"one{run}two")
    ids = gpt2.encode(f"one{run}two three{run}")
    assert gpt2.decode(ids) == f"one{run}two three{run}"
    short = space * 1_000  # what the engine still does by itself ends in the same tokens
    end = gpt2.encode(f"one{short}two three").tolist()[-4:]
    assert end == gpt2.encode(f"one{run}two three").tolist()[-4:]


def test_half_a_surrogate_pair_is_replaced(gpt2: tokenizer.GPT2) -> None:
    assert gpt2.decode(gpt2.encode("a\ud800b")) == "a\ufffdb"


def test_bytes() -> None:
    tokens = tokenizer.from_config(DataConfig(source="text", path="x"))
    assert (tokens.name, tokens.vocab_size, tokens.eot) == ("bytes", 256, None)
    assert tokens.encode("é!").tolist() == [0xC3, 0xA9, 0x21]
    assert tokens.encode("").dtype == np.int64
    assert tokens.decode([0xC3, 0xA9, 0x21]) == "é!"
    assert tokens.decode(np.array([0xC3])) == "\ufffd"
    with pytest.raises(ConfigError, match="the vocabulary of bytes ends at 255"):
        tokens.decode([256])


def test_token_files_need_the_two_files_to_be_decoded(gpt2_files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"holds token ids of an unknown tokenizer; give data\.vocab_file"):
        tokenizer.from_config(DataConfig(source="nanogpt", path="x"))
    assert tokenizer.from_config(DataConfig(source="nanogpt", path="x", **gpt2_files)).name == "gpt2"


def test_a_changed_file_is_read_again(gpt2_files: dict[str, str], tmp_path: Path) -> None:
    vocab = Path(shutil.copy(gpt2_files["vocab_file"], tmp_path))
    config = bpe(vocab_file=str(vocab), merges_file=gpt2_files["merges_file"])
    before = tokenizer.fingerprint(config)
    vocab.write_text(json.dumps(json.loads(vocab.read_text()), indent=1))
    assert tokenizer.fingerprint(config) == before  # laid out otherwise, the same encoding
    more = json.loads(vocab.read_text()) | {"<|pad|>": 50257}
    vocab.write_text(json.dumps(more))
    assert tokenizer.from_config(config).vocab_size == 50258
    assert tokenizer.fingerprint(config) != before


def test_wrong_files_are_named(gpt2_files: dict[str, str], tmp_path: Path) -> None:
    def refused(vocab: str | bytes | None, merges: str | None, said: str) -> None:
        files = dict(gpt2_files)
        for name, content in (("vocab_file", vocab), ("merges_file", merges)):
            if content is not None:
                path = tmp_path / name
                path.write_bytes(content.encode() if isinstance(content, str) else content)
                files[name] = str(path)
        with pytest.raises(ConfigError, match=said) as error:
            tokenizer.from_config(bpe(**files))
        assert "\n" not in str(error.value)

    vocab = json.loads(Path(gpt2_files["vocab_file"]).read_text())
    merges = Path(gpt2_files["merges_file"]).read_text().split("\n")
    refused("no json", None, "vocab_file: not JSON")
    refused("[1, 2]", None, "not an object of tokens and their ids")
    refused('{"a": 0, "b": 0}', None, "two tokens share an id")
    refused('{"a": 0, "b": 1}', None, "holds 2 of the 256 single bytes")
    refused(b"\xff\xfe", None, "not UTF-8")
    refused(json.dumps({k: v for k, v in vocab.items() if v != 50256}), None, r"has no <\|endoftext\|>")
    refused(None, "#version: 0.2\nonly-one\n", "line 2 is not a pair of tokens")
    refused(None, "#version: 0.2\nzz qqqq\n", "line 2 merges 'zz qqqq', missing from data.vocab_file = ")
    refused(None, "\n".join([merges[2], merges[1], *merges[3:]]), "not above")
    refused(None, "#version: 0.2\n", "holds no merges")
    refused(None, "\n".join(merges[:20_000]), "no line produces '.*', one of 30,0.. such tokens of data.vocab_file")
    with pytest.raises(ConfigError, match=r"nowhere\.json: cannot be read"):
        tokenizer.from_config(bpe(vocab_file=str(tmp_path / "nowhere.json"), merges_file=gpt2_files["merges_file"]))

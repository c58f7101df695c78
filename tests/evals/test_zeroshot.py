"""Zero-shot metrics equal a brute-force computation: one token at a time, full softmax, no batches, no windows."""

from __future__ import annotations

import functools
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_bench.config import ModelConfig
from cl_bench.data.tokenizer import Bytes
from cl_bench.errors import UserError
from cl_bench.evals import tasks, zeroshot
from cl_bench.evals.tasks import Passage, Text
from cl_bench.training.model import GPT2

VOCAB = 280


class Pieces:
    """Several bytes a token, as byte-pair encoding has it: the longest piece that fits, else a byte."""

    name = "pieces"
    vocab_size = VOCAB
    eot = None

    def __init__(self) -> None:
        pieces = [
            " the",
            " c",
            "at",
            " ca",
            "ing",
            "in",
            " sat",
            "é",
            " = ",
            "\n",
            " Ro",
            "ber",
            " r",
            "an",
            ", ",
            "d ",
        ]
        self.pieces = [bytes([b]) for b in range(256)] + [p.encode() for p in pieces]

    def encode(self, text: str) -> np.ndarray:
        raw, ids = text.encode(), []
        while raw:
            number, piece = max(
                ((i, p) for i, p in enumerate(self.pieces) if raw.startswith(p)), key=lambda found: len(found[1])
            )
            ids.append(number)
            raw = raw[len(piece) :]
        return np.array(ids, np.int64)

    def decode(self, ids: np.ndarray) -> str:
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


@pytest.fixture(scope="module")
def model() -> GPT2:
    """Random weights, large enough that every position and every token of the context counts."""
    torch.manual_seed(1)
    model = GPT2(ModelConfig(name="t", n_layers=2, hidden_size=32, n_heads=4, n_positions=48, vocab_size=VOCAB))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return model.eval()


@torch.no_grad()
def next_probabilities(model: GPT2, context: np.ndarray) -> np.ndarray:
    """float64 (V,): the softmax of what follows one context."""
    logits = model(torch.from_numpy(context)[None])[0, -1].double().numpy()
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def brute_perplexity(model: GPT2, text: Text, window: int, stride: int) -> tuple[float, float]:
    """(loss, word-level perplexity). Target j sees from token 0 while j <= window, then from a multiple of stride."""
    losses = []
    for j in range(1, len(text.tokens)):
        start = max(0, math.ceil((j - window) / stride)) * stride
        losses.append(-math.log(next_probabilities(model, text.tokens[start:j])[text.tokens[j]]))
    return sum(losses) / len(losses), math.exp(min(20, sum(losses) / (text.words - 1)))


# --- WikiText-103 -----------------------------------------------------------------------------------------------------

WIKI = (
    " \n = Robert = \n \n Robert 's cat ( 1 @,@ 000 @.@ 5 old ) sat , ran @-@ ing : \" the cat \" ; it 's 5 ° C . \n"
    " \n = = Roles = = \n \n He caught the <unk> [ sic ] . the cats ' café was shut ! \n"
)


@pytest.mark.parametrize(
    ("window", "stride", "batch"),
    [(8, 8, 4), (8, 3, 5), (8, 1, 64), (16, 5, 1), (16, 15, 3), (48, 32, 2), (48, 1, 7), (48, 48, 2)],
)
def test_perplexity_equals_brute_force(model: GPT2, tmp_path: Path, window: int, stride: int, batch: int) -> None:
    (tmp_path / "wiki").write_text(WIKI)
    text = tasks.wikitext(tmp_path / "wiki", Pieces())
    got = zeroshot.perplexity(model, text, window, stride, batch)
    loss, _ = brute_perplexity(model, text, window, stride)
    assert got.loss == pytest.approx(loss, rel=1e-6)  # float32 has 7 digits
    assert (got.window, got.stride, got.tokens, got.words) == (window, stride, len(text.tokens), text.words)
    longer = Text(text.tokens, 20 * text.words)  # so that the cap of e^20 stays away from random weights
    got = zeroshot.perplexity(model, longer, window, stride, batch)
    assert got.word_ppl == pytest.approx(brute_perplexity(model, longer, window, stride)[1], rel=1e-5)
    assert got.word_ppl < 1e6


@pytest.mark.parametrize("n_tokens", [2, 3, 9, 10, 11, 12, 40])
@pytest.mark.parametrize(("window", "stride"), [(8, 8), (8, 3), (8, 1), (9, 4), (64, 32), (1, 1)])
def test_windows_score_every_token_once(n_tokens: int, window: int, stride: int) -> None:
    found = zeroshot.windows(n_tokens, window, stride)
    scored = [w.start + w.length - i for w in found for i in reversed(range(w.scored))]
    assert scored == list(range(1, n_tokens))
    assert all(0 < w.scored <= w.length <= window for w in found)
    assert all(w.length - w.scored >= window - stride for w in found[1:])  # context of a later window's first target
    assert [w.start for w in found] == [i * stride for i in range(len(found))]


def test_word_perplexity_by_hand() -> None:
    model = GPT2(ModelConfig(name="t", n_layers=1, hidden_size=8, n_heads=1, n_positions=8, vocab_size=10))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # every token has probability 1/10
    text = Text(np.arange(9) % 10, 5)  # 8 predictions for 4 words: 10^(8/4)
    got = zeroshot.perplexity(model.eval(), text, 8, 4, 1)
    assert got.loss == pytest.approx(math.log(10), rel=1e-6)
    assert got.word_ppl == pytest.approx(100, rel=1e-5)
    assert zeroshot.perplexity(model, Text(np.arange(10), 2), 8, 4, 1).word_ppl == math.exp(20)  # 10^9 > e^20


def test_wikitext_words_and_detokenising_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "wiki.test.tokens"
    path.write_text(" \n = Cats = \n \n the cat @-@ flap . \n")
    # Without the outer white space and split at single spaces: = Cats = \n \n the cat @-@ flap .
    text = tasks.wikitext(path, Bytes())
    assert text.words == 10
    assert Bytes().decode(text.tokens) == "\n= Cats =\n\nthe cat-flap.\n"
    assert len(text.tokens) == 1 + 9 + 1 + 14
    # \n | = space C at s space = | \n \n | t h e | " ca" t | - | f l a p . | \n
    assert len(tasks.wikitext(path, Pieces()).tokens) == 1 + 7 + 2 + 3 + 2 + 1 + 5 + 1


def test_wikitext_detokeniser_undoes_what_wikitext_did() -> None:
    assert tasks.detokenise_wikitext(WIKI) == (
        "\n= Robert =\n\nRobert's cat (1,000.5 old) sat, ran-ing: \"the cat\"; it's 5°C.\n"
        "\n== Roles ==\n\nHe caught the <unk> [sic]. the cats' café was shut!\n"
    )
    assert tasks.detokenise_wikitext("= = = Deep = = = and = = = = four = = = =") == ("=== Deep === and ==== four ====")


# --- LAMBADA ----------------------------------------------------------------------------------------------------------


def brute_correct(model: GPT2, passage: Passage, window: int) -> bool:
    """Whether greedy decoding, token by token, says the word."""
    so_far = passage.context
    for token in passage.word:
        guess = int(np.argmax(next_probabilities(model, so_far[-window:])))
        if guess != token:
            return False
        so_far = np.append(so_far, guess)
    return True


@torch.no_grad()
def greedy(model: GPT2, context: np.ndarray, n: int) -> np.ndarray:
    for _ in range(n):
        context = np.append(context, int(np.argmax(next_probabilities(model, context))))
    return context[-n:]


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_accuracy_equals_brute_force(model: GPT2, batch: int) -> None:
    rng = np.random.default_rng(0)
    passages = []
    for i, length in enumerate(itertools.islice(itertools.cycle([1, 3, 10, 25, 40]), 40)):
        context = rng.integers(0, VOCAB, length)
        word = greedy(model, context, 1 + i % 4)  # as the model says it
        if i % 3 == 0:
            word[rng.integers(len(word))] = rng.integers(VOCAB)  # but for one token, wherever it stands
        passages.append(Passage(context, word, i))
    expected = [brute_correct(model, p, 48) for p in passages]
    got = zeroshot.accuracy(model, passages, 48, batch, strict=False)
    assert (got.correct, got.passages, got.cut) == (sum(expected), 40, 0)
    assert 20 <= got.correct <= 30
    assert got.accuracy == got.correct / 40


def test_a_long_passage_loses_its_beginning(model: GPT2) -> None:
    rng = np.random.default_rng(1)
    context = rng.integers(0, VOCAB, 100)
    # Inputs end before the word's last token, so 14 of 16 are context.
    word = greedy(model, context[-14:], 3)
    passages = [Passage(context, word, 1), Passage(context[-14:], word, 2), Passage(context[-3:], word, 3)]
    got = zeroshot.accuracy(model, passages[:2], 16, 8, strict=True)
    assert (got.correct, got.cut, got.window) == (2, 1, 16)
    assert zeroshot.accuracy(model, passages, 16, 2, strict=True).correct == 2 + brute_correct(model, passages[2], 16)
    with pytest.raises(UserError, match=r"line 7: its last word has 17 tokens, more than the window of 16"):
        zeroshot.accuracy(model, [Passage(context, context[:17], 7)], 16, 1, strict=True)


def test_where_the_last_word_begins(tmp_path: Path) -> None:
    path = tmp_path / "lambada.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": t}) + "\n" for t in ["he  saw the cat", "the one\nand  running", "a café\n", "the cat"]
        )
    )
    speaks = Pieces()

    def split(strict: bool) -> list[tuple[str, list[str]]]:
        found = tasks.lambada(path, speaks, strict=strict)
        assert [p.line for p in found] == [1, 2, 3, 4]
        return [(speaks.decode(p.context), [speaks.decode(np.array([t])) for t in p.word]) for p in found]

    # In one piece: the tokens that hold any of the word; the space before it only where it is in the same token.
    assert split(strict=False) == [
        ("he  saw the", [" ca", "t"]),
        ("the one\nand ", [" r", "u", "n", "n", "ing"]),
        ("a", [" ca", "f", "é"]),
        ("the", [" ca", "t"]),
    ]
    # Apart: a space is always part of it, and what stood between is gone.
    assert split(strict=True) == [
        ("he  saw the", [" ca", "t"]),
        ("the one\nand", [" r", "u", "n", "n", "ing"]),
        ("a", [" ca", "f", "é"]),
        ("the", [" ca", "t"]),
    ]
    bytes_of_cat = [list(tasks.lambada(path, Bytes(), strict=s)[3].word) for s in (False, True)]
    assert bytes_of_cat == [list(b"cat"), list(b" cat")]


def test_plain_text_passages_and_the_treebank_form(tmp_path: Path) -> None:
    path = tmp_path / "lambada.txt"
    path.write_text("`` i do n't know , '' said bob , looking at the cat\n\n  \nthe 's' key was 'in' the can\n")
    detokenised, strict = (tasks.lambada(path, Bytes(), strict=s) for s in (False, True))
    assert [Bytes().decode(p.context) + "|" + Bytes().decode(p.word) for p in detokenised] == [
        '"i don\'t know," said bob, looking at the |cat',
        "the 's' key was 'in' the |can",
    ]
    assert [p.line for p in strict] == [1, 4]
    assert Bytes().decode(strict[0].context) == "`` i do n't know , '' said bob , looking at the"
    assert Bytes().decode(strict[0].word) == " cat"


# --- files of the wrong form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wiki", None, "--data = .*wiki: cannot be read .No such file"),
        ("wiki", b"", "empty; give"),
        ("wiki", b" \n \n", "empty; give"),
        ("wiki", b"one two caf\xe9", "not UTF-8 text .byte 11"),
        ("wiki", b"word", "1 words between spaces, 4 tokens, but a perplexity needs two of each"),
        ("wiki", b'{"text": "a passage"}\n', "JSON lines, not the raw text of WikiText-103"),
        ("lambada.jsonl", b'{"text": "a b"}\n{"txt": "a b"}\n', 'line 2: has the keys txt, not "text"'),
        ("lambada.jsonl", b'{"text": 3}\n', 'line 1: has the keys text, not "text" with a passage'),
        ("lambada.jsonl", b'["a b"]\n', 'line 1: is list, not "text"'),
        ("lambada.jsonl", b'{"text": "a b"\n', "line 1: not JSON"),
        ("lambada", b'{"text": "a b"}\nplain text\n', "line 2: not JSON"),
        (
            "lambada",
            b" \n = Valkyria Chronicles III = \n \n Senjo no Valkyria 3 \n",
            "line 2: .* is a title of WikiText's",
        ),
        ("lambada", b"plain text\nword\n", "line 2: 'word' has no word before its last one"),
        ("lambada", b"\xff\xfe", "not UTF-8 text .byte 0"),
        ("lambada", b"\n\n", "empty; give"),
    ],
)
def test_files_of_another_format(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    read = tasks.wikitext if name == "wiki" else functools.partial(tasks.lambada, strict=False)
    with pytest.raises(UserError, match=message):
        read(path, Bytes())


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_strides_that_leave_gaps(model: GPT2, stride: int) -> None:
    with pytest.raises(UserError, match=rf"--stride = {stride}: must be 1 … 8, the window"):
        zeroshot.perplexity(model, Text(np.arange(20), 4), 8, stride, 1)

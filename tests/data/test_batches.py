"""Texts become tokens once, safely; the order of blocks is a permutation that needs no memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import batches, cache, sources
from cl_bench.data.spans import Dataset, Mixture, Span


def source(path: Path | str, **options: object) -> DataConfig:
    return DataConfig(source="text", path=str(path), **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {"a.txt": "alpha " * 50, "b.txt": "beta " * 60, "sub/c.md": "gamma é " * 40, ".hidden": "no"}
    for name, text in texts.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "texts"


def test_shakespeare_holds_out_two_plays() -> None:
    plays = sources.inspect(DataConfig(source="shakespeare", validation_documents=("hamlet", "the-tempest")))
    assert len(plays.train) == 36
    assert [d.name for d in plays.validation] == ["hamlet", "the-tempest"]
    assert plays.n_train + plays.n_validation == 5_318_858
    with pytest.raises(ConfigError, match="no document 'hamlt'; did you mean 'hamlet'"):
        sources.inspect(DataConfig(source="shakespeare", validation_documents=("hamlt",)))


def test_a_folder_a_glob_and_a_file(folder: Path) -> None:
    whole = sources.inspect(source(folder, validation_fraction=0.3))  # 288 of 960 bytes
    assert sorted(d.name for d in whole.train + whole.validation) == ["a", "b", "sub/c"]
    assert [d.name for d in sources.inspect(source(folder, validation_documents=("c",))).validation] == ["sub/c"]
    assert len(whole.validation) == 1  # one whole document, not a piece of each
    matched = sources.inspect(source(f"{folder}/*.txt"))
    assert {d.name for d in matched.train + matched.validation} == {"a", "b"}
    few = sources.inspect(source(folder))  # 48 bytes: any whole document would be six times too much
    assert (few.n_validation, len(few.validation), few.tail and few.tail.name) == (48, 0, "sub/c")
    single = sources.inspect(source(folder / "a.txt", validation_fraction=0.1))
    assert (single.n_train, single.n_validation) == (270, 30)


def test_tokens_are_the_bytes_of_the_text(folder: Path, tmp_path: Path) -> None:
    prepared = cache.prepare(sources.inspect(source(folder / "a.txt", validation_fraction=0.1)), tmp_path)
    assert (prepared / "train.bin").read_bytes() + (prepared / "validation.bin").read_bytes() == b"alpha " * 50
    again = cache.prepare(sources.inspect(source(folder / "a.txt", validation_fraction=0.1)), tmp_path)
    assert again == prepared
    assert len(list((tmp_path / "data").iterdir())) == 1


def test_a_job_uses_prepared_tokens_and_notices_a_changed_text(folder: Path, tmp_path: Path) -> None:
    checked = sources.inspect(source(folder))
    planned = source(folder, fingerprint=checked.fingerprint)
    made = cache.ensure(planned, tmp_path)
    (folder / "a.txt").write_text("other words")
    assert cache.ensure(planned, tmp_path) == made  # the tokens are what was planned
    (folder / "a.txt").write_text("alpha " * 50)
    whole = (made / "train.bin").read_bytes()
    (made / "train.bin").write_bytes(whole[:100])
    assert (cache.ensure(planned, tmp_path) / "train.bin").read_bytes() == whole  # cut short: made again
    (folder / "a.txt").write_text("other words")
    with pytest.raises(ConfigError, match="changed since the run was planned"):
        cache.ensure(planned, tmp_path / "elsewhere")


def test_the_fingerprint_is_the_content_and_the_split(folder: Path) -> None:
    before = sources.inspect(source(folder)).fingerprint
    assert sources.inspect(source(folder, validation_documents=("a",))).fingerprint != before
    (folder / "b.txt").write_text("beta " * 59 + "beto ")
    assert sources.inspect(source(folder)).fingerprint != before


def test_two_processes_prepare_at_once(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from cl_bench.data import cache, sources; from cl_bench.config import DataConfig\n"
        "c = sources.inspect(DataConfig(source='text', path=sys.argv[1])); sys.stdin.read(1)\n"
        "print(cache.prepare(c, sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdin
        process.stdin.write("x")
        process.stdin.flush()
    answers = {process.communicate()[0] for process in both}
    assert all(process.returncode == 0 for process in both)
    assert len(answers) == 1
    assert [p.name for p in (tmp_path / "data").iterdir()] == [Path(answers.pop().strip()).name]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"caf\xe9 au lait", r"not UTF-8 text \(byte 3 of 12"), (b"ok \xe2\x82", "not UTF-8 text")],
)
def test_unusable_text_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as error:
        sources.inspect(source(path))
    assert str(path) in str(error.value)


def test_names_of_documents_are_exact_first_and_never_ambiguous(tmp_path: Path) -> None:
    for name in ("a.md", "sub/a.md", "x/b.md", "y/b.md"):
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 20)
    named = sources.inspect(source(tmp_path / "t", validation_documents=("a",)))
    assert [d.name for d in named.validation] == ["a"]
    with pytest.raises(ConfigError, match="'b' is the name of several documents"):
        sources.inspect(source(tmp_path / "t", validation_documents=("b",)))


def test_the_held_out_share_is_kept_whatever_the_sizes_of_the_files(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for names in (("book", "notes"), ("train", "README"), ("text", "LICENSE"), ("a", "b")):
        for path in texts.iterdir():
            path.unlink()
        for name, size in zip(names, (400_000, 9_000), strict=True):
            (texts / f"{name}.txt").write_bytes(b"x" * size)
        split = sources.inspect(source(texts))
        assert split.n_train + split.n_validation == 409_000
        assert 0.5 <= split.n_validation / (0.05 * 409_000) <= 2
        prepared = cache.prepare(split, tmp_path / "-".join(names))
        assert (prepared / "train.bin").stat().st_size == split.n_train
        for fraction in (0.3, 0.6, 0.99):
            with contextlib.suppress(ConfigError):  # more than any document holds
                assert sources.inspect(source(texts, validation_fraction=fraction)).n_train > 0


def test_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        sources.inspect(source(tmp_path / "nowhere.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no files there"):
        sources.inspect(source(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="no files there"):
        sources.inspect(source(f"{tmp_path}/*.nothing"))


def test_a_corpus_shorter_than_a_block_is_refused(folder: Path) -> None:
    small = sources.inspect(source(folder / "a.txt", validation_fraction=0.1))
    sources.check_length(small, 29)
    with pytest.raises(
        ConfigError, match=r"validation text holds 30 tokens, less than one block of max_seqlen \+ 1 = 31"
    ):
        sources.check_length(small, 30)


def test_progress_reaches_the_end(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    checked = sources.inspect(source(folder), lambda done, total: seen.append((done, total)))
    cache.prepare(checked, tmp_path, lambda done, total: seen.append((done, total)))
    total = checked.n_train + checked.n_validation
    assert seen.count((total, total)) == 2


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 4097])
def test_an_epoch_visits_every_block_once(n: int) -> None:
    order = batches.Permutation(n, seed=3)
    first, second = order.at(np.arange(n)), order.at(np.arange(n, 2 * n))
    assert sorted(first) == sorted(second) == list(range(n))
    if n >= 64:
        assert (first != second).any()
        assert (first != batches.Permutation(n, seed=4).at(np.arange(n))).any()


def test_order_does_not_depend_on_the_size_of_a_request() -> None:
    order = batches.Permutation(1000, seed=1)
    whole = order.at(np.arange(2500))
    starts = range(0, 2500, 125)
    pieces = np.concatenate([batches.Permutation(1000, seed=1).at(np.arange(s, s + 125)) for s in starts])
    assert (whole == pieces).all()


def test_order_looks_random() -> None:
    # Neighbours of a random permutation of n differ by n/3 on average, with a standard error of about n/sqrt(18 n).
    n = 10_000
    steps = np.abs(np.diff(batches.Permutation(n, seed=5).at(np.arange(n))))
    assert abs(steps.mean() - n / 3) < 4 * n / np.sqrt(18 * n)


def test_order_of_a_corpus_of_a_trillion_blocks_needs_no_memory() -> None:
    blocks = batches.Permutation(10**12, seed=1).at(np.arange(10**11, 10**11 + 1000))
    assert len(set(blocks.tolist())) == 1000
    assert blocks.max() < 10**12


def test_blocks_overlap_by_the_label(tmp_path: Path) -> None:
    (tmp_path / "tokens.bin").write_bytes(bytes(range(10)))
    blocks = batches.Blocks([Span(tmp_path / "tokens.bin", "uint8", 0, 10)], 3, vocab_size=10)
    assert blocks.n == 3
    assert blocks.take(np.array([0, 2])).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]


def test_blocks_do_not_reach_from_one_span_into_the_next(tmp_path: Path) -> None:
    (tmp_path / "tokens.bin").write_bytes(bytes(range(12)))
    spans = [Span(tmp_path / "tokens.bin", "uint8", start, n) for start, n in ((0, 5), (5, 1), (6, 6))]
    blocks = batches.Blocks(spans, 2, vocab_size=12)
    assert blocks.n == 4
    assert blocks.take(np.array([3, 0, 2, 1])).tolist() == [[8, 9, 10], [0, 1, 2], [6, 7, 8], [2, 3, 4]]
    with pytest.raises(ConfigError, match="holds no block of 7 tokens"):
        batches.Blocks(spans, 6, vocab_size=12)


def test_an_id_beyond_the_vocabulary_is_named_when_read(tmp_path: Path) -> None:
    np.arange(100, dtype="<u2").tofile(tmp_path / "tokens.bin")
    blocks = batches.Blocks([Span(tmp_path / "tokens.bin", "uint16", 20, 90)], 8, vocab_size=60)
    assert blocks.take(np.array([5])).max() == 58
    with pytest.raises(
        ConfigError, match=r"tokens.bin: token id 60 at token 60 \(byte 120\) is beyond the vocab.* of 60"
    ):
        blocks.take(np.array([0, 6]))


def mixture_of(folder: Path, sizes: list[int], weights: list[float]) -> Mixture:
    datasets = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.bin"
        np.full(size, number, "<u2").tofile(path)
        datasets.append(Dataset(path.stem, (Span(path, "uint16", 0, size),), (Span(path, "uint16", 0, size // 4),)))
    return Mixture(tuple(datasets), tuple(weights), len(sizes))


def test_a_blend_is_the_same_for_any_number_of_ranks_and_after_a_resume(tmp_path: Path) -> None:
    mixture = mixture_of(tmp_path, [400, 90, 3000], [0.5, 0.3, 0.2])
    whole = batches.Batches(mixture, 8, seed=3).micro_batch(0, 240)
    assert np.bincount(whole[:, 0]).tolist() == [120, 72, 48]
    pieces = [batches.Batches(mixture, 8, seed=3).micro_batch(start, 6) for start in range(0, 240, 6)]
    assert (np.concatenate(pieces) == whole).all()


def test_a_blends_validation_keeps_its_weights_and_its_blocks_exist(tmp_path: Path) -> None:
    mixture = mixture_of(tmp_path, [4000, 4000], [3, 1])
    assert np.bincount(batches.validation_blocks(mixture, 8, 40)[:, 0]).tolist() == [30, 10]
    few = mixture_of(tmp_path, [4000, 80], [1, 1])
    assert np.bincount(batches.validation_blocks(few, 8, 40)[:, 0]).tolist() == [20, 2]  # (80 / 4 - 1) // 8 blocks


def test_one_dataset_is_read_in_the_order_of_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(500, dtype="<u2").tofile(path)
    span = (Span(path, "uint16", 0, 500),)
    training = batches.Batches(Mixture((Dataset("one", span, span),), (1.0,), 500), 4, seed=7)
    order = batches.Permutation(124, seed=7).at(np.arange(100, 150))
    assert (training.micro_batch(100, 50)[:, 0] == order * 4).all()


def test_to_length() -> None:
    tokens = np.arange(12).reshape(2, 6)  # two blocks of 5 tokens and a label
    inputs, labels = batches.to_length(tokens, 2, "truncate")
    assert inputs.tolist() == [[0, 1], [6, 7]]
    assert labels.tolist() == [[1, 2], [7, 8]]
    inputs, labels = batches.to_length(tokens, 2, "reshape")
    assert inputs.tolist() == [[0, 1], [2, 3], [4, 0], [6, 7], [8, 9], [10, 0]]
    assert labels.tolist() == [[1, 2], [3, 4], [5, batches.IGNORED], [7, 8], [9, 10], [11, batches.IGNORED]]
    assert (labels != batches.IGNORED).sum() == 10  # no token of the batch is dropped


def test_a_full_disk_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    checked = sources.inspect(source(folder))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.prepare(checked, tmp_path)
    assert list((tmp_path / "data").iterdir()) == []

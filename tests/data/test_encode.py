"""Tokens on disk are the same however many processes made them and however often those were killed."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_bench.cli import prepare
from cl_bench.cli.main import main
from cl_bench.config import DataConfig
from cl_bench.config.schema import ConfigError
from cl_bench.data import cache, chunking, encode, sources, tokenizer
from cl_bench.errors import UserError


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two texts and 3,000 rows, 0.7 MB."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "novel.txt").write_text(
        "".join(f"Chapter {n}. It's  the same, we'll see: naïve 東京.\n" for n in range(6000))
    )
    (folder / "note.md").write_text("A short note, without an end")
    with (folder / "rows.jsonl").open("w") as file:
        for n in range(3000):
            file.write(json.dumps({"id": n, "text": f"document {n} " * (n % 12)}) + "\n")
    return folder


def job_of(folder: Path, files: dict[str, str], piece_bytes: int = 1 << 15, **options: Any) -> encode.EncodingJob:
    config = DataConfig(source="text", path=str(folder), tokenizer="gpt2", **files, **options)
    return encode.EncodingJob(prepare.stretches_of(config, [str(folder)]), config, piece_bytes=piece_bytes)


def test_tokens_of_texts_and_rows(texts: Path, gpt2_files: dict[str, str], tmp_path: Path) -> None:
    meta = encode.run(job_of(texts, gpt2_files), tmp_path / "out", workers=1)
    gpt2 = tokenizer.gpt2(**gpt2_files)
    novel, note = (texts / "novel.txt").read_text(), (texts / "note.md").read_text()
    rows: dict[chunking.Part, list[int]] = {"train": [], "validation": []}
    for line in (texts / "rows.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        rows[chunking.part_of(text, 0.05)] += [*gpt2.encode(text).tolist(), gpt2.eot]
    tail = int((len(novel.encode()) + len(note.encode())) * 0.05)  # of the largest text, no whole one being 5%
    cut = chunking.safe_cut(texts / "novel.txt", len(novel.encode()) - tail, len(novel.encode()))
    head, end = novel.encode()[:cut].decode(), novel.encode()[cut:].decode()
    ids = {
        p: np.fromfile(tmp_path / "out" / f, "<u2").tolist()
        for p, f in (("train", "train.bin"), ("validation", "val.bin"))
    }
    assert ids["train"] == [*rows["train"], *gpt2.encode(note), gpt2.eot, *gpt2.encode(head), gpt2.eot]
    assert ids["validation"] == [*rows["validation"], *gpt2.encode(end), gpt2.eot]
    assert meta["train"]["documents"] + meta["validation"]["documents"] == 3000 + 3
    assert (meta["dtype"], meta["vocab_size"], meta["eot"]) == ("uint16", 50257, 50256)
    files = sources.inspect(DataConfig(source="nanogpt", path=str(tmp_path / "out")))
    assert files.describe().startswith(f"{tmp_path / 'out'}: {len(ids['train']):,} tokens")


@pytest.mark.train
def test_processes_change_nothing(texts: Path, gpt2_files: dict[str, str], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    encode.run(job_of(texts, gpt2_files), tmp_path / "one", workers=1)
    many = dataclasses.replace(job_of(texts, gpt2_files), piece_bytes=7_001)
    encode.run(many, tmp_path / "many", 3, lambda done, total: seen.append((done, total)))
    for name in ("train.bin", "val.bin"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    assert seen[-1] == (many.n_bytes, many.n_bytes)
    assert seen == sorted(seen)


SCRIPT = """
import json, sys
from pathlib import Path
from cl_bench.cli import prepare as prepare_command
from cl_bench.data import encode
from cl_bench.config import DataConfig
if __name__ == "__main__":
    folder, out, files = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    encode._SYNC_S = 0.0
    config = DataConfig(source="text", path=str(folder), tokenizer="gpt2", **files)
    job = encode.EncodingJob(prepare_command.stretches_of(config, [str(folder)]), config, piece_bytes=4000)
    encode.run(job, out, 2)
"""


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.train
def test_killed_again_and_again_no_row_is_lost_or_doubled(
    texts: Path, gpt2_files: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(texts), str(tmp_path / "out"), json.dumps(gpt2_files)]
    part = tmp_path / ".out.part" / "train.bin"
    reached, kills, orphans = 0, 0, []
    while True:
        process = subprocess.Popen(command)
        while process.poll() is None:
            if part.exists() and part.stat().st_size > reached + 60_000:
                orphans += children(process.pid)
                process.send_signal(signal.SIGKILL)
                reached, kills = part.stat().st_size, kills + 1
                process.wait()
                break
            time.sleep(0.002)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= 3
    encode.run(job_of(texts, gpt2_files), tmp_path / "whole", workers=1)
    for name in ("train.bin", "val.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    notes = [json.loads((tmp_path / f / "meta.json").read_text()) for f in ("out", "whole")]
    assert [n["train"] for n in notes[:1]] == [n["train"] for n in notes[1:]]
    assert not part.parent.exists()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in orphans if Path(f"/proc/{pid}").exists()]  # no process outlives its parent


def test_an_interrupted_job_resumes(
    texts: Path, gpt2_files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_SYNC_S", 0.0)
    job = job_of(texts, gpt2_files)
    encode_piece, done = chunking.encode, []

    def counted(piece: chunking.Stretch, *rest: Any) -> chunking.Encoded:
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(piece)
        return encode_piece(piece, *rest)

    monkeypatch.setattr(chunking, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        encode.run(job, tmp_path / "out", workers=1)
    with (tmp_path / ".out.part" / "train.bin").open("ab") as file:
        file.write(b"written after the journal")
    monkeypatch.setattr(chunking, "encode", lambda piece, *rest: done.append(piece) or encode_piece(piece, *rest))
    encode.run(job, tmp_path / "out", workers=1)
    assert done == [piece for piece, _ in job.pieces()]  # each piece once
    monkeypatch.setattr(chunking, "encode", encode_piece)
    encode.run(job, tmp_path / "whole", workers=1)
    assert (tmp_path / "out" / "train.bin").read_bytes() == (tmp_path / "whole" / "train.bin").read_bytes()
    before = (tmp_path / "out" / "train.bin").stat().st_mtime_ns
    encode.run(job, tmp_path / "out", workers=1)  # there already
    assert (tmp_path / "out" / "train.bin").stat().st_mtime_ns == before


def test_folders_of_other_jobs_are_left_alone(texts: Path, gpt2_files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    encode.run(job_of(texts, gpt2_files), tmp_path / "out", workers=1)  # an empty folder is no obstacle
    with pytest.raises(ConfigError, match="out: holds other tokens; delete it, or choose another folder"):
        encode.run(job_of(texts, gpt2_files, validation_fraction=0.2), tmp_path / "out", workers=1)
    (tmp_path / "mine.txt").write_text("not to be deleted")
    with pytest.raises(ConfigError, match=r"mine\.txt: exists but holds no tokens; choose another folder"):
        encode.run(job_of(texts, gpt2_files), tmp_path / "mine.txt", workers=1)
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / "journal.json").write_text('{"job": "another"}')
    with pytest.raises(ConfigError, match=r"is a partial result of another job; delete it \(`rm -r "):
        encode.run(job_of(texts, gpt2_files), tmp_path / "new", workers=1)


def test_a_full_disk_is_named_and_nothing_is_lost(
    texts: Path, gpt2_files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, sync = job_of(texts, gpt2_files), encode._sync

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encode, "_sync", full)
    with pytest.raises(UserError, match=r"\.out\.part: cannot be written \(No space left on device\); free some space"):
        encode.run(job, tmp_path / "out", workers=1)
    monkeypatch.setattr(encode, "_sync", sync)
    encode.run(job, tmp_path / "out", workers=1)
    encode.run(job, tmp_path / "whole", workers=1)
    assert (tmp_path / "out" / "train.bin").read_bytes() == (tmp_path / "whole" / "train.bin").read_bytes()


def test_an_empty_part_is_named(gpt2_files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(ConfigError, match="no validation text among 2 documents with a held-out share of 1e-06"):
        encode.run(job_of(tmp_path, gpt2_files, validation_fraction=1e-6), tmp_path / "out", workers=1)
    assert not (tmp_path / ".out.part").exists()


def test_text_of_a_run_in_gpt2s_encoding(texts: Path, gpt2_files: dict[str, str], tmp_path: Path) -> None:
    config = DataConfig(source="text", path=str(texts / "novel.txt"), tokenizer="gpt2", **gpt2_files)
    text = sources.inspect(config)
    assert text.vocab_size == 50257
    assert "bytes to train on" in text.describe()
    assert text.fingerprint != sources.inspect(DataConfig(source="text", path=config.path)).fingerprint
    planned = dataclasses.replace(config, fingerprint=text.fingerprint)
    (dataset,) = sources.mixture(planned, tmp_path).datasets
    gpt2 = tokenizer.gpt2(**gpt2_files)
    both = [*dataset.train[0].tokens.tolist(), *dataset.validation[0].tokens.tolist()]
    whole = gpt2.encode((texts / "novel.txt").read_text()).tolist()
    assert [t for t in both if t != gpt2.eot] == whole
    assert both.count(gpt2.eot) == 2
    sources.check_length(sources.mixture(planned, tmp_path), dataset.n_validation - 1)
    with pytest.raises(ConfigError, match=f"the validation part of .* holds {dataset.n_validation} tokens"):
        sources.check_length(sources.mixture(planned, tmp_path), dataset.n_validation)
    folder = cache.ensure(planned, tmp_path)
    whole_file = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(whole_file[:-2])
    assert (cache.ensure(planned, tmp_path) / "train.bin").read_bytes() == whole_file  # cut short: made again


def test_the_command(
    texts: Path, gpt2_files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--vocab-file", gpt2_files["vocab_file"], "--merges-file", gpt2_files["merges_file"]]
    out = str(tmp_path / "out")
    assert main(["prepare", str(texts), "--out", out, *files, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "tokens of 2,8" in printed  # rows, less those held out
    assert f"data=nanogpt data.path={out} data.vocab_file=" in printed
    assert main(["prepare", str(texts), "--out", str(tmp_path / "b"), "--tokenizer", "bytes"]) == 0
    meta = json.loads((tmp_path / "b" / "meta.json").read_text())
    assert (meta["dtype"], meta["vocab_size"]) == ("uint8", 256)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "error: x: no such file or folder"),
        (["."], "error: .: no files there"),
        (
            [".", "--tokenizer", "gpt2"],
            "error: --tokenizer gpt2 needs --vocab-file vocab.json and --merges-file merges",
        ),
        ([".", "--tokenizer", "bytes", "--validation-fraction", "2"], "error: --validation-fraction 2.0: must be less"),
        ([".", "--tokenizer", "bytes", "--workers", "0"], "error: --workers 0: must be 1 or more"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer_given = "--tokenizer" in arguments
    assert main(["prepare", *arguments, "--out", "out", *([] if tokenizer_given else ["--tokenizer", "bytes"])]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1

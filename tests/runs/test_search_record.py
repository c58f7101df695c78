"""search.json: what is written is read back; its keys; damage."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from cl_bench.errors import UserError
from cl_bench.runs import search_record
from cl_bench.runs.paths import TuneDir
from cl_bench.runs.search_record import Outcome, Probe, SearchRecord

PROBES = (
    Probe("start", 8, 80, "a", 500, 1500, 8.0, 2.5, 3e9, False, True, math.inf, 1500, True, "diverged"),
    Probe("T", 8, 40, "b", 500, 1500, 8.0, 2.5, 2e9, True, True, 1.05, 700, False, "steady, at most 1.05x its best"),
)


def record() -> SearchRecord:
    empty = SearchRecord("t", {"tune.threshold": 1.3, "T": [40, 80]}, run_tokens=20_000, run_flops=5e10)
    outcome = Outcome(8, 40, True, 80, (20,), ("Start 8, T = 40 steps: T = 80 fluctuates.", "But T = 20 fluctuates."))
    return dataclasses.replace(empty, probes=PROBES, outcome=outcome, cost=empty.cost_of(PROBES))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = TuneDir(tmp_path, "t")
    unfinished = dataclasses.replace(record(), outcome=None)
    for original in (record(), unfinished):
        search_record.write(folder, original)
        assert search_record.read(folder) == original


def test_the_keys_of_the_file(tmp_path: Path) -> None:
    folder = TuneDir(tmp_path, "t")
    search_record.write(folder, record())
    plain = json.loads(folder.search.read_text())
    assert list(plain) == ["name", "settings", "run", "probes", "cost", "outcome"]
    assert plain["run"] == {"tokens": 20_000, "flops": 5e10}
    assert [probe["worst_ratio"] for probe in plain["probes"]] == [None, 1.05]
    assert plain["cost"] == {
        "probes": 2,
        "tokens": 3000,
        "train_seconds": 16.0,
        "eval_seconds": 5.0,
        "share_of_tokens": 0.15,  # 3,000 of 20,000
        "share_of_flops": 0.1,  # 5e9 of 5e10
    }
    assert plain["outcome"]["contradictions"] == [20]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "t", "settings": {}, "probes": [{}]}', "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    folder = TuneDir(tmp_path, "t")
    folder.root.mkdir(parents=True)
    folder.search.write_text(content)
    with pytest.raises(UserError, match=r"search\.json: not the record of a search .*; delete it and tune again"):
        search_record.read(folder)


def test_a_missing_file_is_not_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        search_record.read(TuneDir(tmp_path, "t"))

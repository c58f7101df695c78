"""zeroshot.json: one parser for the command that writes it and the comparison that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cl_bench.errors import UserError
from cl_bench.runs import zeroshot_record
from cl_bench.runs.paths import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path, "r")
    folder.root.mkdir(parents=True)
    return folder


def wiki(step: int, ppl: float, **how: Any) -> dict[str, Any]:
    return {"step": step, "word_ppl": ppl, "window": 64, "stride": 32, "data_sha256": "d", "tokenizer": "gpt2"} | how


def test_results_are_added_and_replaced(run: RunDir) -> None:
    assert zeroshot_record.read(run) == []
    for entry in (wiki(4, 20.0), wiki(4, 19.0, stride=16), wiki(8, 15.0), wiki(4, 21.0)):
        zeroshot_record.add(run, "wikitext103", entry)
    zeroshot_record.add(run, "lambada", {"step": 8, "accuracy": 0.5, "strict": True})
    results = zeroshot_record.read(run)
    assert [(r.task, r.step, r.value, r.measurement[2]) for r in results] == [
        ("wikitext103", 4, 19.0, 16),
        ("wikitext103", 8, 15.0, 32),
        ("wikitext103", 4, 21.0, 32),  # in place of 20, measured alike
        ("lambada", 8, 0.5, None),
    ]
    assert results[1].measurement == results[2].measurement != results[0].measurement
    assert zeroshot_record.entries(run)["wikitext103"][2] == wiki(4, 21.0)


@pytest.mark.parametrize("text", ["{", "[]", '{"wikitext103": 3}', '{"wikitext103": [3]}'])
def test_a_damaged_file_is_refused_and_kept(run: RunDir, text: str) -> None:
    run.zeroshot.write_text(text)
    for call in (lambda: zeroshot_record.read(run), lambda: zeroshot_record.add(run, "wikitext103", wiki(4, 20.0))):
        with pytest.raises(UserError, match=r"zeroshot\.json: not zero-shot results; delete it and evaluate again"):
            call()
    assert run.zeroshot.read_text() == text


@pytest.mark.parametrize("entry", [{"step": 4}, {"step": "x", "word_ppl": 3}, {"step": 4, "word_ppl": None}])
def test_an_entry_without_its_metric_or_step_is_damage(run: RunDir, entry: dict[str, Any]) -> None:
    run.zeroshot.write_text(json.dumps({"wikitext103": [entry]}))
    with pytest.raises(UserError, match="not zero-shot results"):
        zeroshot_record.read(run)

"""Tuning without training: probes see the schedules of the whole run; records, presets and the page; bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.page import tune as tune_page
from cl_bench import config, schedules, sweep
from cl_bench.cli import main
from cl_bench.config.schema import ConfigError
from cl_bench.config.tune import TuneConfig
from cl_bench.errors import RunsFailed, UserError
from cl_bench.launch import display, plan
from cl_bench.runs import records, search_record, status
from cl_bench.runs.paths import RunDir, TuneDir
from cl_bench.tune import probe
from cl_bench.tune import run as tune
from tests.conftest import LINEAR, run_config

TUNING = TuneConfig(name="t", starts=(8, 16), low=10, high=80, resolution=10)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display.console, "width", 120)
    monkeypatch.setattr(sys, "argv", ["tune"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


# --- probes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    start=st.sampled_from([8, 16, 32]),
    duration=st.integers(1, 60),
    optim=st.sampled_from([{"warmup_tokens": 1500}, {"warmup_tokens": None, "warmup_steps": 7}]),
    decay=st.sampled_from(["tokens", "steps"]),
    warmup=st.sampled_from([{}, {"start": 4, "increment": 2, "duration": 60.0}]),
)
def test_a_probe_is_the_beginning_of_the_whole_run(
    start: int, duration: int, optim: dict[str, Any], decay: str, warmup: dict[str, Any]
) -> None:
    run = run_config(optim={"lr": 2e-3, "decay": decay, **optim}, batch_warmup=warmup)
    whole = probe.candidate(run, TUNING, start, duration)
    short = probe.probe(run, TUNING, start, duration)
    assert short.token_budget < whole.token_budget
    lr, short_lr = schedules.LRSchedule.from_config(whole), schedules.LRSchedule.from_config(short)
    steps = schedules.extent(short).steps
    for step in range(1, steps + 1):
        before = schedules.tokens_after(whole, step - 1)
        assert schedules.tokens_after(short, step) == schedules.tokens_after(whole, step)
        assert short_lr.at(step, before) == lr.at(step, before)
    if "warmup_steps" in optim:
        assert steps == 21
    else:
        assert schedules.tokens_after(short, steps - 1) < 4500 <= schedules.tokens_after(short, steps)


def test_evaluations_of_a_probe() -> None:
    tuning = dataclasses.replace(TUNING, evaluations=15)
    run = run_config()  # 500 tokens of warmup, evaluated every 2,000 tokens
    assert probe.probe(run, tuning, 8, 20).evaluation.interval_tokens == 100
    run = run_config(evaluation={"interval_tokens": 30})
    assert probe.probe(run, tuning, 8, 20).evaluation.interval_tokens == 30


def test_values_searched_by_default() -> None:
    space = probe.space(run_config(), TuneConfig())
    assert space.starts == (8, 16, 32)  # 64 is the full length
    assert space.durations == tuple(range(2, 41, 2))  # 40 steps of 8 x 64 tokens, and a twentieth of that


def test_a_curriculum_of_the_users_keeps_its_shape() -> None:
    root = {**LINEAR, "name": "mine", "schedule": "fixed_root", "root_degree": 2, "mode": "reshape"}
    curriculum = probe.candidate(run_config(curriculum=root), TUNING, 16, 30).curriculum
    assert (curriculum.schedule, curriculum.root_degree, curriculum.mode) == ("fixed_root", 2, "reshape")
    assert (curriculum.min_difficulty, curriculum.duration, curriculum.duration_unit) == (16, 30, "steps")


# --- the whole search, with training faked ----------------------------------------------------------------------------


class Trainer:
    """Writes records as a run would leave them: perplexity rises by half at the end where T is above `largest`."""

    def __init__(self, largest: int = 40, state: status.State = "DONE") -> None:
        self.largest, self.state = largest, state
        self.trained: list[tuple[int, float]] = []
        self.interrupt_at = 0

    def __call__(
        self, configs: Sequence[config.RunConfig], settings: config.LaunchConfig, **how: Any
    ) -> list[float | None]:
        (tuning,) = configs
        assert settings.wait
        assert how["terse"]
        assert not how["is_sweep"]
        if self.interrupt_at and len(self.trained) == self.interrupt_at:
            raise KeyboardInterrupt
        self.trained.append((tuning.curriculum.min_difficulty, tuning.curriculum.duration or 0))
        run = RunDir(settings.outputs, plan.build(configs, settings, how["corpora"]).runs[0].run_id)
        writer = records.RecordWriter(run, 0)
        fluctuates = (tuning.curriculum.duration or 0) > self.largest
        for i, ppl in enumerate([256.0, 100.0, 50.0, 30.0, 45.0 if fluctuates else 20.0]):
            tokens = tuning.token_budget * i // 4
            row = {"step": i, "consumed_tokens": tokens, "val_loss": math.log(ppl), "val_ppl": ppl}
            writer.write("eval", row | {"eval_seconds": 0.5, "train_seconds": 2.0 * i})
        writer.close()
        done = status.Status(consumed_tokens=tuning.token_budget, train_seconds=8.0)
        status.write(run, done, state=self.state)
        return [math.log(20.0)]


def launched(outputs: Path, text: Path, train: Trainer, tuning: TuneConfig = TUNING, **settings: Any) -> bool:
    run = run_config(data={"path": str(text)})
    return tune.tune(run, config.LaunchConfig(outputs=str(outputs), **settings), tuning, train, tune_page.write)


def test_files_of_a_search(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = Trainer()
    assert launched(tmp_path, text, train)
    assert train.trained == [(8, 80), (8, 40), (8, 60), (8, 50), (8, 20)]
    folder = TuneDir(tmp_path, "t")
    search = json.loads(folder.search.read_text())
    assert [p["purpose"] for p in search["probes"]] == ["start", "T", "T", "T", "check"]
    assert [p["steady"] for p in search["probes"]] == [False, True, False, False, True]
    assert all(p["begins_steady"] for p in search["probes"])
    # 5 probes of 1,500 tokens, of a run of 40 steps of 8 x 64.
    assert search["cost"] | {"share_of_flops": None} == {
        "probes": 5,
        "tokens": 7500,
        "train_seconds": 40.0,
        "eval_seconds": 12.5,
        "share_of_tokens": 7500 / 20480,
        "share_of_flops": None,
    }
    assert 0 < search["cost"]["share_of_flops"] < 7500 / 20480  # short sequences take less a token
    assert search["outcome"]["duration"] == 40
    out = capsys.readouterr().out
    assert "probe 3  start 8, T 60: fluctuates later, 1.5x its best at 1,500 tokens  (1.5K tokens in 0:08)" in out
    assert "Start 8, T = 40 steps: T = 50 fluctuates." in out
    assert "37% of a whole run's tokens" in out
    assert "Start 8, T = 40 steps" in folder.page.read_text()


def test_an_interrupted_search_resumes(tmp_path: Path, text: Path) -> None:
    first = Trainer()
    first.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        launched(tmp_path, text, first)
    folder = TuneDir(tmp_path, "t")
    half = json.loads(folder.search.read_text())
    assert (len(half["probes"]), half["outcome"]) == (2, None)
    assert "The search has not ended." in folder.page.read_text()
    second = Trainer()
    assert launched(tmp_path, text, second)
    assert first.trained + second.trained == [(8, 80), (8, 40), (8, 60), (8, 50), (8, 20)]  # each once
    whole = json.loads(folder.search.read_text())
    assert whole["probes"][:2] == half["probes"]
    third = Trainer()
    assert launched(tmp_path, text, third)
    assert third.trained == []
    assert json.loads(folder.search.read_text()) == whole


def test_an_earlier_search_is_not_overwritten(tmp_path: Path, text: Path) -> None:
    launched(tmp_path, text, Trainer())
    before = TuneDir(tmp_path, "t").search.read_text()
    with pytest.raises(ConfigError, match=r"other settings \(tune.threshold: 1.3, now 1.5\); choose another tune.name"):
        launched(tmp_path, text, Trainer(), dataclasses.replace(TUNING, threshold=1.5))
    assert TuneDir(tmp_path, "t").search.read_text() == before
    other = Trainer()
    assert launched(tmp_path, text, other, dataclasses.replace(TUNING, name="u"))
    assert other.trained == []  # the same probes are the same runs
    TuneDir(tmp_path, "t").search.write_text("{}")
    with pytest.raises(UserError, match=r"not the record of a search .*; delete it and tune again"):
        launched(tmp_path, text, Trainer())


def test_nothing_found_leaves_no_preset(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not launched(tmp_path, text, Trainer(largest=0))
    assert "No steady T" in capsys.readouterr().out
    assert not TuneDir(tmp_path, "t").preset.exists()
    assert json.loads(TuneDir(tmp_path, "t").search.read_text())["outcome"]["duration"] is None


def test_a_probe_that_diverged_fluctuates(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not launched(tmp_path, text, Trainer(largest=100, state="DIVERGED"))
    assert "diverged" in capsys.readouterr().out


def test_a_probe_that_is_not_over_ends_the_search(tmp_path: Path, text: Path) -> None:
    with pytest.raises(RunsFailed, match="the probe did not finish"):
        launched(tmp_path, text, Trainer(state="PREEMPTED"))
    assert not TuneDir(tmp_path, "t").search.exists()


def test_a_dry_run_trains_and_writes_nothing(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = Trainer()
    assert launched(tmp_path, text, train, dry_run=True)
    assert train.trained == []
    assert not list(tmp_path.iterdir())
    assert (
        "at most 6 probes of 1.5K tokens, 3 LR warmups each; together at most about 44% of" in capsys.readouterr().out
    )


def test_the_presets_can_be_used_unchanged(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(tmp_path / "out", text, Trainer())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    folder = TuneDir(tmp_path / "out", "t")
    (tmp_path / "sweeps" / "t.yaml").write_bytes(folder.sweep.read_bytes())
    assert sweep.main(["-m", "sweeps=t", "dry_run=true"]) == 0
    with (tmp_path / "outputs/sweeps/t/plan.csv").open() as file:
        rows = {row["cell"]: row for row in csv.DictReader(file)}
    run = run_config(data={"path": str(text)})
    tuned = schedules.extent(probe.candidate(run, TUNING, 8, 40))
    assert {cell: int(row["steps"]) for cell, row in rows.items()} == {"baseline": 40, "t": tuned.steps}
    preset = yaml.safe_load(folder.preset.read_text())
    assert schedules.extent(run_config(data={"path": str(text)}, curriculum=preset)) == tuned


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_escapes_names_and_loads_nothing(tmp_path: Path, text: Path) -> None:
    launched(tmp_path, text, Trainer())
    folder = TuneDir(tmp_path, "t")
    plain = json.loads(folder.search.read_text())
    evil = "<script>alert(1)</script>"
    plain["outcome"]["words"] = [evil, evil]
    plain["probes"][0]["run_id"] = evil
    plain["probes"][0]["worst_ratio"] = None
    folder.search.write_text(json.dumps(plain))
    search = search_record.read(folder)
    curve = {"step": range(3), "consumed_tokens": [0, 1000, 2000], "train_seconds": 0.0}
    evals = pd.DataFrame({"run_id": evil, **curve, "val_ppl": [256.0, math.nan, 30.0]})
    train = pd.DataFrame({"run_id": evil, "step": [0], "seqlen": [8]})
    page = tune_page.render(search, evals, train, preset=evil)
    assert evil not in page
    assert page.split("<script>")[0].count("<script") == 1  # the data
    assert page.count(escape(evil)) == 4  # headline, caveat, run and preset
    assert "not finite" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page.split("<script>")[0])
    figures = json.loads(page.split('id="report-data">')[1].split("</script>")[0])["figures"]
    assert figures["probes"]["data"][0]["y"] == [256, 30]
    assert "no probe has an evaluation yet" in tune_page.render(search, evals.iloc[:0], train)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = TuneDir(tmp_path, "t")
    folder.root.mkdir(parents=True)
    for content in ("", "[]", '{"probes": [{}]}'):
        folder.search.write_text(content)
        with pytest.raises(UserError, match=r"not the record of a search"):
            tune_page.write(folder)


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_INPUT = [
    (["tune.high=0"], "tune.high = 0: a curriculum lasts at least one step; raise it"),
    (["tune.low=0"], "tune.low = 0: a curriculum lasts at least one step"),
    (["tune.resolution=-5"], "tune.resolution = -5: a curriculum lasts at least one step"),
    (["tune.low=9", "tune.high=5"], "tune.low = 9 is above tune.high = 5"),
    (["tune.low=11", "tune.high=19", "tune.resolution=10"], "no multiple of it lies between T = 11 and 19"),
    (["tune.threshold=1"], "tune.threshold = 1: must be greater than 1"),
    (["tune.warmups=0.5"], "tune.warmups = 0.5: must be greater than or equal to 1"),
    (["tune.warmups=13"], "a probe would consume 65,000 tokens, and the run itself ends at 60,000"),
    (["tune.evaluations=4"], "tune.evaluations = 4: 1 of them fall within the first of 3 LR warmups"),
    (["tune.skip=9", "optim.warmup_tokens=512"], "tune.skip = 9: the LR warmup has"),
    (["tune.starts=[64]"], "tune.starts = 64 is not below the final length, 64 tokens"),
    (["tune.starts=[12]"], "tune.starts = 12 is not a multiple of curriculum.difficulty_step = 8"),
    (["tune.starts=[16,8]"], "tune.starts = [16, 8]: must be lengths above 0 that increase"),
    (["tune.starts=[0]"], "tune.starts = [0]: must be lengths above 0"),
    (["max_seqlen=8"], "tune.starts = []: none of 8, 16, 32, 64 is below the final length (8 tokens)"),
    (["tune.name=a/b"], "tune.name = 'a/b' names a folder and a preset"),
    (["tune.hihg=5"], "tune.hihg: unknown key; did you mean 'tune.high'?"),
    (["tune=3"], "tune = 3: must be a group of keys"),
    (["curriculum=two_stage"], "curriculum.schedule = fixed_discrete: has no start length and T"),
    (["optim.warmup_tokens=null"], "optim.warmup_steps and optim.warmup_tokens are unset or 0"),
    (["optim.lr=1e-3,2e-3"], "several values make a grid; tune takes one run: give one value"),
    (["-m"], "-m makes a grid"),
    (["outputs=/dev/null/x"], "outputs = /dev/null/x: cannot be created"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(a) for a, _ in BAD_INPUT])
def test_bad_input_is_one_clear_line_and_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["tune", "sweeps=smoke", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "outputs" / "runs").exists()


def test_tune_keys_mean_nothing_to_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["sweeps=smoke", "tune.high=5"]) == 2
    assert "tune.high: unknown key" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["tune", "--help"]) == 0
    assert "  tune.threshold=1.3" in capsys.readouterr().out

"""A sweep beside the published experiment: what stands beside published figures, what never does, what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis import load_runs
from analysis.__main__ import main
from analysis.paper import compare
from analysis.paper.facts import CLAIMS, EXPERIMENTS, GPT2_117M, GPT2_1558M, GPT3_125M
from analysis.paper.match import differences, match
from analysis.paper.tables import ppl, saving_words
from analysis.stats.intervals import Estimate
from cl_bench import schedules
from cl_bench.cli import main as cli
from cl_bench.runs import status
from cl_bench.runs.paths import RunDir, SweepDir
from tests.analysis.folders import make_run, make_sweep
from tests.analysis.published_runs import CELLS, SMALL_117M, gpt2, gpt3, linear, made, named_sweep, two_stage
from tests.analysis.tables import verdict
from tests.conftest import resolved

SWEEPS = Path(__file__).parents[3] / "sweeps"
BASE, CL = [5, 4, 3, 2.5, 2], [5, 3, 2.5, 1.5, 1.2]
"""Baseline: 2 at 4,000 tokens. Curriculum: 2 half way from 2.5 at 2,000 to 1.5 at 3,000, so 2,500: 37.5% saved."""
REPLICA: dict[str, Any] = {"token_budget": 1_500_000}


def cell_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    cell: dict[str, Any]
    (cell,) = [c for c in found["cells"] if c["name"] == name]
    return cell


def build(folder: Path) -> dict[str, Any]:
    return compare.build(folder).plain()


def claim_of(found: dict[str, Any], version: str, at: str, what: str) -> list[dict[str, Any]]:
    (claim,) = [c for c in found["claims"] if (c["version"], c["at"], c["what"]) == (version, at, what)]
    measured: list[dict[str, Any]] = claim["measured_here"]
    return measured


def zeroshot(run: RunDir, *results: tuple[int, float, float], **how: Any) -> None:
    """zeroshot.json with (step, word_ppl, accuracy) for each save."""
    common = {"data_sha256": "d", "window": 64, "tokenizer": "gpt2"} | how
    found = {
        "wikitext103": [{"step": s, "word_ppl": p, "stride": 32, **common} for s, p, _ in results],
        "lambada": [{"step": s, "accuracy": a, "strict": False, **common} for s, _, a in results],
    }
    run.zeroshot.write_text(json.dumps(found))


# --- which cell a run is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_the_large_model_is_known_by_its_values(name: str) -> None:
    config = resolved(**CELLS[name])
    found = match(config, "any name", None)
    assert found.is_published
    assert (found.experiment, found.cell and found.cell.name) == (GPT2_1558M, name)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_published_end_steps_follow_from_the_published_values(experiment: Any) -> None:
    # pacing plans every length and batch; the published step is its step or the facts here are wrong.
    settings = {
        "baseline_512": CELLS["baseline_512"],
        "baseline_4096": CELLS["baseline_4096"],
        "cl_v1": CELLS["cl_v1"],
        "cl_later": CELLS["cl_later"],
        "cl_example": gpt2(512, 1.5e-4, model=SMALL_117M, curriculum=linear(8, 60_000)),
        "baseline": gpt3(256, 6e-4, batch_warmup={"start": 16, "increment": 16, "duration": 1_953_125}),
        "baseline_fixed_batch": gpt3(256, 6e-4),
        "cl_60b": gpt3(
            2048, 2.4e-3, curriculum=linear(72, 1) | {"duration": 60_000_000_000, "duration_unit": "tokens"}
        ),
        "cl_45b": gpt3(
            2048, 2.4e-3, curriculum=linear(72, 1) | {"duration": 45_000_000_000, "duration_unit": "tokens"}
        ),
    }
    for cell in experiment.cells:
        if cell.standing == "named":
            assert cell.end_step is None
            continue
        config = resolved(**settings[cell.name])
        assert differences(config, experiment, cell) == []
        assert cell.end_step in (None, schedules.extent(config).steps)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_published_cells_are_named_as_the_sweeps_name_them(experiment: Any) -> None:
    sweep = yaml.safe_load((SWEEPS / f"{experiment.name}.yaml").read_text())
    assert {c.name for c in experiment.cells} <= set(sweep["hydra"]["sweeper"]["cells"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim": {"beta2": 0.95}}, "optim.beta2 = 0.95 (published 0.999)"),
        ({"optim": {"lr": 1e-3}}, "optim.lr = 1e-3 (published 6e-4)"),
        ({"token_budget": 150_000_000_000}, "token_budget = 150,000,000,000 (published 157,286,400,000)"),
        ({"curriculum": linear(128, 15_000)}, "warmup start = 128 (published 64)"),
        ({"curriculum": linear(64, 20_000)}, "warmup end = 20,000 (published 15,000)"),
        ({"curriculum": linear(64, 15_000) | {"mode": "reshape"}}, "method = fixed_linear (published length)"),
        ({"model": SMALL_117M}, "model.n_layers = 12 (published 48)"),
        ({"global_batch_size": 2048}, "global_batch_size = 2,048 (published 4,096)"),
    ],
)
def test_one_other_value_makes_another_cell(change: dict[str, Any], said: str) -> None:
    settings = CELLS["cl_v1"] | change | {"optim": CELLS["cl_v1"]["optim"] | change.get("optim", {})}
    config = resolved(**settings)
    cl_v1 = next(c for c in GPT2_1558M.cells if c.name == "cl_v1")
    assert said in differences(config, GPT2_1558M, cl_v1)
    assert not match(config, "cl_v1", None).is_published


def test_a_cell_with_an_altered_setting_says_which(tmp_path: Path) -> None:
    altered = [
        made(tmp_path, "baseline_512", BASE, gpt2(512, 1.5e-4, optim={"weight_decay": 0.1})),
        made(tmp_path, "cl_v1", CL, gpt2(4096, 6e-4, curriculum=linear(64, 15_000), optim={"weight_decay": 0.1})),
    ]
    found = build(named_sweep(tmp_path, altered))
    assert [o["why"] for o in found["others"]] == [
        f"not GPT-2 1.5B's {name}: optim.weight_decay = 0.1 (published 0.01)" for name in ("baseline_512", "cl_v1")
    ]
    assert not any(c["measured_here"] for c in found["cells"])
    assert not found["same_shape"]


def test_values_win_over_a_wrong_name_and_it_is_said(tmp_path: Path) -> None:
    found = build(named_sweep(tmp_path, [made(tmp_path, "cl_v1", CL, CELLS["cl_later"])]))
    assert not cell_of(found, "cl_v1")["measured_here"]
    assert len(cell_of(found, "cl_later")["measured_here"]) == 1
    assert found["notes"] == ["The sweep's cell cl_v1 has the values of GPT-2 1.5B cl_later, and stands there."]


# --- measured figures -------------------------------------------------------------------------------------------------


def test_all_cells_one_seed_by_hand(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, name, CL if "cl" in name else BASE, train_losses=[2.0, 3.0, 1.0, 1.6] if "4096" in name else [])
        for name in CELLS
    ]
    found = build(named_sweep(tmp_path, runs))
    assert all(len(c["measured_here"]) == 1 for c in found["cells"])
    assert found["same_shape"] == found["others"] == []
    baseline = cell_of(found, "baseline_4096")["measured_here"][0]
    assert baseline["final_ppl"] == pytest.approx(7.38906, rel=1e-5)  # exp(2)
    assert baseline["max_loss_ratio"] == 1.6
    assert (baseline["steps_above_1_2"], baseline["steps_above_1_5"], baseline["steps"]) == (2, 1, 4)  # 1.5 and 1.6
    assert "saved" not in baseline
    (v1,) = claim_of(found, "v1", "validation", "tokens")
    assert v1["cell"] == "cl_v1"
    assert v1["saved"] == {"value": pytest.approx(0.375), "low": None, "high": None, "seeds": 1}
    later = claim_of(found, "v2", "validation", "time")
    assert [(e["cell"], e["saved"]["value"]) for e in later] == [
        ("cl_v1", pytest.approx(0.375)),
        ("cl_later", pytest.approx(0.375)),
    ]
    assert "no zero-shot result" in claim_of(found, "v3", "zero-shot", "tokens")[0]["why_not"]
    assert cell_of(found, "two_stage")["measured_here"][0]["saved"]["tokens"]["value"] == pytest.approx(0)


def test_several_seeds_have_the_interval_of_savings(tmp_path: Path) -> None:
    runs = []
    for seed, last in ((1, 1.2), (2, 1.0)):
        runs += [
            made(tmp_path, "baseline_512", BASE, seed=seed),
            made(tmp_path, "cl_v1", [5, 3, 2.5, last], seed=seed),
        ]
    found = build(named_sweep(tmp_path, runs))
    (entry,) = claim_of(found, "v1", "validation", "tokens")
    # Seed 1 crosses 2 at 2,000 + 0.5/1.3 x 1,000, seed 2 at 2,000 + 0.5/1.5 x 1,000, of 4,000: ratios 0.59615, 0.58333.
    # Geometric mean 0.58971; half-width of the log: 12.7062 x 0.010866 = 0.13806.
    assert entry["saved"]["value"] == pytest.approx(1 - 0.58971, abs=1e-5)
    assert entry["saved"]["low"] == pytest.approx(1 - 0.58971 * 1.14804, abs=1e-4)
    assert entry["saved"]["high"] == pytest.approx(1 - 0.58971 / 1.14804, abs=1e-4)
    cell = cell_of(found, "cl_v1")["measured_here"][0]
    assert cell["final_ppl_seeds"] == 2
    assert cell["final_ppl"] == pytest.approx(3.00417, rel=1e-5)  # exp(1.1), the geometric mean
    assert [r["seed"] for r in cell["runs"]] == [1, 2]


def test_what_is_missing_or_unfinished_is_said(tmp_path: Path) -> None:
    only_cl = build(named_sweep(tmp_path / "a", [made(tmp_path / "a", "cl_v1", CL)]))
    assert claim_of(only_cl, "v1", "validation", "tokens")[0]["why_not"] == "no run of baseline_512"
    assert [e["why_not"] for e in claim_of(only_cl, "v1", "stability", "")] == ["no run of baseline_4096", ""]
    out = tmp_path / "b"
    run = made(out, "baseline_512", BASE[:2], state="PREEMPTED", train_losses=[3.0, 2.9])
    status.write(run[1], status.read(run[1]), steps=300_000)
    partial = build(named_sweep(out, [run, made(out, "cl_v1", CL)]))
    (entry,) = claim_of(partial, "v1", "validation", "time")
    assert entry["why_not"] == "baseline_512 is not finished (preempted)"
    assert claim_of(partial, "v2", "validation", "time")[1]["why_not"] == "no run of cl_later"
    (shown,) = cell_of(partial, "baseline_512")["measured_here"][0]["runs"]
    assert (shown["step"], shown["planned_steps"], shown["state"]) == (2, 300_000, "PREEMPTED")
    assert "2 of 300,000, partial, preempted" in paper_text_of(out / "sweeps" / "s")
    unreached = named_sweep(
        tmp_path / "c", [made(tmp_path / "c", "baseline_512", BASE), made(tmp_path / "c", "cl_v1", BASE[:3])]
    )
    assert claim_of(build(unreached), "v1", "validation", "time")[0]["why_not"] == ("cl_v1: never reached the target")


def paper_text_of(folder: Path) -> str:
    compare.write(folder)
    return SweepDir.at(folder).paper.read_text()


def test_a_seed_without_a_baseline_gives_no_figure(tmp_path: Path) -> None:
    runs = [made(tmp_path, "baseline_512", BASE, seed=1), *(made(tmp_path, "cl_v1", CL, seed=s) for s in (1, 2))]
    (entry,) = claim_of(build(named_sweep(tmp_path, runs)), "v1", "validation", "tokens")
    assert entry["why_not"] == "baseline_512 has no seed 2"


def test_a_diverged_baseline(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, "baseline_512", BASE),
        made(tmp_path, "baseline_4096", [5, 4, 9], state="DIVERGED", train_losses=[2, 8]),
        made(tmp_path, "cl_v1", CL),
    ]
    found = build(named_sweep(tmp_path, runs))
    assert [(e["cell"], e["diverged"], e["of"]) for e in claim_of(found, "v1", "stability", "")] == [
        ("baseline_4096", 1, 1),
        ("cl_v1", 0, 1),
    ]
    large = cell_of(found, "baseline_4096")["measured_here"][0]
    assert (large["final_ppl"], large["diverged"], large["max_loss_ratio"]) == (None, 1, 4.0)
    small = [made(tmp_path / "b", "baseline_512", BASE, state="DIVERGED"), made(tmp_path / "b", "cl_v1", CL)]
    (entry,) = claim_of(build(named_sweep(tmp_path / "b", small)), "v1", "validation", "tokens")
    assert entry["why_not"] == "baseline_512 diverged: it has no final perplexity to compare at"


def test_losses_that_are_not_finite_are_no_figures(tmp_path: Path) -> None:
    infinite = made(tmp_path, "baseline_512", [5, 800.0], seed=2)
    found = build(named_sweep(tmp_path, [infinite, made(tmp_path, "cl_v1", CL, seed=2)]))
    assert cell_of(found, "baseline_512")["measured_here"][0]["runs"][0]["last_ppl"] is None
    json.dumps(found, allow_nan=False)


def test_another_precision_is_noted(tmp_path: Path) -> None:
    run = made(tmp_path, "baseline_512", BASE, deepspeed={"precision": "bf16"})
    assert build(named_sweep(tmp_path, [run]))["notes"] == ["baseline_512 ran in bf16; the published runs in fp16."]


# --- zero-shot --------------------------------------------------------------------------------------------------------


def zeroshot_pair(out: Path) -> tuple[RunDir, RunDir, Path]:
    losses = [3.0, 2.9, 2.8, 2.7]  # steps 1 to 4, 100 tokens and a second each
    base = make_run(out, BASE, tokens=[0, 100, 200, 300, 400], train_losses=losses, **CELLS["baseline_512"])
    cl = make_run(out, CL, tokens=[0, 100, 200, 300, 400], train_losses=losses, **CELLS["cl_v1"])
    return base, cl, named_sweep(out, [("baseline_512", base), ("cl_v1", cl)])


def test_zero_shot_by_hand(tmp_path: Path) -> None:
    base, cl, folder = zeroshot_pair(tmp_path)
    zeroshot(base, (4, 20.0, 0.5))
    # Step 2 has the perplexity and not the accuracy, step 3 both: 300 of 400 tokens.
    zeroshot(cl, (1, 30.0, 0.6), (2, 19.0, 0.4), (3, 19.5, 0.5), (4, 18.0, 0.7))
    found = build(folder)
    (entry,) = claim_of(found, "v1", "zero-shot", "tokens")
    assert (entry["saved"]["value"], entry["at_least"]) == (pytest.approx(0.25), True)
    cell = cell_of(found, "cl_v1")["measured_here"][0]["zeroshot"]
    assert (cell["wikitext103"]["mean"], cell["lambada"]["mean"]) == (18.0, 0.7)
    text = paper_text_of(folder)
    assert "cl\\_v1: at least −25% (one seed: no interval)" in text
    assert "cl\\_v1: at least 1.3x fewer (one seed: no interval)" in text
    assert "| WikiText-103 ppl | – | 18.00 |" in text
    assert "| LAMBADA accuracy | – | 70.00% |" in text


def test_zero_shot_results_measured_otherwise_do_not_count(tmp_path: Path) -> None:
    base, cl, folder = zeroshot_pair(tmp_path)
    zeroshot(base, (4, 20.0, 0.5))
    zeroshot(cl, (3, 10.0, 0.9), window=32)
    (entry,) = claim_of(build(folder), "v1", "zero-shot", "time")
    assert entry["why_not"] == "no evaluated save of cl_v1 is as good as baseline_512 in both tasks"
    zeroshot(base, (3, 20.0, 0.5))  # not its end
    (entry,) = claim_of(build(folder), "v1", "zero-shot", "time")
    assert entry["why_not"] == "the end of baseline_512 has no zero-shot result of wikitext103 and lambada"


@pytest.mark.parametrize("text", ["{", "[]", '{"wikitext103": 3}', '{"wikitext103": [{"word_ppl": 3}]}'])
def test_a_damaged_zero_shot_file_is_no_result(tmp_path: Path, text: str) -> None:
    base, _, folder = zeroshot_pair(tmp_path)
    base.zeroshot.write_text(text)
    assert cell_of(build(folder), "baseline_512")["measured_here"][0]["zeroshot"]["wikitext103"] is None


# --- replicas ---------------------------------------------------------------------------------------------------------


def replica(out: Path, seed: int = 1) -> list[tuple[str, RunDir]]:
    """The grid at 8 and 64 sequences, 1x and 4x LR, 366 baseline steps at the large batch: 146 are 40% of them."""

    def tiny(batch: int, lr: float, **more: Any) -> dict[str, Any]:
        return REPLICA | {"global_batch_size": batch, "optim": {"lr": lr}, "seed": seed, **more}

    share = {"duration": 0.4, "duration_unit": "baseline_fraction"}
    ramp = {"start": 8, "increment": 8, "duration": 600_000, "duration_unit": "tokens"}
    cells = {
        "small": (BASE, tiny(8, 2e-3)),
        "large": (BASE, tiny(64, 8e-3)),
        "slower": (BASE, tiny(64, 2e-3)),
        "linear": (CL, tiny(64, 8e-3, curriculum=linear(8, 1) | share)),
        "staged": (CL, tiny(64, 8e-3, curriculum=two_stage(32, 0.4, "baseline_fraction"))),
        "ramped": (CL, tiny(64, 8e-3, batch_warmup=ramp)),
        "half as long": (CL, tiny(64, 8e-3, curriculum=linear(8, 1) | share | {"duration": 0.2})),
        "other rate": (CL, tiny(8, 8e-3)),
    }
    return [made(out, name, losses, settings) for name, (losses, settings) in cells.items()]


def test_a_replica_never_stands_beside_published_figures(tmp_path: Path) -> None:
    folder = named_sweep(tmp_path, [r for seed in (1, 2) for r in replica(tmp_path, seed)])
    found = build(folder)
    shapes = {s["measured_here"]["cell"]: s["shape_of"].removeprefix("GPT-2 1.5B ") for s in found["same_shape"]}
    assert shapes == {
        "small": "baseline_512",
        "large": "baseline_4096",
        "slower": "lower_lr",
        "linear": "cl_v1",
        "staged": "two_stage",
        "ramped": "batch_warmup",
    }
    assert {o["measured_here"]["cell"]: o["why"] for o in found["others"]} == {
        "half as long": "no published cell has its shape (fixed_linear, 8x batch, 4x LR, warmup over 20% of the "
        "baseline's steps)",
        "other rate": "no published cell has its shape (baseline, 1x batch, 4x LR)",
    }
    assert not any(c["measured_here"] for c in found["cells"])
    assert all(e["why_not"] for c in found["claims"] for e in c["measured_here"])
    linear_cell = next(s["measured_here"] for s in found["same_shape"] if s["measured_here"]["cell"] == "linear")
    assert linear_cell["saved"]["against"] == "small"
    assert linear_cell["saved"]["tokens"]["value"] == pytest.approx(0.375)
    apart = paper_text_of(folder).split("## Same shape at another scale")[1]
    assert "| cell |  | measured here |" in apart
    for figure in ("300,000", "44,589", "59%", "54%", "6e-4"):
        assert figure not in apart


def test_the_small_published_model_repeats_the_large_ones_grid(tmp_path: Path) -> None:
    settings = {
        "baseline_512": gpt2(512, 1.5e-4, model=SMALL_117M),
        "cl_example": gpt2(512, 1.5e-4, model=SMALL_117M, curriculum=linear(8, 60_000)),
        "cl_v1": gpt2(4096, 6e-4, model=SMALL_117M, curriculum=linear(64, 15_000)),
    }
    runs = [made(tmp_path, n, CL if n != "baseline_512" else BASE, s) for n, s in settings.items()]
    found = build(named_sweep(tmp_path, runs))
    assert [e["name"] for e in found["published_runs"]] == [GPT2_117M.name]
    (example,) = cell_of(found, "cl_example")["measured_here"]
    assert example["saved"]["against"] == "baseline_512"
    assert [s["shape_of"] for s in found["same_shape"]] == ["GPT-2 1.5B baseline_512", "GPT-2 1.5B cl_v1"]


def test_gpt3_is_measured_against_its_ramped_baseline(tmp_path: Path) -> None:
    ramp = {"start": 16, "increment": 16, "duration": 1_953_125}
    by_tokens = {"duration": 45_000_000_000, "duration_unit": "tokens"}
    runs = [
        made(tmp_path, "baseline", BASE, gpt3(256, 6e-4, batch_warmup=ramp)),
        made(tmp_path, "cl_45b", CL, gpt3(2048, 2.4e-3, curriculum=linear(72, 1) | by_tokens)),
    ]
    found = build(named_sweep(tmp_path, runs))
    assert [e["name"] for e in found["published_runs"]] == [GPT3_125M.name]
    (measured,) = cell_of(found, "cl_45b")["measured_here"]
    assert (measured["saved"]["against"], measured["saved"]["tokens"]["value"]) == ("baseline", pytest.approx(0.375))
    assert {c["series"] for c in found["claims"]} == {"GPT-3"}
    assert all(e["why_not"] for c in found["claims"] for e in c["measured_here"])


# --- in words, and the command ----------------------------------------------------------------------------------------


def test_figures_in_words() -> None:
    three = Estimate(0.58, 0.5, 0.65, n=3)
    assert saving_words(three) == "−58% (95%: −65% to −50%, 3 seeds)"
    assert saving_words(three, "factor", "tokens") == "2.4x fewer (95%: 2.0x to 2.9x, 3 seeds)"
    cost = Estimate(-0.1, n=1)
    assert saving_words(cost) == "+10% (one seed: no interval)"
    assert [ppl(v) for v in (1.23456, 12.3456, 1234.56, 12345.6, 2e7)] == ["1.235", "12.35", "1,235", "12,346", "2e+07"]


def test_every_claim_has_its_version_and_source() -> None:
    assert {c.version for c in CLAIMS} == {"v1", "v2", "v3", "v4"}
    assert all(c.source and c.published for c in CLAIMS)


@pytest.mark.parametrize("width", [80, 120])
def test_the_command_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    runs = [made(tmp_path, name, CL if "cl" in name else BASE) for name in CELLS] + replica(tmp_path)
    folder = named_sweep(tmp_path, runs)
    assert cli.main(["paper", str(folder)]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert all(len(line.rstrip()) <= width for line in lines if "paper.md" not in line)
    assert "1,557,611,200 parameters" in " ".join(said.split())
    assert "seeds 1, 1234" in " ".join(said.split())
    assert sum("published" in line and "measured here" in line for line in lines) >= 2
    written = SweepDir.at(folder).paper.read_text()
    assert "| cell |  | published | measured here |" in written
    assert "| version | claim | published | measured here |" in written
    assert main(["paper", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sweep"] == "s"


def test_names_cannot_break_the_tables(tmp_path: Path) -> None:
    run = made(tmp_path, "a | b <i>\n# c", BASE, REPLICA)
    assert "a \\| b \\<i\\> # c" in paper_text_of(named_sweep(tmp_path, [run]))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "not a sweep's folder (no manifest.json)"),
        ("{", "not a manifest"),
        ('{"runs": []}', "not a manifest"),
        ('{"name": "s", "runs": []}', "holds no runs yet"),
        ('{"name": "s", "runs": [{"run_id": "gone"}]}', "holds no runs yet"),
    ],
)
def test_bad_sweeps_are_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: str | None, said: str
) -> None:
    sweep = SweepDir(tmp_path, "s")
    sweep.root.mkdir(parents=True)
    if manifest is not None:
        sweep.manifest.write_text(manifest)
    assert main(["paper", str(sweep.root)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not sweep.paper.exists()


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", str(tmp_path / "no")]) == 2
    assert "no such folder" in capsys.readouterr().err


# --- the report of a sweep that names its cells -----------------------------------------------------------------------


def test_the_report_names_the_cells(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, "baseline_512", BASE),
        made(tmp_path, "baseline_4096", [5, 4, 9], state="DIVERGED"),
        made(tmp_path, "cl_v1", CL),
        made(tmp_path, "tighter_clip", BASE),
    ]
    folder = named_sweep(tmp_path, runs)
    loaded = load_runs(folder)
    assert loaded.runs["named"].tolist() == [name for name, _ in runs]
    answer = verdict(loaded)
    assert "at batch 4096, LR 6e-4 (cl_v1)" in answer["sentence"]
    assert "to the best baseline's perplexity it needed 38% fewer tokens" in answer["sentence"]
    assert "grad_clip" not in answer["sentence"]
    assert main(["report", str(folder)]) == 0
    html = SweepDir.at(folder).report.read_text()
    by_curriculum = (
        "Largest LR",
        "Largest batch",
        "Correlation",
        "Stability over batch",
        "Final loss",
    )  # these put a curriculum's cells together
    tables = [table for table in html.split("<table><caption>")[1:] if not table.startswith(by_curriculum)]
    assert len(tables) >= 5
    assert all('<th scope="col">cell</th>' in table for table in tables)
    assert html.count("<td>cl_v1</td>") == 9


def test_a_sweep_without_names_has_no_column_of_them(tmp_path: Path) -> None:
    runs = [run for _, run in replica(tmp_path)]
    folder = make_sweep(tmp_path, runs)
    assert set(load_runs(folder).runs["named"]) == {""}
    assert main(["report", str(folder)]) == 0
    assert '<th scope="col">cell</th>' not in SweepDir.at(folder).report.read_text()

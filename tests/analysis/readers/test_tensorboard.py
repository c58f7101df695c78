"""TensorBoard events as Megatron-DeepSpeed writes them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.readers import tb_events
from analysis.readers.tensorboard import load_tensorboard
from tests.analysis.tables import savings

MEGATRON = Path(__file__).parents[1] / "data" / "megatron"


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A copy of the two runs, to be damaged."""
    return Path(shutil.copytree(MEGATRON, tmp_path / "events"))


def test_known_answer_of_two_runs() -> None:
    """The baseline ends at 3.25 after 10,240 tokens and 20 iterations of 0.5 s.

    The other was at 3.375 after 3,840 tokens (10 iterations of 0.5 s, 5 of 0.25 s) and at 2.75 after 6,208 (5 more): it
    gets to 3.25 a fifth of the way between.
    """
    row = savings(load_tensorboard(MEGATRON)).iloc[0]
    assert row["token_saving"] == pytest.approx(1 - (3840 + (6208 - 3840) / 5) / 10240, abs=1e-9)
    assert row["time_saving"] == pytest.approx(1 - (6.25 + 1.25 / 5) / 10, abs=1e-9)


def test_facts_come_from_megatrons_arguments() -> None:
    runs = load_tensorboard(MEGATRON)
    table = runs.runs.set_index("run_id")
    assert table["curriculum"].to_dict() == {"base": "baseline", "warmup": "curriculum"}
    assert table.loc["base", ["global_batch_size", "lr", "seed", "max_seqlen", "token_budget"]].tolist() == [
        8,
        0.001,
        1234,
        64,
        10240,
    ]
    assert table["state"].tolist() == ["DONE", "DONE"]
    assert table["precision"].tolist() == ["fp16", "fp16"]
    assert runs.notes == ()


def test_a_second_attempt_supersedes_the_first_past_what_it_restored() -> None:
    """The first attempt lost its way after iteration 10 (a loss of 9), and the second went on from 10."""
    train = load_tensorboard(MEGATRON).train.query("run_id == 'warmup'")
    assert train["step"].tolist() == list(range(1, 31))
    assert train["loss"].tolist() == [5 - 0.125 * min(step, 28) for step in range(1, 31)]
    assert train["attempt"].tolist() == [0] * 10 + [1] * 20
    lengths = [min(64, 16 + 8 * ((step - 1) // 3)) for step in range(1, 31)]
    assert train["seqlen"].tolist() == lengths
    assert train["consumed_tokens"].tolist() == [8 * sum(lengths[: i + 1]) for i in range(30)]
    assert train["train_seconds"].tolist() == [
        0.5 * step if step <= 10 else 5 + 0.25 * (step - 10) for step in range(1, 31)
    ]
    assert train["adam_var_l1"].tolist() == [2.0 * step for step in range(1, 31)]


def test_the_users_table_has_the_last_word(tmp_path: Path) -> None:
    told = tmp_path / "runs.csv"
    told.write_text("run,curriculum,seed\nwarmup,linear 16-64,7\nbase,baseline,7\n")
    runs = load_tensorboard(MEGATRON, told)
    assert runs.runs.set_index("run_id")["curriculum"]["warmup"] == "linear 16-64"
    assert runs.runs["seed"].tolist() == [7, 7]


def test_a_cut_end_is_forgiven_and_said(events: Path) -> None:
    last = max((events / "warmup").iterdir())
    last.write_bytes(last.read_bytes()[:-1000])
    runs = load_tensorboard(events)
    assert runs.notes == (f"{last}: its end is cut off; read up to there.",)
    assert savings(runs)["token_saving"].iloc[0] == pytest.approx(1 - 4313.6 / 10240, abs=1e-9)


def test_damage_before_the_end_is_refused(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = min((events / "base").iterdir())
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 0xFF
    first.write_bytes(data)
    assert main(["report", "--tensorboard", str(events)]) == 2
    assert "damaged at byte" in capsys.readouterr().err


def test_without_megatrons_timers_seconds_are_the_events_own(events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tb_events.read

    def untimed(path: Path) -> tb_events.Events:
        found = read(path)
        found.scalars.pop("iteration-time/iteration-time")
        for series in found.scalars.values():
            for i, step in enumerate(series.steps):
                series.walls[i] = 1e9 + 3.0 * step
        return found

    monkeypatch.setattr(tb_events, "read", untimed)
    runs = load_tensorboard(events)
    assert "no 'iteration-time/iteration-time' (--log-timers-to-tensorboard)" in runs.notes[0]
    # "vs tokens" is stamped by tokens here; the curve is read by iterations
    assert runs.train.query("run_id == 'base'")["train_seconds"].tolist() == [3.0 * step for step in range(1, 21)]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,seed\nbase,1\n", "no column 'run'; it has name, seed"),
        ("run,sed\nbase,1\n", "column 'sed' is not a fact of a run; did you mean 'seed'?"),
        ("run,seed\nbasis,1\n", "run 'basis' has no event files; did you mean 'base'?"),
    ],
)
def test_what_is_wrong_with_the_users_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, said: str
) -> None:
    (tmp_path / "runs.csv").write_text(table)
    assert main(["report", "--tensorboard", str(MEGATRON), "--runs", str(tmp_path / "runs.csv")]) == 2
    assert said in capsys.readouterr().err


def test_what_the_events_do_not_say_is_asked_for(
    events: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tb_events.read

    def mute(path: Path) -> tb_events.Events:
        found = read(path)
        found.texts.clear()
        return found

    monkeypatch.setattr(tb_events, "read", mute)
    assert main(["report", "--tensorboard", str(events)]) == 2
    assert "the events of run 'base' lack its curriculum; give it in a table" in capsys.readouterr().err
    told = events / "runs.csv"
    told.write_text("run,curriculum,seed\nbase,baseline,1\nwarmup,linear,1\n")
    runs = load_tensorboard(events, told)  # batch and learning rate are among the scalars, the restart too
    assert runs.runs[["global_batch_size", "lr"]].to_numpy().tolist() == [[8, 0.001]] * 2
    assert runs.train.query("run_id == 'warmup'")["step"].tolist() == list(range(1, 31))


def test_empty_folders_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--tensorboard", str(tmp_path)]) == 2
    assert "no event files (*tfevents*) below it" in capsys.readouterr().err
    assert main(["report", "--tensorboard", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "events.out.tfevents.1").write_bytes(b"nothing of the kind")
    assert main(["report", "--tensorboard", str(tmp_path)]) == 2
    assert "not an event file" in capsys.readouterr().err


def test_checksum_of_the_standard() -> None:
    """The check value by which catalogues name CRC-32C: that of '123456789' is 0xE3069283."""
    masked = tb_events._masked_crc(b"123456789")
    unmasked = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert ((unmasked >> 17) | (unmasked << 15)) & 0xFFFFFFFF == 0xE3069283


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    found = tb_events.read(min((MEGATRON / "base").iterdir())).scalars
    losses = found["lm-loss-validation/lm loss validation"].values
    ppl = found["lm-loss-validation/lm loss validation ppl"].values
    assert [math.exp(x) for x in losses] == pytest.approx(list(ppl), rel=1e-6)

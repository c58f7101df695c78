"""What the terminal shows fits it, and says what is known."""

from __future__ import annotations

import pytest

from cl_bench import schedules
from cl_bench.launch import display, estimate
from cl_bench.launch.grid import Planned
from cl_bench.runs.status import Status
from cl_bench.schedules import Extent
from tests.conftest import LINEAR, resolved


@pytest.fixture
def planned() -> Planned:
    config = resolved(curriculum=LINEAR)
    return Planned(
        config=config,
        run_id="tiny_linear_b8_lr2e-3_s1-0123abcd",
        curriculum="fixed_linear",
        shape="8→full over 40%",
        variant="",
        state="new",
        extent=schedules.extent(config),
        parameters=1,
        flops=1.0,
        hours=1.0,
        memory=estimate.memory(config),
    )


RUNNING = Status(
    state="RUNNING", step=1234, steps=5870, consumed_tokens=1_100_000, token_budget=2_000_000, seqlen=192, lr=1.5040e-3,
    loss=2.94, val_ppl=18.1, tokens_per_second=92_000.0,
)  # fmt: skip


def test_a_wide_terminal_shows_everything(planned: Planned) -> None:
    line = display.progress_line(3, 8, planned, RUNNING, 140).plain
    assert line == (
        "3/8 tiny_linear_b8_lr2e-3_s1-0123abcd  step 1234/5870  seqlen 192  1.1M tokens  lr 1.5e-3  loss 2.94  ppl 18.1"
        "  92K tok/s  0:10 left"
    )


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_narrow_terminal_keeps_the_numbers_and_shortens_the_name(planned: Planned, width: int) -> None:
    line = display.progress_line(3, 8, planned, RUNNING, width).plain
    assert len(line) < max(width, 66)
    assert "loss 2.94" in line
    assert "0:10 left" in line


def test_a_run_without_a_step_is_starting(planned: Planned) -> None:
    assert display.progress_line(1, 1, planned, Status(), 80).plain.endswith("starting")
    broken = Status(state="RUNNING", step=5, steps=9)  # a loss that is not finite is null in the status
    assert "loss nan" in display.progress_line(1, 1, planned, broken, 80).plain


@pytest.mark.parametrize(
    ("hours", "words"), [(0.0, "1 s"), (40 / 3600, "40 s"), (0.05, "3 min"), (2.5, "2.5 h"), (12 * 24, "12.0 days")]
)
def test_durations_in_words(hours: float, words: str) -> None:
    assert display.duration(hours) == words


def test_numbers_in_words() -> None:
    assert [display.si(v) for v in (999, 133_000, 2_000_000, 157_286_400_000)] == ["999", "133K", "2M", "157B"]
    assert [display.clock(s) for s in (5, 75, 3700)] == ["0:05", "1:15", "1:01:40"]
    assert display.lengths(Extent(3, 9, ((8, 1), (64, 2)), ())) == "8…64"
    assert display.lengths(Extent(3, 9, ((64, 3),), ())) == "64"

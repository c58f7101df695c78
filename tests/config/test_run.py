"""Validation names the field, the value and the remedy; a run's id is its resolved content."""

from __future__ import annotations

import dataclasses

import pytest

from cl_bench import config, schedules
from cl_bench.config.schema import ConfigError, schema, to_dict
from cl_bench.runs import identity
from tests.conftest import LINEAR, resolved, run_config, small


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": {"lr": -1e-3}}, "optim.lr = -0.001: must be greater than 0"),
        ({"optim": {"lr": "fast"}}, "optim.lr = 'fast': must be a valid number"),
        ({"optim": {"lr": float("nan")}}, "optim.lr = nan"),
        ({"optim": {"lr": 1e-6}}, "optim.min_lr = 1e-05 is above optim.lr = 1e-06"),
        ({"optim": {"warmup_steps": 5}}, "are both set; set one to null"),
        ({"optim": {"lrr": 1}}, "optim.lrr: unknown key; did you mean 'optim.lr'?"),
        ({"global_batch_size": 0}, "global_batch_size = 0: must be greater than 0"),
        ({"global_batch_size": 2.5}, "global_batch_size = 2.5"),
        ({"micro_batch_size": 3}, "global_batch_size = 8 is not a multiple of micro_batch_size x ranks = 3 x 1"),
        ({"resources": {"tasks_per_node": 3}}, "global_batch_size = 8 does not divide over 3 ranks"),
        ({"resources": {"nodes": 2, "gpus_per_node": 8}}, "global_batch_size = 8 does not divide over 16 ranks"),
        ({"resources": {"gpus_per_node": 2, "tasks_per_node": 4}}, "a rank has one GPU; leave tasks_per_node at null"),
        ({"resources": {"sbatch": {"gres": "gpu:a100:2"}}}, "give resources.gpus_per_node and gpu_type instead"),
        ({"resources": {"mem": "lots"}}, "resources.mem = 'lots': not a size in sbatch's notation"),
        ({"resources": {"sbatch": {"time": 5}}}, "resources.sbatch.time: give resources.time_min instead"),
        ({"resources": {"sbatch": {"ntasks-per-node": 5}}}, "give resources.tasks_per_node instead"),
        ({"resources": {"sbatch": {"array": "0-3"}}}, "resources.sbatch.array: set by the launcher"),
        ({"max_seqlen": 65}, "max_seqlen = 65 is longer than the model's positions (model.n_positions = 64)"),
        ({"curriculum": LINEAR | {"min_difficulty": 72}}, "curriculum.min_difficulty = 72 is longer than max_seqlen"),
        (
            {"curriculum": LINEAR | {"min_difficulty": 48, "max_difficulty": 32}},
            "curriculum.min_difficulty = 48 is above curriculum.max_difficulty = 32",
        ),
        ({"curriculum": LINEAR | {"duration": 0}}, "curriculum.duration = 0 leaves no curriculum"),
        ({"curriculum": LINEAR | {"duration": None}}, "fixed_linear needs curriculum.duration"),
        ({"curriculum": {"name": "c", "schedule": "custom"}}, "custom needs curriculum.function"),
        (
            {"curriculum": {"name": "d", "schedule": "fixed_discrete", "difficulty": [8, 64], "max_step": []}},
            "needs n >= 2 lengths in curriculum.difficulty and n - 1 ends",
        ),
        (
            {"curriculum": {"name": "x", "schedule": "linear"}},
            "'linear': unknown schedule; did you mean 'fixed_linear'? valid: adaptive, baseline",
        ),
        ({"model": {"n_heads": 3}}, "model.n_heads = 3 does not divide model.hidden_size = 32"),
        ({"deepspeed": {"zero_stage": 4}}, "deepspeed.zero_stage = 4: must be 0, 1, 2 or 3"),
        ({"seed": -1}, "seed = -1"),
        ({"token_budget": "???"}, "token_budget: has no value; give it one"),
    ],
)
def test_a_mistake_is_named_with_its_value(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        schedules.check(run_config(**changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_each_mistake_has_its_line() -> None:
    with pytest.raises(ConfigError) as error:
        run_config(seed=-1, global_batch_size=0)
    assert len(str(error.value).splitlines()) == 2


def test_run_id_is_the_same_however_the_experiment_is_written() -> None:
    # 20,000 tokens / (8 x 64) = 39.06 -> 40 baseline steps; 40% of them are 16.
    fraction = resolved(curriculum=LINEAR)
    steps = resolved(curriculum=LINEAR | {"duration": 16, "duration_unit": "steps"})
    linear_root = resolved(curriculum=LINEAR | {"schedule": "fixed_root", "root_degree": 1})
    assert fraction.curriculum.duration == 16
    assert identity.run_id(fraction) == identity.run_id(steps)
    assert identity.run_id(linear_root).split("-")[-1] != identity.run_id(resolved()).split("-")[-1]
    explicit = resolved(max_seqlen=64, optim={"decay_tokens": 20_000}, curriculum=LINEAR)
    assert identity.run_id(explicit) == identity.run_id(fraction)


def test_run_id_ignores_queue_paths_and_tracking_only() -> None:
    base = resolved()
    same = resolved(
        resources={"tasks_per_node": 2}, tracking={"mode": "wandb_online"}, checkpoint={"keep": 5}, data={"path": "/x"}
    )
    assert identity.run_id(same) == identity.run_id(base)
    for changes in (
        {"seed": 2},
        {"optim": {"beta2": 0.999}},
        {"evaluation": {"n_blocks": 8}},
        {"token_budget": 20_001},
    ):
        assert identity.run_id(resolved(**changes)) != identity.run_id(base), changes
    other_text = identity.resolve(run_config(), vocab_size=256, fingerprint="1" * 16)
    assert identity.run_id(other_text) != identity.run_id(base)


def test_unused_fields_do_not_make_another_experiment() -> None:
    plain = resolved()
    decorated = resolved(curriculum={"name": "base", "schedule": "baseline", "min_difficulty": 16, "root_degree": 3})
    assert identity.run_id(plain) == identity.run_id(decorated)


def test_round_trip_and_schema() -> None:
    full = resolved(curriculum=LINEAR)
    assert config.from_dict(to_dict(full)) == full
    keys = schema(config.RunConfig)
    assert keys["optim"]["lr"] == "???"
    assert keys["optim"]["beta2"] == 0.95
    assert keys["curriculum"]["function_args"] == {}
    assert set(keys) == {f.name for f in dataclasses.fields(config.RunConfig)}


def test_micro_batch_is_the_largest_divisor_that_fits() -> None:
    # 256 tokens hold 4 sequences of 64; the largest divisor of 12 that is at most 4 is 4, of 12/2 = 6 it is 3.
    twelve = config.from_dict(small(global_batch_size=12, micro_batch_tokens=256))
    assert twelve.micro_batch(1) == 4
    assert twelve.micro_batch(2) == 3
    assert config.from_dict(small(micro_batch_tokens=1)).micro_batch(1) == 1


def test_vocabulary_must_hold_the_data() -> None:
    with pytest.raises(ConfigError, match=r"model.vocab_size = 100 is smaller than the data's vocabulary of 256"):
        resolved(model={"vocab_size": 100})


def test_names_distinguish_curricula_of_one_preset() -> None:
    short, long = (run_config(curriculum=LINEAR | {"duration": d}).curriculum for d in (0.2, 0.4))
    names = identity.curriculum_names([short, long, short])
    assert names == {short: "fixed_linear(duration=0.2)", long: "fixed_linear(duration=0.4)"}
    assert identity.curriculum_names([short]) == {short: "fixed_linear"}


def test_variants_name_what_else_differs() -> None:
    runs = [resolved(optim={"beta2": b}, seed=s, curriculum=c) for b in (0.9, 0.99) for s in (1, 2) for c in (LINEAR,)]
    assert identity.variants(runs) == ["optim.beta2=0.9"] * 2 + ["optim.beta2=0.99"] * 2
    assert identity.variants([resolved(seed=1), resolved(seed=2, curriculum=LINEAR)]) == ["", ""]


def test_short_float() -> None:
    assert [identity.short_float(v) for v in (2e-3, 1.5e-4, 0.1, 0)] == ["2e-3", "1.5e-4", "1e-1", "0"]


@pytest.mark.parametrize(
    ("duration", "unit", "said"),
    [
        (0.4, "baseline_fraction", "8→full over 40%"),
        (15_000, "steps", "8→full over 15,000 steps"),
        (600_000, "tokens", "8→full over 600,000 tokens"),
        (45e9, "tokens", "8→full over 45B tokens"),
    ],
)
def test_description_of_a_curriculum(duration: float, unit: str, said: str) -> None:
    assert schedules.describe(run_config(curriculum=LINEAR | {"duration": duration, "duration_unit": unit})) == said

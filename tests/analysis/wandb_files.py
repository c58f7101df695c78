"""Files as W&B's client writes them, and runs of ours as the mirror logs them."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cl_bench.config import RunConfig
from cl_bench.config.schema import to_dict
from cl_bench.runs import identity, records, status
from cl_bench.runs.paths import RunDir, write_atomic
from cl_bench.training import wandb_mirror

_BLOCK = 32768


def framed(payloads: Iterable[bytes]) -> bytes:
    """Records in LevelDB's log format behind W&B's seven bytes."""
    data = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for payload in payloads:
        begin = True
        while begin or payload:
            room = _BLOCK - len(data) % _BLOCK
            if room < 7:
                data += bytes(room)
                continue
            part, payload = payload[: room - 7], payload[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[begin, not payload]
            data += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            begin = False
    return bytes(data)


def wandb_file(
    folder: Path,
    run_id: str,
    config: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    summary: Mapping[str, Any] | None = None,
    exit_code: int | None = 0,
) -> Path:
    """An offline run's file; without an `exit_code` its writer never finished."""
    from wandb.proto import wandb_internal_pb2 as pb

    def items(values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"key": k, "value_json": json.dumps(v)} for k, v in values.items()]

    found = [pb.Record(run=pb.RunRecord(run_id=run_id, display_name=run_id, config={"update": items(config)}))]
    for row in rows:
        nested = [k for k in row if "." in k]
        item = items({k: v for k, v in row.items() if k not in nested})
        item += [{"nested_key": k.split("."), "value_json": json.dumps(row[k])} for k in nested]
        found.append(pb.Record(history={"item": item}))
    if summary:
        found.append(pb.Record(summary={"update": items(summary)}))
    if exit_code is not None:
        found.append(pb.Record(exit={"exit_code": exit_code}))
    path = folder / f"offline-run-20250101_000000-{run_id}" / f"run-{run_id}.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(framed(r.SerializeToString() for r in found))
    return path


def attempts_of_one_run() -> list[tuple[dict[str, Any], list[tuple[records.Kind, dict[str, Any]]]]]:
    """Two attempts: the second restored step 4, when the first had got to 6. (first row, the other rows) of each."""

    def rows(steps: range, shift: float) -> list[tuple[records.Kind, dict[str, Any]]]:
        made: list[tuple[records.Kind, dict[str, Any]]] = []
        for step in steps:
            at = {"step": step, "consumed_tokens": 500 * step, "train_seconds": 0.125 * step}
            loss = 5 - step / 3 + shift
            ratio = math.nan if step == 1 else 0.9
            made.append(
                ("train", at | {"consumed_samples": 8 * step, "seqlen": 64, "global_batch_size": 8, "lr": 2e-3})
            )
            made[-1][1].update({"loss": loss, "loss_ratio": ratio, "grad_norm": 1 / 3, "tokens_per_second": 4000.0})
            if step % 2 == 0:
                made.append(("eval", at | {"val_loss": loss, "val_ppl": math.exp(loss), "eval_seconds": 0.5}))
        return made

    about = {"world_size": 1, "host": "h", "device": "cpu", "versions": {"torch": "2.13"}}
    untrained = {"step": 0, "consumed_tokens": 0, "train_seconds": 0.0, "val_loss": 5.5, "val_ppl": 244.7}
    first: list[tuple[records.Kind, dict[str, Any]]] = [("eval", untrained | {"eval_seconds": 0.5})]
    return [
        ({"restored_step": 0, "started": 1.0} | about, first + rows(range(1, 7), 0.0)),
        ({"restored_step": 4, "started": 2.0} | about, rows(range(5, 9), 0.25)),
    ]


def recorded(outputs: Path, config: RunConfig) -> RunDir:
    """`attempts_of_one_run` as the trainer records them."""
    run = RunDir(outputs, identity.run_id(config))
    write_atomic(run.config, yaml.safe_dump(to_dict(config)))
    for number, (about, rows) in enumerate(attempts_of_one_run()):
        writer = records.RecordWriter(run, number)
        writer.write("attempt", about)
        for kind, row in rows:
            writer.write(kind, row)
        writer.close()
    status.write(run, status.Status(), state="DONE", steps=8)
    return run


def logged(run: RunDir, config: RunConfig) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The same as the mirror logs it: (config, rows) of each attempt."""
    return [
        (
            wandb_mirror.columns(config, run, {"attempt": number, "planned_steps": 8, **about}),
            [{**row, "attempt": number} for _, row in rows],
        )
        for number, (about, rows) in enumerate(attempts_of_one_run())
    ]

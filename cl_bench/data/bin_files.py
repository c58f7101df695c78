"""Flat token files: nanoGPT's train.bin and val.bin, and llm.c's shards with a header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.config.schema import ConfigError
from cl_bench.data.spans import Dataset, Span, whole_file

META = "meta.json"
"""Token type and vocabulary, written by `cl-bench prepare` beside the tokens; nanoGPT itself has no such file."""
_HEADER_INTS = 256
_LLMC: dict[int, tuple[int, str]] = {20240520: (1, "uint16"), 20240801: (7, "uint32")}
"""llm.c (dev/data/data_common.py): magic -> version and token type, of GPT-2's and Llama 3's vocabularies."""


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of prepared tokens; empty without one. Raises ConfigError for a damaged one."""
    path = folder / META
    try:
        meta = json.loads(path.read_text())
        dtype, vocab_size = np.dtype(meta["dtype"]), int(meta["vocab_size"])
        if dtype.kind not in "iu" or vocab_size < 1:
            raise ValueError(f"{dtype} tokens below {vocab_size}")
        if not all(isinstance(meta.get(part, {}), dict) for part in ("train", "validation")):
            raise TypeError("its counts are not groups of keys")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not written by `cl-bench prepare` ({error}); delete it to read the files as uint16"
        ) from None
    return {**meta, "dtype": str(dtype), "vocab_size": vocab_size}


def nanogpt(path: str) -> Dataset:
    """nanoGPT's folder: train.bin and val.bin, raw uint16 (or the type that meta.json names).

    Raises ConfigError for a missing folder or file, and for a size that is not whole tokens.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"data.path = {path}: no such folder; data=nanogpt reads train.bin and val.bin in it")
    meta = read_meta(folder)
    dtype = meta.get("dtype", "uint16")
    parts = {part: whole_file(folder / f"{part}.bin", dtype) for part in ("train", "val")}
    for part, key in (("train", "train"), ("val", "validation")):
        expected = meta.get(key, {}).get("tokens", parts[part].n)
        if expected != parts[part].n:
            raise ConfigError(
                f"{folder / part}.bin: {parts[part].n} tokens instead of the {expected} in {META}; prepare it again"
            )
    return Dataset(folder.name, (parts["train"],), (parts["val"],))


def llmc(path: str) -> Dataset:
    """llm.c's shards: the files *train*.bin and *val*.bin of a folder, or those that begin with a prefix.

    Raises ConfigError for missing shards, for one that matches both, and for a header that is not llm.c's or does not
    match the file's size.
    """
    location = Path(path).expanduser()
    folder, start = (location, "") if location.is_dir() else (location.parent, location.name)
    parts = {}
    for part in ("train", "val"):
        shards = sorted(folder.glob(f"{start}*{part}*.bin")) if folder.is_dir() else []
        if not shards:
            raise ConfigError(
                f"data.path = {path}: no file {start}*{part}*.bin in {folder}; data=llmc reads such shards"
            )
        parts[part] = tuple(map(_shard, shards))
    if both := {span.path for span in parts["train"]} & {span.path for span in parts["val"]}:
        raise ConfigError(
            f"{min(both)}: matches both training and validation data; rename it so that its name holds either train "
            "or val, or give data.path a longer prefix of the names"
        )
    return Dataset(location.name, parts["train"], parts["val"])


def _shard(path: Path) -> Span:
    with path.open("rb") as file:
        raw = file.read(4 * _HEADER_INTS)
    header = np.frombuffer(raw[: len(raw) // 4 * 4], "<i4")
    if len(header) < _HEADER_INTS or int(header[0]) not in _LLMC:
        magic = int(header[0]) if len(header) else "nothing"
        raise ConfigError(f"{path}: begins with {magic}, not llm.c's magic number ({' or '.join(map(str, _LLMC))})")
    version, dtype = _LLMC[int(header[0])]
    if int(header[1]) != version:
        raise ConfigError(f"{path}: version {header[1]} of llm.c's format; version {version} is supported")
    span = whole_file(path, dtype, header.nbytes)
    if span.n != int(header[2]):
        raise ConfigError(
            f"{path}: {span.n} tokens instead of the {header[2]} in its header; it is cut short or damaged"
        )
    return span

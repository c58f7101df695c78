"""Parser of TensorBoard event files: the framing, and the few message fields that a curve needs.

The `tensorboard` package can read them too, but brings 63 MB of server, gRPC and JavaScript. The format has not changed
since 2015: a record is its length (8 bytes, little-endian), the length's masked CRC-32C, an Event message, the
message's masked CRC-32C. The fields are declared below for the protobuf library, a dependency of wandb.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cl_bench.errors import UserError

_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_DOUBLE, _FLOAT, _INT64, _INT32, _STRING, _MESSAGE, _BYTES = 1, 2, 3, 5, 9, 11, 12
_OPTIONAL, _REPEATED = 1, 3
# Message -> (field, number, type, label, type name), as tensorboard/compat/proto declares them.
_MESSAGES: dict[str, list[tuple[str, int, int, int, str]]] = {
    "Event": [
        ("wall_time", 1, _DOUBLE, _OPTIONAL, ""),
        ("step", 2, _INT64, _OPTIONAL, ""),
        ("summary", 5, _MESSAGE, _OPTIONAL, "Summary"),
    ],
    "Summary": [("value", 1, _MESSAGE, _REPEATED, "Value")],
    "Value": [
        ("tag", 1, _STRING, _OPTIONAL, ""),
        ("simple_value", 2, _FLOAT, _OPTIONAL, ""),
        ("tensor", 8, _MESSAGE, _OPTIONAL, "Tensor"),
    ],
    "Tensor": [
        ("content", 4, _BYTES, _OPTIONAL, ""),
        ("float_val", 5, _FLOAT, _REPEATED, ""),
        ("string_val", 8, _BYTES, _REPEATED, ""),
    ],
}


@dataclasses.dataclass
class Series:
    """The values of one tag, in file order."""

    steps: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    walls: array.array[float] = dataclasses.field(default_factory=lambda: array.array("d"))
    """Unix time of each."""
    values: array.array[float] = dataclasses.field(default_factory=lambda: array.array("d"))


@dataclasses.dataclass
class Events:
    """Scalars and texts of one event file."""

    scalars: dict[str, Series] = dataclasses.field(default_factory=dict)
    texts: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    """Name -> (step, text) of its first text."""
    torn: bool = False
    """Whether the end of the file is cut off."""


def read(path: Path) -> Events:
    """The scalars and texts of one file. Raises UserError for damage before its end."""
    event = _event_class()()
    events = Events()
    for payload in _records(path.read_bytes(), path, events):
        event.ParseFromString(payload)
        for value in event.summary.value:
            if value.HasField("simple_value"):
                number = value.simple_value
            elif value.tensor.string_val:
                name = value.tag.removesuffix("/text_summary")
                text = b" ".join(value.tensor.string_val).decode(errors="replace")
                events.texts.setdefault(name, (event.step, text))
                continue
            elif value.tensor.float_val:
                number = value.tensor.float_val[0]
            elif len(value.tensor.content) == 4:
                number = struct.unpack("<f", value.tensor.content)[0]
            else:
                continue
            series = events.scalars.setdefault(value.tag, Series())
            series.steps.append(event.step)
            series.walls.append(event.wall_time)
            series.values.append(number)
    return events


def _records(data: bytes, path: Path, events: Events) -> Iterator[bytes]:
    """The payload of each record; sets `events.torn` if the last one is cut off."""
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH.size
        if start > len(data):
            break
        length, checksum = _LENGTH.unpack_from(data, offset)
        end = start + length + _CHECKSUM.size
        if _masked_crc(data[offset : offset + 8]) != checksum:
            if any(data[offset:]):
                raise UserError(f"{path}: not an event file, or damaged at byte {offset}; leave it out")
            break  # preallocated space that was never written
        if end > len(data):
            break
        payload = data[start : start + length]
        if _masked_crc(payload) != _CHECKSUM.unpack_from(data, start + length)[0]:
            raise UserError(f"{path}: damaged at byte {start}; leave it out")
        yield payload
        offset = end
    events.torn = offset < len(data)


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """Table of the reflected CRC-32C (Castagnoli) for one byte at a time."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def _masked_crc(data: bytes) -> int:
    """CRC-32C, masked as in TFRecord files: rotated and shifted."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _event_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="cl_bench_events.proto", package="cl_bench_events", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label, type_name in fields:
            full = f".cl_bench_events.{type_name}" if type_name else None
            message.field.add(name=field, number=number, type=kind, label=label, type_name=full)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cl_bench_events.Event"))

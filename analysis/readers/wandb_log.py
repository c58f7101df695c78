"""Framing of .wandb files: a seven-byte header, then a log of records in LevelDB's format.

Blocks of 32 KiB hold fragments: checksum (4 bytes, little-endian; zlib.crc32 of type and data), length (2), type (1),
data. A record is one FULL fragment, or FIRST, any number of MIDDLE, and LAST. The end of a block stays empty if no
fragment header fits. Observed with wandb 0.31; `wandb leet inspect` is W&B's own reader.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from cl_bench.errors import UserError

HEAD = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK = 32 * 1024
_FRAGMENT = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Torn(Exception):
    """The log ends within a record: its writer was killed, or is still writing."""


def records(data: bytes, where: object) -> Iterator[bytes]:
    """The payload of each record, in order.

    Raises Torn after the last complete record if the end is cut off, UserError for a file of another format or damaged
    before its end.
    """
    if not data.startswith(HEAD):
        if HEAD.startswith(data):
            raise Torn
        raise UserError(f"{where}: not a .wandb file (it begins with {data[:7]!r})")
    offset, parts = len(HEAD), b""
    while offset < len(data):
        left = _BLOCK - offset % _BLOCK
        if left < _FRAGMENT.size:
            offset += left
            continue
        end = offset + _FRAGMENT.size
        if end > len(data):
            raise Torn
        checksum, length, kind = _FRAGMENT.unpack_from(data, offset)
        payload = data[end : end + length]
        if len(payload) < length or zlib.crc32(data[end - 1 : end + length]) != checksum:
            # Blocks reach the disk whole: damage in the last one is an unfinished write.
            if offset // _BLOCK == (len(data) - 1) // _BLOCK or not any(data[offset:]):
                raise Torn
            raise UserError(f"{where}: damaged at byte {offset}, before its end; see `wandb leet inspect {where}`")
        offset = end + length
        if kind in (_FULL, _FIRST):
            parts = b""
        parts += payload
        if kind in (_FULL, _LAST):
            yield parts
    if parts and kind in (_FIRST, _MIDDLE):
        raise Torn

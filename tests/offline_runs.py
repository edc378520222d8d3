"""Reads the file that Weights & Biases leaves of a run without a network."""

from __future__ import annotations

import json
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2


def records(folder: Path) -> list[Any]:
    """Reads a .wandb file, once its writer, a process of its own, is done with it."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(300):
        with suppress(DecodeError):
            found = parsed(path.read_bytes())
            if found and found[-1].WhichOneof("record_type") == "exit":
                return found
        time.sleep(0.1)
    raise AssertionError(f"{path} was not finished")


def parsed(content: bytes) -> list[Any]:
    """Parses a .wandb file: a 7-byte header, then records in LevelDB's log format, each a protobuf."""
    assert content[:4] == b":W&B"
    found, pending, position = [], b"", 7
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        pending += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            found.append(record)
            pending = b""
    return found


def of_kind(found: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def history(found: list[Any]) -> dict[str, Any]:
    """The last value of each key."""
    values: dict[str, Any] = {}
    for row in of_kind(found, "history"):
        for item in row.item:
            key, *path = [item.key] if item.key else item.nested_key
            value = json.loads(item.value_json)
            for part in reversed(path):
                value = {part: value}
            values[key] = {**values.get(key, {}), **value} if path else value
    return values

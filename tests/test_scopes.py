"""Which root keys two runs may differ in and still be the same, as fingerprints on the disk have it."""

from __future__ import annotations

from typing import Literal

import pytest

from skinseg.config.schema import not_counted

LABELS_AND_MACHINE = {
    "group", "job_type", "logger", "notes", "report", "search", "sweep", "tags", "threads", "trust",
}  # fmt: skip


OF_A_REPEAT = {
    "callbacks", "compile", "find", "gradient_checkpointing", "matmul_precision", "name", "seed",
}  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "also"),
    [
        ("method", {*OF_A_REPEAT, "ckpt_path", "run_dir", "test"}),
        ("job", {"ckpt_path", "run_dir"}),
        ("search", {"test", "test_data", "test_overlap"}),
    ],
)
def test_what_is_not_counted(comparison: Literal["method", "job", "search"], also: set[str]) -> None:
    assert not_counted(comparison) == LABELS_AND_MACHINE | also

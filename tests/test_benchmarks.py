"""The benchmark as a whole, with the competitors that are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, WriteHam

from benchmarks.training import images
from skinseg.data.problems import Problems
from skinseg.data.readers.ham10000 import read_ham10000


def run_benchmark(results: Path, *options: str | Path) -> tuple[dict, str]:
    """Runs the benchmark, in the environment of `make benchmark` where there is one."""
    own = REPOSITORY / ".venv-benchmark" / "bin" / "python"
    python = own if own.is_file() else sys.executable
    done = subprocess.run(
        [python, "-m", "benchmarks.training", "--quick", "--results", results, *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = results.glob("*.json")
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


@pytest.mark.slow
def test_all_rows(tmp_path: Path, write_ham: WriteHam) -> None:
    report, printed = run_benchmark(
        tmp_path / "results",
        "--data",
        write_ham(8),
        "--skinseg",
        "augment=light",
        "--skinseg",
        "augment=none",
    )
    expected = {"plain", "tuned", "skinseg augment=light", "skinseg augment=none"}
    for name in ("monai", "nnunet"):
        if f"{name} is left out" not in printed:
            expected.add(name)
    assert set(report["summary"]) == expected
    steps = report["work"]["warmup"] + report["work"]["steps"]
    for name, row in report["rounds"][0].items():
        assert len(row["losses"]) == steps, name
        assert np.isfinite(row["losses"]).all(), name
        for key in (
            "train_images_per_s",
            "train_cpu_s_per_step",
            "validate_images_per_s",
            "load_images_per_s",
        ):
            assert row[key] > 0, (name, key)
        assert 0 <= row["train_wait_share"] < 1, name
        assert name in printed
    # The same network, data and loss: where they start may differ by augmentation alone.
    starts = [row["losses"][0] for name, row in report["rounds"][0].items() if name != "nnunet"]
    assert max(starts) < 1.5 * min(starts)
    assert report["summary"]["plain"]["train_gflop_per_image"] > 1
    assert report["device_tflops"] > 0


@pytest.mark.slow
def test_losses_fall(tmp_path: Path, write_ham: WriteHam) -> None:
    report, _ = run_benchmark(
        tmp_path / "results", "--data", write_ham(8), "--only", "plain", "tuned", "skinseg", "--steps", "24"
    )
    for name, row in report["rounds"][0].items():
        assert np.mean(row["losses"][-5:]) < 0.8 * np.mean(row["losses"][:5]), name


@pytest.mark.slow
def test_learn(tmp_path: Path, write_ham: WriteHam) -> None:
    report, printed = run_benchmark(
        tmp_path / "results", "--data", write_ham(10), "--images", "20", "--learn"
    )
    assert set(report["summary"]) == {"plain", "skinseg"}
    for name, row in report["summary"].items():
        assert len(row["test_dice"]) == 2, name
        assert f"{name}: {row['mean']:.4f}" in printed


def test_no_masks(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"found 0 images \*\.jpg and 0 masks"):
        images.pairs_of(tmp_path)


def test_images_repeat_as_needed(tmp_path: Path, write_ham: WriteHam) -> None:
    pairs = images.pairs_of(write_ham(3), 4)
    assert len(pairs) == 4
    folder = images.repeated(pairs, tmp_path / "repeated", {"train": 6, "val": 2})
    table = pd.read_csv(folder / "split.csv")
    assert table["split"].value_counts().to_dict() == {"train": 6, "val": 2}
    assert len(images.pairs_of(folder)) == 8
    catalog = read_ham10000(folder, Problems({}))
    assert set(catalog.table["image_id"]) == set(table["image_id"])


def test_no_lesion_on_two_sides_where_scores_count(tmp_path: Path, write_ham: WriteHam) -> None:
    root = write_ham(12)
    folder = images.divided(images.pairs_of(root), tmp_path / "divided", images.groups_of(root))
    table = pd.read_csv(folder / "split.csv")
    assert len(table) == 24
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "val", "test"}

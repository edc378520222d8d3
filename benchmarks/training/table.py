"""From what was measured to a summary and a table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

Rounds = list[dict[str, dict[str, Any]]]
Spread = dict[str, float]
"""Median, least and most over the rounds."""

COLUMNS = {
    "train_images_per_s": ("train img/s", 1),
    "train_cpu_s_per_step": ("CPU s/step", 2),
    "train_step_ms": ("ms/step", 1),
    "train_wait_share": ("data wait", 3),
    "load_images_per_s": ("loader img/s", 0),
    "validate_images_per_s": ("val img/s", 1),
    "predict_images_per_s": ("pred img/s", 1),
    "peak_rss_mb": ("peak MB", 0),
    "peak_cuda_mb": ("GPU MB", 0),
    "first_steps_s": ("start s", 1),
}
"""Measured keys, their heading and how many digits they are shown with."""

COMPARED = (
    "train_images_per_s",
    "train_cpu_s_per_step",
    "load_images_per_s",
    "validate_images_per_s",
    "predict_images_per_s",
)
"""Keys of which ratios are taken. All but processor time are better where they are above 1."""
PACKAGES = (
    "torch", "torchvision", "lightning", "segmentation-models-pytorch", "albumentations",
    "opencv-python-headless", "numpy", "pillow", "monai", "pytorch-ignite", "nnunetv2",
)  # fmt: skip


def spread(values: list[float]) -> Spread:
    """Returns median and range."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summary(rounds: Rounds) -> dict[str, Any]:
    """Returns spreads for each competitor, its ratios to the plain script round by round, and overheads."""
    names = list(rounds[0])
    result: dict[str, Any] = {name: {} for name in names}
    for name in names:
        for key in COLUMNS:
            values = [row[name][key] for row in rounds if key in row[name]]
            if values:
                result[name][key] = spread(values)
        for other in ("plain", "tuned"):
            if other in names and other != name and (other == "plain" or name.startswith("skinseg")):
                result[name][f"over_{other}"] = {
                    key: spread([row[name][key] / row[other][key] for row in rounds])
                    for key in COMPARED
                    if key in rounds[0][name] and key in rounds[0][other]
                }
        if "tuned" in names and name.startswith("skinseg"):
            # Apart from data wait: Lightning, logging, checks, clipping, and what skinseg does not fuse.
            result[name]["overhead_ms"] = spread(
                [row[name]["train_busy_ms"] - row["tuned"]["train_busy_ms"] for row in rounds]
            )
        known = next(
            (row for row in (rounds[0][name], rounds[0].get("plain", {})) if "parameters" in row), {}
        )
        for key in ("parameters", "train_gflop_per_image"):
            if key in known:
                result[name][key] = known[key]
    return result


def brief(result: dict[str, Any]) -> str:
    """Returns a line on what one process measured."""
    if "test_dice" in result:
        return f"test Dice {result['test_dice']:.4f}"
    shown = [key for key in COLUMNS if key in result]
    return ", ".join(f"{COLUMNS[key][0]} {result[key]:.{COLUMNS[key][1]}f}" for key in shown)


def show(report: dict[str, Any]) -> None:
    """Prints the table of a report of speed."""
    work, totals = report["work"], report["summary"]
    print(
        f"\n{report['images']} images ({report['data']}), {work['size']} px, batch {work['batch']}, "
        f"{work['steps']} steps after {work['warmup']}, {len(report['rounds'])} rounds; {work['device']}, "
        f"{work['threads']} threads, {work['workers']} loader processes.\nMedian (least to most).\n"
    )
    columns = [key for key in COLUMNS if any(key in row for row in totals.values())]
    lines = [["", *(COLUMNS[key][0] for key in columns), "GFLOP/img"]]
    for name, row in totals.items():
        cells = [_cell(row.get(key), COLUMNS[key][1]) for key in columns]
        lines.append(
            [name, *cells, f"{row['train_gflop_per_image']:.1f}" if "train_gflop_per_image" in row else "-"]
        )
    _print_columns(lines)
    print()
    for name, row in totals.items():
        for other in ("plain", "tuned"):
            for key, value in row.get(f"over_{other}", {}).items():
                print(f"{name} / {other}, {COLUMNS[key][0]}: {_cell(value, 2)}")
        if "overhead_ms" in row:
            print(f"{name} - tuned, ms a step without data wait: {_cell(row['overhead_ms'], 1)}")
    rate = report["device_tflops"]
    print(f"\nLargest rate of a product of matrices: {rate:.2f} TFLOP/s ({work['precision']}).")
    for name, row in totals.items():
        if "train_gflop_per_image" in row:
            limit = 1000 * rate / row["train_gflop_per_image"]
            share = row["train_images_per_s"]["median"] / limit
            print(f"{name}: {share:.1%} of the {limit:.1f} img/s which that rate allows")
    print("\nScoring a mask of 600 x 450, ms:")
    for name, value in report["scoring_ms"].items():
        print(f"  {name}: {value:.2f}")


def learned(rounds: Rounds) -> dict[str, Any]:
    """Returns mean and standard deviation of test Dice over seeds."""
    result: dict[str, Any] = {}
    for name in rounds[0]:
        values = [row[name]["test_dice"] for row in rounds]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        result[name] = {"test_dice": values, "mean": statistics.mean(values), "sd": deviation}
    return result


def show_learned(report: dict[str, Any]) -> None:
    """Prints test Dice of each competitor."""
    print(
        f"\nTest Dice after {report['work']['epochs']} epochs, {report['images']} images ({report['data']}):"
    )
    for name, row in report["summary"].items():
        values = ", ".join(f"{value:.4f}" for value in row["test_dice"])
        print(f"{name}: {row['mean']:.4f} (sd {row['sd']:.4f}; {values})")


def machine(device: str) -> dict[str, Any]:
    """Says what the benchmark ran on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    result = {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device == "cuda":
        import torch

        result["gpu"] = torch.cuda.get_device_name()
    return result


def versions() -> dict[str, str]:
    """Returns the installed versions of what matters here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def matmul_tflops(device: str, precision: str) -> float:
    """Measures the largest rate of a product of matrices, in 10^12 operations a second."""
    import torch

    side = 8192 if device == "cuda" else 2048
    left, right = (
        torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        for _ in range(2)
    )
    best = float("inf")
    for _ in range(10 if device == "cuda" else 5):
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best / 1e12


def scoring_times(rounds: int) -> dict[str, float]:
    """Returns milliseconds per image of `benchmarks/scoring.py`, on drawn masks."""
    from benchmarks import scoring

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, of its own calls
        seconds = scoring.measure(scoring.drawn_images(8), rounds)
    return {name: 1000 * value for name, value in seconds.items()}


def free_path(folder: Path, report: dict[str, Any], suffix: str = "") -> Path:
    """Returns a path for the report that does not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    words = report["machine"].get("gpu") or f"{report['machine']['cpu']} {report['machine']['cores']} cores"
    name = f"{report['date'][:10]}_{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}{suffix}"
    tries = (folder / f"{name}{f'_{number}' if number else ''}.json" for number in range(10_000))
    return next(path for path in tries if not path.exists())


def _cell(value: Spread | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value['median']:.{digits}f} ({value['least']:.{digits}f} to {value['most']:.{digits}f})"


def _print_columns(lines: list[list[str]]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

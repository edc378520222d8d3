"""Run skinseg and its peers on the same work, in turn, several rounds: `make benchmark`.

python -m benchmarks.training [--data FOLDER] [--size 256] [--batch 8] [--steps 12] [--rounds 3] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.training import images, table

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDS = {"plain": (), "tuned": (), "monai": ("monai", "ignite"), "nnunet": ("nnunetv2",), "skinseg": ()}
"""Competitors in their order, and the packages that each needs beyond skinseg's own."""


def main(words: list[str] | None = None) -> Path:
    """Runs the benchmark and returns the path of its JSON."""
    options = _options(words)
    # After the options, so that --help needs no PyTorch.
    import torch

    from benchmarks.training.work import Work

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    work = Work(
        data="",
        scratch="",
        size=options.size,
        batch=options.batch,
        steps=options.steps,
        warmup=options.warmup,
        workers=options.workers,
        threads=options.threads,
        device=device,
        encoder=options.encoder,
        precision=options.precision,
        epochs=options.epochs if options.learn else 0,
    )
    contestants = _contestants(options)
    report: dict[str, Any] = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": table.machine(device),
        "versions": table.versions(),
        "data": "drawn images" if options.data is None else f"{options.data.name}/",
        "work": {key: value for key, value in dataclasses.asdict(work).items() if key not in _PRIVATE},
        "skinseg": {name: words for name, words in contestants.items() if name.startswith("skinseg")},
    }
    with tempfile.TemporaryDirectory(prefix="skinseg-benchmark-") as temporary:
        folder = Path(temporary)
        source = options.data or images.drawn(REPOSITORY / "data" / "benchmark", options.images)
        pairs = images.pairs_of(source, options.images)
        report["images"] = len(pairs)
        if options.learn:
            data = images.divided(pairs, folder / "data", images.groups_of(source))
        else:
            count = (options.warmup + options.steps) * options.batch
            data = images.repeated(pairs, folder / "data", {"train": count, "val": options.val_images})
        work = dataclasses.replace(work, data=str(data))
        if options.learn:
            chosen = {
                name: words for name, words in contestants.items() if name in ("plain", *report["skinseg"])
            }
            report["learn"] = _rounds(chosen, work, folder, options.seeds, action="learn")
        else:
            report["rounds"] = _rounds(contestants, work, folder, options.rounds)
            torch.set_num_threads(options.threads)
            report["device_tflops"] = table.matmul_tflops(device, options.precision)
            report["scoring_ms"] = table.scoring_times(options.rounds)
    if options.learn:
        report["summary"] = table.learned(report["learn"])
        table.show_learned(report)
    else:
        report["summary"] = table.summary(report["rounds"])
        table.show(report)
    path = table.free_path(options.results, report, suffix="_learn" if options.learn else "")
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}")
    return path


_PRIVATE = ("data", "scratch", "started", "overrides", "seed")


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder with *.jpg and *_segmentation.png (default: drawn images, 600x450)")
    add("--images", type=int, default=64, help="take this many images, repeated as needed (default: 64)")
    add("--val-images", type=int, default=64, help="images of a validation (default: 64)")
    add("--size", type=int, default=256, help="height and width of the network's input (default: 256)")
    add("--batch", type=int, default=8, help="images per step (default: 8)")
    add("--steps", type=int, default=12, help="steps that are measured (default: 12)")
    add("--warmup", type=int, default=3, help="steps before them that are not (default: 3)")
    add("--rounds", type=int, default=3, help="how often each competitor runs (default: 3)")
    add("--workers", type=int, default=0, help="loader processes of each (default: 0)")
    add("--threads", type=int, default=os.cpu_count(), help="threads of each (default: one per core)")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    add("--encoder", default="resnet34", help="encoder of the U-Net (default: resnet34)")
    add(
        "--precision",
        choices=("bf16", "fp32"),
        default="bf16",
        help="of the hand-tuned script and of skinseg (default: bf16)",
    )
    add("--only", nargs="+", choices=tuple(NEEDS), help="run these competitors alone")
    add(
        "--skinseg",
        nargs="+",
        action="append",
        default=[],
        metavar="OVERRIDE",
        help="overrides of skinseg's command; given again, one more row with other overrides",
    )
    add("--learn", action="store_true", help="compare test Dice of the plain script and skinseg instead")
    add("--epochs", type=int, default=20, help="passes over the training images with --learn (default: 20)")
    add("--seeds", type=int, default=3, help="seeds with --learn (default: 3)")
    add("--results", type=Path, default=REPOSITORY / "benchmarks" / "results", help="folder of the JSON")
    add("--quick", action="store_true", help="a smoke test: 64 px, 2 steps of 2, 1 round, resnet18")
    quick = {
        "size": 64, "batch": 2, "steps": 2, "warmup": 1, "rounds": 1, "images": 12, "val_images": 4,
        "encoder": "resnet18", "threads": 1, "epochs": 1, "seeds": 2,
    }  # fmt: skip
    if "--quick" in (sys.argv[1:] if words is None else words):
        parser.set_defaults(**quick)
    options = parser.parse_args(words)
    for name in ("size", "batch", "steps", "warmup", "rounds", "images", "val_images", "epochs", "seeds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 1 or more.")
    return options


def _contestants(options: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the rows of the table with skinseg's overrides; what is not installed is named and left out."""
    rows: dict[str, list[str]] = {}
    for name, packages in NEEDS.items():
        if options.only and name not in options.only:
            continue
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            print(
                f"{name} is left out: {', '.join(missing)} cannot be imported (make benchmark installs all)."
            )
        elif name == "skinseg":
            for words in options.skinseg or [[]]:
                rows[" ".join([name, *words])] = words
        else:
            rows[name] = []
    return rows


def _rounds(
    contestants: dict[str, list[str]], work: Any, folder: Path, rounds: int, *, action: str = "run"
) -> list[dict[str, Any]]:
    """Runs each in a process of its own, round by round, so that other programs' load falls on all."""
    names = list(contestants)
    results = []
    for number in range(rounds):
        # Another one starts each round.
        order = names[number % len(names) :] + names[: number % len(names)]
        result = {}
        for name in order:
            scratch = folder / f"{names.index(name)}"
            scratch.mkdir(exist_ok=True)
            task = dataclasses.replace(
                work,
                scratch=str(scratch),
                seed=number,
                overrides=contestants[name],
                started=time.time(),
            )
            if name == "nnunet" and number == 0:
                print("nnunet converts, plans and preprocesses", flush=True)
                _process(name, "prepare", task, scratch)
                task = dataclasses.replace(task, started=time.time())
            print(f"round {number + 1} of {rounds}: {name}", flush=True)
            result[name] = _process(name.split()[0], action, task, scratch)
            print("  " + table.brief(result[name]), flush=True)
        results.append({name: result[name] for name in names})
    return results


def _process(name: str, action: str, work: Any, scratch: Path) -> dict[str, Any]:
    work.write(scratch / "work.json")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(work.threads),
        # Threads that spin while they wait take the time of everything else.
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
    }
    log, output = scratch / "log.txt", scratch / "result.json"
    output.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.training.worker", name, action]
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [*words, str(scratch / "work.json"), str(output)],
            cwd=scratch,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{name} failed ({done.returncode}):\n{log.read_text(encoding='utf-8')[-4000:]}")
    return dict(json.loads(output.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

"""Shows that a change of structure changes no result: what the code gave before it, and gives after it.

python tests/goldens.py record <folder>     with the code before the change
python tests/goldens.py compare <folder>    with the code after it, on the same machine and packages

Recorded are a short training of drawn images, its evaluation, its predictions, a training that was stopped,
and a sweep. Compared are new ones with them bit by bit, and what the new code makes of the old ones: it
scores and predicts the old checkpoint alike, ends the stopped training with the same weights, and finds each
job of the old sweep done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from hydra.utils import get_object

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN = ("train", "+experiment=demo", "trainer=cpu", "threads=1", "trainer.deterministic=true", "logger=csv")
SHORT = (*TRAIN, "trainer.max_epochs=2")
STOP = "+callbacks.stop={_target_: conftest.InterruptAt, step: 11}"
SWEEP = (*TRAIN, "trainer.max_epochs=1", "model.decoder_channels=[16,16,8,8,8]", "seed=1,2")


def main() -> None:
    """Records or compares; the exit code tells whether all is as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.what == "record":
        record(folder)
        return
    found = list(differences(folder))
    print("\n".join(found) or "All is as it was.")
    sys.exit(bool(found))


def record(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "targets.json").write_text(json.dumps(sorted(targets())))
    data = f"data.root={folder / 'data'}"
    run(*SHORT, data, f"hydra.run.dir={folder / 'run'}")
    run(*SHORT, data, STOP, f"hydra.run.dir={folder / 'stopped'}", code=130)
    use(folder / "run", folder)
    run(*SWEEP, data, f"hydra.sweep.dir={folder / 'sweeps/first'}", multirun=True)


def use(trained: Path, folder: Path) -> None:
    """Evaluates and predicts by a training's best checkpoint."""
    best = f"ckpt={trained / 'checkpoints/best.ckpt'}"
    run("evaluate", best, "workers=0", f"hydra.run.dir={folder / 'evaluation'}")
    images = next((trained.parent / "data").glob("*/HAM10000_images_part_1"))
    run("predict", best, f"input={images}", f"output={folder / 'masks'}", "num_workers=0")


def differences(folder: Path) -> list[str]:
    """Returns a sentence for each result that is another one."""
    after, data = folder / f"after_{os.getpid()}", f"data.root={folder / 'data'}"
    said = []
    for target in json.loads((folder / "targets.json").read_text()):
        try:
            get_object(target)
        except Exception as error:
            said.append(f"{target} cannot be imported: {error}")
    run(*SHORT, data, f"hydra.run.dir={after / 'run'}")
    said += [*unlike(folder / "run", after / "run", "s*.csv"), *unlike_weights(folder / "run", after / "run")]
    use(folder / "run", after)
    said += unlike(folder / "evaluation", after / "evaluation", "scores.csv")
    said += unlike(folder / "evaluation/masks", after / "evaluation/masks", "*.png")
    said += unlike(folder / "masks", after / "masks", "*.png")
    last = folder / "stopped/checkpoints/last.ckpt"
    run(*SHORT, data, f"ckpt_path={last}", f"hydra.run.dir={after / 'resumed'}")
    said += unlike_weights(folder / "run", after / "resumed", ("last.ckpt",))
    out = run(*SWEEP, data, "sweep.resume=true", f"hydra.sweep.dir={folder / 'sweeps/first'}", multirun=True)
    if "Nothing to train" not in out:
        said.append("The old sweep's jobs are not found to be done.")
    for name in ("run/data.json", "run/summary.json", "evaluation/evaluation.json"):
        # What names the folder names another one now.
        new = (after / name).read_text().replace(str(after), str(folder))
        said += [
            f"{name}: {line}"
            for line in unlike_values(json.loads(as_called_now((folder / name).read_text())), json.loads(new))
        ]
    return said


def targets() -> set[str]:
    """Every `_target_` of the configuration."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(target := value.get("_target_"), str):
                found.add(target)
            value = list(value.values())
        if isinstance(value, list):
            for child in value:
                look(child)

    for root in ("conf", "experiments"):
        for path in (REPOSITORY / root).rglob("*.yaml"):
            look(yaml.safe_load(path.read_text()))
    return {target for target in found if "$" not in target}


def run(command: str, *words: str, multirun: bool = False, code: int = 0) -> str:
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    done = subprocess.run(
        [sys.executable, "-m", f"skinseg.{command}", *(["-m"] if multirun else []), *words],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != code:
        sys.exit(f"{command} {' '.join(words)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def unlike(old: Path, new: Path, pattern: str) -> list[str]:
    names = sorted(path.name for path in old.glob(pattern))
    return [
        f"{new / name} differs" for name in names
        if not (new / name).is_file() or not same(old / name, new / name)
    ]  # fmt: skip


def same(old: Path, new: Path) -> bool:
    """Whether two files are the same; of a table the columns of the old one count, to the letter."""
    if old.suffix != ".csv":
        return old.read_bytes() == new.read_bytes()
    one, other = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (old, new))
    return set(one) <= set(other) and one.equals(other[list(one)])


def unlike_weights(old: Path, new: Path, names: tuple[str, ...] = ("best.ckpt", "last.ckpt")) -> list[str]:
    said = []
    for name in names:
        a, b = (torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"] for run in (old, new))
        said += [f"{new}: {name}: {key}" for key in a.keys() | b.keys() if not torch.equal(a[key], b[key])]
    return said


def as_called_now(text: str) -> str:
    """What was a side of a split in titles and protocols is called a subset since."""
    return text.replace(" side of ", " subset of ")


# Of clocks, places and the machine's load.
MOVING = {
    "cost",
    "scorings",
    "seconds",
    "run_dir",
    "started",
    "command",
    "created",
    "minutes",
    "images_per_second",
    "path",
    "files",
}


def unlike_values(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in old.keys() - MOVING
            for line in (
                [f"{where}.{key} is gone"]
                if key not in new
                else unlike_values(old[key], new[key], f"{where}.{key}")
            )
        ]
    return [] if old == new or "second" in where else [f"{where}: {old!r} was, {new!r} is"]


if __name__ == "__main__":
    main()

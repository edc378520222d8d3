"""Outline the lesions of a folder of photographs: one mask file each.

python -m skinseg.predict ckpt=<run folder>/checkpoints/best.ckpt input=<folder> output=<folder>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import hydra
from omegaconf import DictConfig

from skinseg.command import end_with_message, main_of
from skinseg.config import check, config_dir, plain
from skinseg.errors import SkinsegError


@dataclass
class PredictConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the log folder's path.
        run_dir: The folder of the log.
        ckpt: A checkpoint of a run; it alone is needed.
        trust: Packages of your own, or of somebody whom you trust, whose constructors it may name; see
            `skinseg.trust`.
        input: Folder of photographs, with subfolders. Files that are named as masks are passed over.
        output: Folder for the masks, `<image_id>_segmentation.png`: 8-bit grey, 0 and 255, each of its
            photograph's size, upright. A photograph that cannot be read is listed in `unreadable.csv` there.
        threshold: Lesion is where the probability is at least this. null: that of the checkpoint's run.
        overwrite: Replace masks that are there; false refuses a folder that holds some.
        device: "auto" takes a GPU where there is one.
        precision: "32-true", "bf16-mixed" or "16-mixed". null: that of the checkpoint's run.
        batch_size: Photographs per forward pass. null: that of the checkpoint's run.
        num_workers: Loader processes. null: by the number of cores.
        max_megapixels: A photograph of more millions of pixels is listed as one that cannot be read; raise it
            for whole slides.
    """

    name: str
    run_dir: str
    ckpt: str
    trust: str | list[str]
    input: str
    output: str
    threshold: float | None
    overwrite: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None
    batch_size: int | None
    num_workers: int | None
    max_megapixels: float


def run(cfg: DictConfig) -> dict[str, str]:
    """Writes a mask for each photograph.

    Args:
        cfg: The composed configuration; see `PredictConfig`.

    Returns:
        The photographs that could not be read, with the reason, by file.

    Raises:
        SkinsegError: A mistake in the configuration, a folder or a checkpoint, or no photograph is readable.
    """
    config = plain(cfg)
    if config.get("threshold") == "val":
        raise SkinsegError(
            "threshold=val: predict takes a number. `python -m skinseg.evaluate ckpt=... threshold=val` says "
            "which one validation chooses."
        )
    check(config, PredictConfig)

    import pandas as pd
    from rich.console import Console
    from rich.progress import track

    from skinseg import build
    from skinseg.callbacks.quiet import quiet
    from skinseg.inference.files import find_photographs, mask_name, write_mask
    from skinseg.record import write_csv

    quiet()
    output = Path(config["output"]).expanduser()
    if output.resolve() == Path(config["input"]).expanduser().resolve():
        raise SkinsegError(f"output={output} is the input; masks would lie among the photographs.")
    photographs = find_photographs(Path(config["input"]).expanduser(), "input")
    there = [image_id for image_id in photographs if (output / mask_name(image_id)).exists()]
    if there and not config["overwrite"]:
        raise SkinsegError(
            f"output={output} already holds masks of {len(there)} of these photographs, e.g. "
            f"{mask_name(there[0])}; take another folder, or overwrite=true replaces them."
        )
    segmenter = build.load_segmenter(config["ckpt"], config["trust"])
    predictor = build.predictor(segmenter, config)
    threshold = segmenter.threshold if config["threshold"] is None else config["threshold"]
    ids, files = list(photographs), [str(path) for path in photographs.values()]
    console = Console(highlight=False, soft_wrap=True)
    unreadable: dict[int, str] = {}
    done = turned = 0
    predictions = predictor(files, unreadable)
    for prediction in track(
        predictions,
        "Outlining",
        total=len(files),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        write_mask(output / mask_name(ids[prediction.row]), prediction.probability >= threshold)
        done += 1
        turned += prediction.turned
    problems = {files[row]: problem for row, problem in sorted(unreadable.items())}
    if not done:
        first = next(iter(problems.values()))
        raise SkinsegError(
            f"input={config['input']}: none of the {len(files)} files can be read, e.g. {first}."
        )
    if problems:
        table = pd.DataFrame({"file": list(problems), "problem": list(problems.values())})
        write_csv(output / "unreadable.csv", table)
        console.print(
            f"Photographs that could not be read: {len(problems)}; see {output / 'unreadable.csv'}:"
        )
        for problem in list(problems.values())[:5]:
            console.print(f"  {problem}")
    if turned:
        console.print(
            f"{turned} photographs are stored turned or mirrored; by their EXIF orientation they were turned "
            "upright, and their masks are upright, as viewers show them"
        )
    console.print(f"{done} masks at threshold {threshold:g} written to {output}")
    return problems


@hydra.main(config_path=str(config_dir()), config_name="predict", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Runs the command."""
    try:
        run(cfg)
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "predict", PredictConfig)

if __name__ == "__main__":
    sys.exit(main())

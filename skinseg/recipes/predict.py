"""What `python -m skinseg.predict` does."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from skinseg.build import nets
from skinseg.callbacks.quiet import quiet
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.files import write_mask
from skinseg.errors import SkinsegError
from skinseg.inference.files import find_photographs, mask_name, masks_of_others
from skinseg.run.claims import claimed
from skinseg.run.writing import FileNameError, write_csv
from skinseg.run.written import afresh, written_before


def run(config: Plain) -> dict[str, str]:
    """Writes a mask for each photograph.

    Args:
        config: Checked; see `skinseg.predict.PredictConfig`.

    Returns:
        The photographs that have got no mask, with the reason, by file.

    Raises:
        SkinsegError: A mistake in the configuration, a folder or a checkpoint, or no photograph is readable.
    """
    quiet()
    output = Path(config["output"]).expanduser()
    if output.resolve() == Path(config["input"]).expanduser().resolve():
        raise SkinsegError(f"output={output} is the input; masks would lie among the photographs.")
    with claimed(output):  # before what it holds is looked at
        return _predict(config, output)


def _predict(config: Plain, output: Path) -> dict[str, str]:
    found = find_photographs(Path(config["input"]).expanduser(), "input")
    files = list(found.files.values())
    targets = [output / mask_name(image_id) for image_id in found.files]
    there = [path for path in targets if os.path.lexists(path)]
    before = written_before(output, "predict")
    if (there or before) and not config["overwrite"]:
        whose = f"masks of {len(there)} of these photographs" if there else "what an earlier call wrote"
        raise SkinsegError(
            f"output={output} already holds {whose}, e.g. {(there or before)[0].name}; take another folder, "
            "or overwrite=true replaces all that an earlier call wrote there."
        )
    net, record = nets.load_net(config["ckpt"], config["trust"])
    options = ("device", "precision", "batch_size", "num_workers", "max_megapixels")
    predictor = nets.predictor(net, record, **{key: config[key] for key in options})
    threshold = net.threshold if config["threshold"] is None else config["threshold"]
    console = Console(highlight=False, soft_wrap=True, markup=False)
    unreadable: dict[int, str] = {}
    done = turned = 0
    with afresh(output, "predict"):
        for prediction in track(
            predictor([str(path) for path in files], unreadable),
            "Outlining",
            total=len(files),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            turned += prediction.turned
            try:
                write_mask(targets[prediction.row], prediction.probability >= threshold)
                done += 1
            except FileNameError as error:
                unreadable[prediction.row] = str(error).replace(str(targets[prediction.row]), "its mask")
        problems = {
            # Decoders name the file, which has a column of its own.
            str(files[row]): problem.removeprefix(f"{files[row]}: ")
            for row, problem in sorted(unreadable.items())
        }
        if not done:
            first = ": ".join(next(iter(problems.items())))
            raise SkinsegError(
                f"input={config['input']}: none of the {counted(len(files), 'file')} can be read, e.g. "
                f"{first}."
            )
        problems |= {str(path): reason for path, reason in found.not_read.items()}
        if problems:
            table = pd.DataFrame({"file": list(problems), "problem": list(problems.values())})
            write_csv(output / "unreadable.csv", table)
        elif not before:
            _remove_unrecorded(output / "unreadable.csv")
        others = masks_of_others(output)
    for remark in found.remarks():
        console.print(remark)
    if others:
        console.print(
            f"Left in {output}: {counted(len(others), 'mask')} that this call did not write, e.g. "
            f"{others[0].name}."
        )
    if turned:
        console.print(
            f"{counted(turned, 'photograph is', 'photographs are')} stored turned or mirrored, and "
            "outlined as viewers show it by its EXIF orientation: the mask is upright"
        )
    console.print(f"{counted(done, 'mask')} at threshold {threshold:g} written to {output}")
    return problems


def _remove_unrecorded(table: Path) -> None:
    """Removes the list of an earlier call by a version that kept no record of what it wrote."""
    with suppress(OSError, ValueError):
        if table.read_text(encoding="utf-8").startswith("file,problem\n"):
            table.unlink()

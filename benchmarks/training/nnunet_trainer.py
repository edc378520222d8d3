"""nnU-Net v2: its 2-D trainer with the network that it plans itself, on PNG copies.

The copies are made at the size that the other networks see, for nnU-Net would otherwise plan for native
pixels and do several times the work. Its network is larger than the U-Net of the others all the same, with
a loss at several depths; its rates are per image seen and its operations are printed beside. Batch size is
set to that of the others in its plan, and its 1,000 epochs of 250 iterations are cut to as many steps as
the others take. Validation is what it does after each epoch, pseudo-Dice on validation patches; prediction
is its sliding window without mirroring, resized to the copy and thresholded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.training.work import Result, Work, cost, peak_memory, rate, timed_loading, timed_steps

NAME = "Dataset001_Lesions"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def prepare(work: Work) -> Result:
    """Converts, plans and preprocesses; in a process of its own, for planning takes much memory."""
    _set_environment(work, augmenters=1)  # planning wants at least one
    _plan(work, _convert(work))
    return {}


def run(work: Work) -> Result:
    """Measures speed."""
    _set_environment(work, augmenters=work.workers)
    # Imported late: nnU-Net reads its folders from the environment.
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args(NAME, "2d", 0, device=torch.device(work.device))
    trainer.num_epochs = 1
    trainer.num_iterations_per_epoch = work.warmup + work.steps
    trainer.on_train_start()
    # On a GPU nnU-Net compiles its network; below that is the one it made.
    network = getattr(trainer.network, "_orig_mod", trainer.network)
    result = cost(network, work, lambda outputs: sum(output.sum() for output in outputs))
    # The body of nnUNetTrainer.run_training, with a clock.
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    outputs: list[dict[str, Any]] = []

    def step(batch: dict[str, Any]) -> float:
        outputs.append(trainer.train_step(batch))
        return float(outputs[-1]["loss"])

    result |= timed_steps(work, trainer.dataloader_train, step) | peak_memory(work)
    trainer.on_train_epoch_end(outputs)

    batches = max(1, len(work.files("val")[0]) // work.batch)

    def validate() -> None:
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            scores = [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(batches)]
            trainer.on_validation_epoch_end(scores)

    result["validate_images_per_s"] = rate(work, batches * work.batch, validate)
    predictor = nnUNetPredictor(use_mirroring=False, device=trainer.device, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        None,
    )
    files = sorted((Path(work.scratch) / "nnUNet_raw" / NAME / "imagesTr").glob("V*_0000.png"))
    reader = trainer.plans_manager.image_reader_writer_class()

    def predict() -> None:
        for file in files:
            predictor.predict_single_npy_array(*reader.read_images([str(file)]))

    result["predict_images_per_s"] = rate(work, len(files), predict)
    trainer.set_deep_supervision_enabled(True)
    result["load_images_per_s"] = timed_loading(work, trainer.dataloader_train)
    return result


def _set_environment(work: Work, augmenters: int) -> None:
    """Sets what nnU-Net reads when it is imported: folders, threads of prediction, loader processes."""
    folders = {name: str(Path(work.scratch) / name) for name in FOLDERS}
    numbers = {"nnUNet_def_n_proc": str(work.threads), "nnUNet_n_proc_DA": str(augmenters)}
    os.environ.update(folders | numbers)


def _convert(work: Work) -> dict[str, list[str]]:
    """Writes PNG copies and returns the identifiers of both sides; repeats are left out."""
    raw = Path(work.scratch) / "nnUNet_raw" / NAME
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    size = (work.size, work.size)
    sides: dict[str, list[str]] = {}
    for side in ("train", "val"):
        pairs = {Path(i).resolve(): Path(m) for i, m in zip(*work.files(side), strict=True)}
        names = sides[side] = [f"{side[0].upper()}{number:05d}" for number in range(len(pairs))]
        for name, (image, mask) in zip(names, pairs.items(), strict=True):
            pixels = Image.open(image).convert("RGB").resize(size, Image.Resampling.BOX)
            pixels.save(raw / "imagesTr" / f"{name}_0000.png")
            label = Image.open(mask).convert("L").resize(size, Image.Resampling.NEAREST)
            Image.fromarray((np.asarray(label) > 128).astype(np.uint8)).save(raw / "labelsTr" / f"{name}.png")
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": sum(map(len, sides.values())),
        "file_ending": ".png",
    }
    (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return sides


def _plan(work: Work, sides: dict[str, list[str]]) -> None:
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprint_dataset(1, num_processes=1, show_progress_bar=False)
    _, name = api.plan_experiment_dataset(1)
    folder = Path(work.scratch) / "nnUNet_preprocessed" / NAME
    plans_file = folder / f"{name}.json"
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    plans["configurations"]["2d"]["batch_size"] = work.batch
    plans_file.write_text(json.dumps(plans), encoding="utf-8")
    api.preprocess_dataset(1, name, ("2d",), [1], show_progress_bar=False)
    (folder / "splits_final.json").write_text(json.dumps([sides]), encoding="utf-8")

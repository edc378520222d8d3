"""The LightningDataModule: folder, catalog, split, loaders."""

from __future__ import annotations

import hashlib
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from skinseg.counting import counted
from skinseg.data.cache import Check, Mode, Pixels, mapped_pixels, pixels_in_memory
from skinseg.data.catalog import Catalog, drawn_stamps
from skinseg.data.dataset import EpochSampler, LesionDataset, collate
from skinseg.data.inputs import input_files, warn_of_empty_masks
from skinseg.data.inspection import Verify
from skinseg.data.loader import LateDataLoader, default_workers, prepare_worker, usable_cores, warn_of_workers
from skinseg.data.passed import PassedFiles
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS
from skinseg.data.problems import MissingPolicy, Policy, Problems
from skinseg.data.readers.given import read_pairs, report_masks
from skinseg.data.readers.masks import PSEUDO
from skinseg.data.readers.own import GroupBy
from skinseg.data.splits.split import Split
from skinseg.data.transforms.changes import (
    Preprocessing,
    Transform,
    augmented,
    augmented_batch,
    mixed_batch,
    preprocessed,
    probe,
)
from skinseg.data.transforms.device_augment import DeviceAugment
from skinseg.data.transforms.mix import Mix
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)

_TRIED = 4
"""Images, and draws of what is done to them: a transform may be drawn seldom."""


class LesionDataModule(L.LightningDataModule):
    """Any data set's images and masks as batches for training, validation and test.

    Args:
        reader: Folder and problems to catalog, such as `read_ham10000`; it also takes `verify`.
        split: Catalog to split, such as `make_split`. None: there is no split; only the catalog can be read.
        root: Folder of the data set, or one that holds it. None: `images` says where it is.
        images: Folder of photographs of one's own.
        mask_name: What the masks of one's own are called; see `read_own`.
        lesion_value: What the lesion's pixels hold in the masks of one's own; see `read_own`.
        mask_threshold: From which grey value on their pixels are lesion; see `read_own`.
        metadata: Table of what is known of them; see `read_own`.
        columns: What the columns of that table are called; see `read_own`.
        group_by: What says which of them show one lesion; see `read_own`.
        image_size: Height and width of the network's input, in pixels.
        batch_size: Images per step and process.
        num_workers: Loader processes. None: one per core, at most 8, and none on a machine of two cores
            or fewer without a GPU, where they would take the network's time.
        verify: How much of each file is looked at before any work starts. True: all of it. "headers": sizes
            alone. False: nothing.
        max_megapixels: A picture of more millions of pixels counts as unreadable: a damaged file may claim
            more than memory holds. Raise it for photographs that are really larger, such as whole slides.
        masks: Folder of masks that lies elsewhere, named `<image_id>_segmentation.png` in it or below; they
            come before those that are found below `root`. None: there is none.
        same_lesion: CSV with columns a and b: pairs of image ids that show one lesion, beyond what is
            published, such as `near_duplicates.csv` of an audit once you have looked through it. How many of
            its rows are about these images is logged, and noted in the catalog as "same_lesion".
        overfit: Train, validate and test on this many training images, to see that a network can learn
            at all. None: use the split.
        on_missing_image: "error" or "drop" where the metadata lists an image that is not there.
        on_missing_metadata: The same for an image that the metadata do not list.
        on_missing_mask: The same for an image without a mask, or "keep": it stays in the catalog, and is
            neither trained on nor scored.
        on_missing_lesion: The same for an image of HAM10000 whose lesion id is not known, or "keep": it is
            taken for a lesion of its own, which may put two views of one lesion in two subsets.
        on_unreadable: The same for a file that cannot be decoded.
        on_mask_size: The same for a mask of other proportions than its image's. One of the same is resized.
        on_mask_format: The same for a mask that is not 8-bit grey or palette of 0 and 255.
        cache: Keep the images decoded and resized: "memmap" in files that all processes of this machine and
            all later runs share, "ram" in the memory of each process, "none". The pixels are the same.
        cache_dir: Folder of these files.
        cache_limit_gb: Most gigabytes (10^9 bytes) that one set of decoded images may take.
        cache_check: How changed image files are noticed: "stat", by size and time of change, or "content",
            which reads all of them at each start.
        augment: Augmentation of training images: of each when it is loaded, or of batches on the device that
            trains. None: none.
        preprocess: What is done to every image at the network's input size, before it is kept in the cache.
            None: nothing.
        mix: Mixing of a training batch's images after augmentation, on the device that trains. None: none.
        seed: Seed of order and augmentation.

    Raises:
        SkinsegError: A number is too small.
    """

    def __init__(
        self,
        *,
        reader: Callable[..., Catalog],
        split: Callable[[Catalog], Split] | None = None,
        root: str | None = None,
        images: str | None = None,
        mask_name: str | None = None,
        lesion_value: int | list[int] | None = None,
        mask_threshold: int | None = None,
        metadata: str | None = None,
        columns: Mapping[str, str] | None = None,
        group_by: GroupBy | None = None,
        image_size: tuple[int, int],
        batch_size: int = 16,
        num_workers: int | None = None,
        verify: Verify = True,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
        masks: str | None = None,
        same_lesion: str | None = None,
        overfit: int | None = None,
        on_missing_image: Policy = "error",
        on_missing_metadata: Policy = "error",
        on_missing_mask: MissingPolicy = "error",
        on_missing_lesion: MissingPolicy = "error",
        on_unreadable: Policy = "error",
        on_mask_size: Policy = "error",
        on_mask_format: Policy = "error",
        cache: Mode = "none",
        cache_dir: str = "~/.cache/skinseg",
        cache_limit_gb: float = 32,
        cache_check: Check = "stat",
        augment: Transform | DeviceAugment | None = None,
        preprocess: Preprocessing | None = None,
        mix: Mix | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        least = {"batch_size": (batch_size, 1), "num_workers": (num_workers, 0), "overfit": (overfit, 1)}
        least |= {f"image_size[{i}]": (pixels, 1) for i, pixels in enumerate(image_size)}
        for name, (value, lowest) in least.items():
            if value is not None and value < lowest:
                raise SkinsegError(f"data.{name}={value}: expected {lowest} or more.")
        if not max_megapixels > 0:
            raise SkinsegError(f"data.max_megapixels={max_megapixels}: expected more than 0.")
        if not cache_dir:
            raise SkinsegError("data.cache_dir is empty (or SKINSEG_CACHE is); name a folder.")
        if (where := root if images is None else images) is None or (root and images):
            raise SkinsegError(
                f"data.root={root} and data.images={images}: one of them says where the data are."
            )
        self._reader = reader
        self._make_split = split
        self.root = Path(where)
        own = {
            "mask_name": mask_name,
            "lesion_value": lesion_value,
            "mask_threshold": mask_threshold,
            "metadata": metadata,
            "columns": columns or None,
            "group_by": group_by,
        }
        self._given = {key: value for key, value in own.items() if value is not None}
        self._own = images is not None
        if self._given and images is None:
            keys = ", ".join(f"data.{key}" for key in self._given)
            raise SkinsegError(f"{keys}: of use for data.images=<folder> alone (data=folder); leave it out.")
        self.image_size = (image_size[0], image_size[1])
        self.batch_size = batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        self._verify = verify
        self.max_megapixels = max_megapixels
        self._masks = masks
        self._same_lesion = same_lesion
        self.overfit = overfit
        self.policy: dict[str, MissingPolicy] = {
            "missing_image": on_missing_image,
            "missing_metadata": on_missing_metadata,
            "missing_mask": on_missing_mask,
            "missing_lesion": on_missing_lesion,
            "unreadable": on_unreadable,
            "mask_size": on_mask_size,
            "mask_format": on_mask_format,
        }
        self._cache = cache
        self._cache_dir = Path(cache_dir).expanduser()
        self._cache_limit_gb = cache_limit_gb
        self._cache_check = cache_check
        self._pixels: Pixels | None = None
        self.augment = augment
        self.preprocess = preprocess
        self.mix = mix
        self._seed = seed

    @cached_property
    def catalog(self) -> Catalog:
        """All images that fit. Read once, when first needed."""
        passed = None
        if self._cache == "memmap":
            name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:12]
            passed = PassedFiles(self._cache_dir / f"passed_{name}.json", self.max_megapixels)
        catalog = self.read(Problems(self.policy, passed, self.max_megapixels))
        if passed is not None:
            passed.save()
        for kind, ids in catalog.dropped.items():
            log.warning("Left out %s (%s).", counted(len(ids), "image"), kind)
        return catalog

    def read(self, problems: Problems) -> Catalog:
        """Reads the data set anew, with other policies than the configured ones."""
        given: dict[str, Any] = {"verify": self._verify, **self._given}
        if "lesion_value" in given or "mask_threshold" in given:
            given["cache_dir"] = str(self._cache_dir)
        if self._masks is not None:
            given["mask_folder"] = Path(self._masks).expanduser()
        catalog = self._reader(self.root, problems, **given)
        if self._masks is not None:
            report_masks(catalog, given["mask_folder"], own=self._own)
        if self._same_lesion is not None:
            pairs = read_pairs(Path(self._same_lesion).expanduser(), catalog)
            joined = sorted({image_id for pair in pairs for image_id in pair})
            catalog = replace(catalog.joining(pairs), notes={**catalog.notes, "same_lesion": joined})
        return catalog

    @cached_property
    def split(self) -> Split:
        """Which image is in which subset.

        Raises:
            SkinsegError: The split refuses the catalog, or there is none.
        """
        if self._make_split is None:
            raise SkinsegError("data.split: missing; there is nothing that divides the images.")
        return self._make_split(self.catalog)

    def prepare_data(self) -> None:
        """Decodes the images, once on each machine. Called by Lightning in one process before `setup`."""
        if self._cache == "memmap":
            self._open_cache()

    def setup(self, stage: str) -> None:
        """Opens what `prepare_data` made; in memory, decodes the images. Called in each process."""
        self._open_cache()

    def _open_cache(self) -> None:
        if self._cache == "none" or self._pixels is not None:
            return
        table = self.catalog.table
        used = self.dataset("train").image_ids if self.overfit else table["image_id"][table["mask"].notna()]
        files = input_files(table[table["image_id"].isin(used)], self.max_megapixels)
        if self._cache == "ram":
            self._pixels = pixels_in_memory(
                files, self.image_size, limit_gb=self._cache_limit_gb, preprocess=self.preprocess
            )
        else:
            self._pixels = mapped_pixels(
                files,
                self.image_size,
                folder=self._cache_dir,
                name="_".join(sorted(table["dataset"].unique())),
                limit_gb=self._cache_limit_gb,
                check=self._cache_check,
                preprocess=self.preprocess,
            )
        # A twentieth of a second for 8,000 masks of 256x256.
        empty = int((self._pixels.masks.flatten(1).amax(dim=1) == 0).sum())
        if empty:
            warn_of_empty_masks(empty, len(files), self.image_size)

    def dataset(self, subset: str) -> LesionDataset:
        """Returns the images of "train", "val" or "test"; only training images are augmented."""
        table = self.catalog.table
        rows = table[table["image_id"].isin(self.split.ids("train" if self.overfit else subset))]
        # A score by a mask that a network drew would be its agreement with itself.
        assert subset == "train" or self.overfit or not (rows["mask_source"] == PSEUDO).any()
        if self.overfit:
            rows = rows.head(self.overfit)
        train = subset == "train"
        return LesionDataset(
            rows,
            self.image_size,
            transform=self.augment if train and not isinstance(self.augment, DeviceAugment) else None,
            seed=self._seed,
            with_truth=not train,
            pixels=self._pixels,
            preprocess=self.preprocess,
            max_megapixels=self.max_megapixels,
        )

    def stamps(self, subset: str, scored: int) -> list[str]:
        """Returns what has to stand beside every score and picture of a subset; see `Split.stamps`.

        Args:
            subset: "train", "val" or "test".
            scored: Number of its images that were scored.
        """
        table, ids = self.catalog.table, self.dataset(subset).image_ids
        stamps = [*self.split.stamps, *drawn_stamps(table[table["image_id"].isin(ids)])]
        if scored < len(ids):
            of = f"of the {len(ids):,} {subset} images"
            stamps.append(f"PARTIAL: {counted(scored, f'{of} was', f'{of} were')} scored")
        if self.overfit:
            stamps.append("OVERFIT: scored on the images that were trained on")
        return stamps

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns shuffled, augmented batches; a resumed run goes on where it stopped."""
        dataset = self.dataset("train")
        if not len(dataset):
            raise SkinsegError("The split has no train images; there is nothing to train on.")
        per_rank = -(-len(dataset) // self._world_size)
        if per_rank < self.batch_size:
            number = counted(per_rank, "training image")
            log.warning("batch_size=%d is more than the %s.", self.batch_size, number)
        sampler = self._sampler(dataset, shuffle=True, done=self._rows_done)
        # A last batch of one image would crash networks that normalise pooled features over the batch.
        return self._loader(dataset, sampler, drop_last=per_rank >= self.batch_size)

    def train_batches(self, world_size: int) -> int:
        """Returns how many batches an epoch has in each of so many processes."""
        return max(1, -(-len(self.dataset("train")) // world_size) // self.batch_size)

    def scored_batches(self, subset: str, world_size: int) -> int:
        """Returns how many batches "val" or "test" has in each of so many processes."""
        per_rank = -(-len(self.dataset(subset)) // world_size)
        return -(-per_rank // self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """Returns validation batches in order, with masks at native size."""
        return self._scored_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Returns test batches in order, with masks at native size."""
        return self._scored_loader("test")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Notes the rows to change while they are on the CPU; read on a GPU they would make it wait."""
        if self._changes_batches and self.trainer is not None and self.trainer.training:
            batch["rows"] = batch["index"].tolist()
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augments and mixes a training batch on the device, where that is configured.

        Of a mixed batch "share" says how much the first of two masks in "mask" weighs; see `Mix`.
        """
        if self._changes_batches and self.trainer is not None and self.trainer.training:
            images, masks, share = self._changed(
                batch["image"], batch["mask"], batch.pop("rows"), self.trainer.current_epoch
            )
            batch |= {"image": images, "mask": masks} | ({} if share is None else {"share": share})
        return batch

    def try_changes(self) -> None:
        """Preprocesses, augments and mixes drawn images, so that what is refused is told before any work.

        Raises:
            SkinsegError: As in training.
        """
        image, mask = probe(self.image_size)
        if self.preprocess is not None:
            image = preprocessed(self.preprocess, image)
        images, masks = (
            torch.from_numpy(a).repeat(_TRIED, 1, 1, 1) for a in (image.transpose(2, 0, 1), mask)
        )
        for draw in range(_TRIED):
            if self.augment is not None and not isinstance(self.augment, DeviceAugment):
                self.augment.set_random_state(np.random.default_rng(draw), random.Random(draw))
                augmented(self.augment, image, mask)
            self._changed(images, masks, list(range(_TRIED)), draw)

    def _changed(
        self, images: torch.Tensor, masks: torch.Tensor, rows: list[int], epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor, float | None]:
        """Augments and mixes a batch where that is configured; the share is as `Mix` has it."""
        draw: dict[str, Any] = {"rows": rows, "epoch": epoch, "seed": self._seed}
        if isinstance(self.augment, DeviceAugment):
            images, masks = augmented_batch(self.augment, images, masks, **draw)
        if self.mix is None:
            return images, masks, None
        return mixed_batch(self.mix, images, masks, **draw)

    @property
    def _changes_batches(self) -> bool:
        return isinstance(self.augment, DeviceAugment) or self.mix is not None

    def _scored_loader(self, subset: str) -> DataLoader[Any]:
        dataset = self.dataset(subset)
        if not len(dataset):
            raise SkinsegError(f"The split has no {subset} images; set data.split.{subset} above 0.")
        return self._loader(dataset, self._sampler(dataset, shuffle=False))

    def _rows_done(self) -> int:
        """Returns how many rows of this epoch a resumed run has already trained on."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.completed * self.batch_size

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    def _sampler(
        self, dataset: LesionDataset, *, shuffle: bool, done: Callable[[], int] = lambda: 0
    ) -> EpochSampler:
        rank = self.trainer.global_rank if self.trainer is not None else 0
        return EpochSampler(
            len(dataset),
            shuffle=shuffle,
            seed=self._seed,
            rank=rank,
            world_size=self._world_size,
            done=done,
        )

    def _loader(
        self, dataset: LesionDataset, sampler: EpochSampler, *, drop_last: bool = False
    ) -> DataLoader[Any]:
        workers = min(self.num_workers, -(-len(sampler) // self.batch_size))
        if copies := dataset.gathers and not dataset.with_truth:
            # To hand a batch from process to process takes longer than to copy it from the cache.
            workers = 0
        if workers > usable_cores():
            warn_of_workers("data.num_workers", self.num_workers)
        return LateDataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=prepare_worker,
            ahead=copies,
        )

"""An evaluation: its rows, and the files that are made of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.table import Table

from skinseg import __version__
from skinseg.counting import counted
from skinseg.data.audit import agreement
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS
from skinseg.data.readers.masks import PSEUDO
from skinseg.errors import SkinsegError
from skinseg.evaluation import content
from skinseg.evaluation.card import model_card
from skinseg.evaluation.gallery import describe, extremes, gallery_image, prediction_file
from skinseg.evaluation.rows import Scored
from skinseg.evaluation.subset import Subset, is_test, training_stamps
from skinseg.report.evaluation_page import evaluation_page
from skinseg.report.page import GalleryImage
from skinseg.report.wording import percent
from skinseg.run.identity import digest, method_identity
from skinseg.run.record import RunRecord
from skinseg.run.test_log import describe as describe_scorings
from skinseg.run.test_log import log_scoring, scorings
from skinseg.run.writing import write_csv, write_json, write_text
from skinseg.scoring.metrics import HEADLINE, METRICS
from skinseg.scoring.overlap import OVERLAP_METRICS
from skinseg.scoring.statistics import LEAST_LESIONS
from skinseg.scoring.strata import strata

log = logging.getLogger(__name__)

_ALONE = (
    "image has no known lesion id; it counts as one",
    "images have no known lesion id; each counts as one",
)
_TURNED = (
    "image is stored turned or mirrored and was turned upright",
    "images are stored turned or mirrored and were turned upright",
)
_KNOWN = ("image_id", "group", "diagnosis", "dataset", "mask_source", "age", "sex", "site")


@dataclass(frozen=True)
class Settings:
    """How images are scored and what is said of the scores; see `skinseg.evaluate.EvaluateConfig`."""

    tolerance_px: float
    tolerance_percent: float
    bins: int
    draws: int
    level: float
    seed: int
    gallery: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Takes them from a configuration of `python -m skinseg.evaluate`."""
        return cls(**{field.name: config[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Result:
    """What was scored, and how.

    Attributes:
        settings: How they were scored.
        subset: The images.
        scored: Their scores.
        folder: Where the evaluation is written; `masks/` is there already.
        source: The folder of the images where they are no data set's; None: they are.
        is_divided: Whether the images are a subset of a split.
        predictions: The folder of the masks that were scored; None where a network was.
        user: The user's strata; None: there are none.
        threshold: Threshold of the probabilities; None where masks were scored.
        threshold_origin: Who chose it.
        threshold_asked: What was asked for in place of that of the run; None: nothing.
        checkpoint: None where masks were scored, or where a training kept none.
        record: What the checkpoint carries; None where masks were scored.
        costs: parameters, gflops, images_per_second, training_seconds and training_steps, as far as known.
        device: Where `images_per_second` was measured.
        own_data: Whether the subset is one of the run's own split.
        is_whole: Whether all images of the subset were scored.
        run_dir: The folder of the training, or the one that the checkpoint lies in. None: there is none.
        weights: What the run says of the weights that it scored itself. "": nothing.
        max_megapixels: Most millions of pixels of a picture.
        with_page: Whether the report is written.
    """

    settings: Settings
    subset: Subset
    scored: Scored
    folder: Path
    source: Path | None = None
    is_divided: bool = False
    predictions: Path | None = None
    user: pd.DataFrame | None = None
    threshold: float | None = None
    threshold_origin: str = ""
    threshold_asked: float | Literal["val"] | None = None
    checkpoint: Path | None = None
    record: RunRecord | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    device: str = ""
    own_data: bool = False
    is_whole: bool = True
    run_dir: Path | None = None
    weights: str = ""
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
    with_page: bool = True

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per image: overlap, what the catalog knows, other scores, what the photograph shows, strata.

        The columns at the front are those of `skinseg.callbacks.scores.score_table`.
        """
        known = self.subset.table[list(_KNOWN)]
        table = strata(known.merge(self.scored.table, on="image_id", validate="one_to_one"))
        front = ["image_id", "group", "diagnosis", *OVERLAP_METRICS]
        return table[[*front, *table.columns.difference(front, sort=False)]]

    @property
    def is_test(self) -> bool:
        """Whether these are scores of a test."""
        return is_test(self.record, self.subset)

    @property
    def metrics(self) -> list[str]:
        """The metrics that were scored."""
        return [name for name in METRICS if name in self.scored.table]

    @property
    def name(self) -> str:
        """What was evaluated: the run's name, or the folder's."""
        if self.record is not None:
            return str(self.record.config["name"])
        assert self.predictions is not None
        return self.predictions.resolve().name

    @cached_property
    def data_fingerprint(self) -> str:
        """Names the scored images with the pixels of their truth."""
        rows = self.scored.table[["image_id", "truth_digest"]].itertuples(index=False)
        return digest(f"{image_id} {mask}" for image_id, mask in rows)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The content of `evaluation.json`, which the report shows."""
        settings, table = self.settings, self.table
        how: dict[str, Any] = {"draws": settings.draws, "level": settings.level, "seed": settings.seed}
        lesions = int(table["group"].nunique())
        datasets = ", ".join(sorted(table["dataset"].unique()))
        return {
            "kind": "evaluation",
            "name": self.name,
            "title": f"{self.name} on {self._where(datasets)}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "skinseg": __version__,
            "stamps": self._stamps(),
            "metrics": content.describe_metrics(self.metrics),
            "headline": [name for name in HEADLINE if name in self.metrics],
            "scores": content.estimates(table, self.metrics, **how),
            "interval": content.describe_interval(settings.level, settings.draws, lesions),
            "images": len(table),
            "lesions": lesions,
            "protocol": self._protocol(datasets, lesions),
            "left_out": dict(self.subset.left_out),
            "identity": self._identity(),
            "config": None if self.record is None else self.record.config_written,
            "strata": content.by_strata(table, self.user, **how),
            "calibration": content.calibration(self.scored.calibration),
            "ceiling": content.ceiling(self._agreement(), table),
            "curves": content.learning_curves(self.run_dir),
            "scorings": self._scorings(),
            "costs": dict(self.costs),
            "cost": self._cost(),
            "licences": sorted(self.subset.table["licence"].dropna().unique()),
            "files": [
                [what, name]
                for what, name in (
                    ("Scores of each image", "scores.csv"),
                    ("Everything on this page", "evaluation.json"),
                    ("Predicted masks", "masks"),
                    ("Model card", "MODEL_CARD.md"),
                )
                if name != "MODEL_CARD.md" or self.record is not None
            ],
        }

    def log_scoring(self) -> None:
        """Notes a test in the run's log."""
        if self.is_test and self.run_dir is not None:
            log_scoring(
                self.run_dir,
                command="evaluate",
                checkpoint=None if self.checkpoint is None else self.checkpoint.name,
                threshold=self.threshold,
                threshold_origin=self.threshold_origin,
                split=self.subset.split,
                image_set=digest(self.table["image_id"]),
                data=self.data_fingerprint,
                images=len(self.table),
                dice=float(self.table["dice"].mean()),
                written_to=str(self.folder),
            )

    def write(self) -> None:
        """Writes all files but the provenance and the masks, which lie there already."""
        write_csv(self.folder / "scores.csv", self.table)
        # Where the photographs lie here, for pictures of a comparison.
        write_csv(self.folder / "files.csv", self.subset.table[["image_id", "image", "mask"]])
        if self.evaluation["calibration"] is not None:
            write_csv(self.folder / "calibration.csv", pd.DataFrame(self.evaluation["calibration"]["bins"]))
        if self.with_page:
            page = evaluation_page(self.evaluation, self.table[[*_KNOWN, *self.metrics]], self._gallery())
            write_text(self.folder / "report.html", page)
        if self.record is not None:
            self._write_card()
        write_json(self.folder / "evaluation.json", self.evaluation)  # last: it says that all is there

    def show(self) -> None:
        """Prints the scores, how they were taken and where everything lies."""
        e = self.evaluation
        table = Table(title=e["title"], title_style="bold", title_justify="left")
        for column in ("", "mean", "interval", "undefined"):
            table.add_column(column, justify="left" if not column else "right")
        for name, score in e["scores"].items():
            metric = METRICS[name]
            count = score["undefined"]
            missing = f"{count:,} ({percent(count / e['images'])})" if count else ""
            interval = content.interval_text(name, score)
            table.add_row(metric.label, metric.text(score["mean"]), interval, missing)
        console = Console(highlight=False, soft_wrap=True, markup=False)
        console.print()
        console.print(table)
        console.print(
            f"{counted(e['images'], 'image')} of {counted(e['lesions'], 'lesion')}; {e['interval']}."
        )
        for label, value in e["protocol"]:
            console.print(f"  {label}: {value}", style="dim")
        for line in content.weaker(e):
            console.print(line)
        for stamp in e["stamps"]:
            console.print(stamp, style="bold yellow")
        console.print(f"\nReport: {self.folder / 'report.html'}")

    def _stamps(self) -> list[str]:
        stamps = [*self.subset.stamps, *training_stamps(self.record, self.subset)]
        if self.record is not None:
            stamps += [stamp for stamp in self.record.stamps if stamp not in stamps]
            if self.record.config["data"]["overfit"]:
                stamps.append("OVERFIT: the network was trained on a handful of images")
        return stamps

    def _where(self, datasets: str) -> str:
        """Says of what the images are: of a subset of a split, a folder or a data set."""
        if self.is_divided:
            return f"the {self.subset.name} subset of {datasets}"
        return datasets if self.source is None else f"the folder {self.source.resolve().name}"

    def _protocol(self, datasets: str, lesions: int) -> list[list[str]]:
        table, subset, settings = self.table, self.subset, self.settings
        alone = int((subset.table["group_source"] == "image").sum())
        turned = int(table["image_id"].isin(subset.catalog.notes.get("turned", [])).sum())
        sizes = table.groupby(["width", "height"]).size().sort_values(ascending=False)
        frames = [f"{width}x{height}" for width, height in sizes.index[:3]]
        frames += [counted(len(sizes) - 3, "more size")] if len(sizes) > 3 else []
        rows = [
            ["Images", f"{len(table):,} of {counted(lesions, 'lesion')}: {self._where(datasets)}"],
            *([["Lesions", counted(alone, *_ALONE)]] if alone else []),
            ["Split" if self.is_divided else "Set of images", f"{subset.split}, by {subset.group_key}"],
            *(
                ["Left out", f"{counted(len(ids), 'image')} ({why.replace('_', ' ')})"]
                for why, ids in subset.left_out.items()
            ),
            *([["Orientation", counted(turned, *_TURNED)]] if turned else []),
            ["Resolution", f"each image's own size ({', '.join(frames)})"],
            ["Averaging", "per image, mean over images; undefined scores are left out and counted"],
        ]
        if self.record is not None:
            trained = self.record.config
            height, width = trained["data"]["image_size"]
            rows += [
                ["Threshold", f"{self.threshold:g} ({self.threshold_origin})"],
                ["Checkpoint", self._choice(trained["monitor"])],
                ["Network", f"{_network(trained)}, input {width}x{height}{_preprocessing(trained)}"],
                ["Config fingerprint", self._config_fingerprint()],
            ]
        else:
            rows += [["Predictions", f"masks of {self.predictions}"]]
        return [
            *rows,
            ["Data fingerprint", f"{self.data_fingerprint} (image ids and pixels of the true masks)"],
            [
                "Surface tolerance",
                f"{settings.tolerance_px:g} px; relative {settings.tolerance_percent:g} % of the diagonal",
            ],
        ]

    def _config_fingerprint(self) -> str:
        assert self.record is not None
        return digest([json.dumps(self.record.config_written, sort_keys=True, default=str)])

    def _choice(self, monitor: str) -> str:
        """Names the checkpoint and says whether it was chosen, as far as its run or its name tells."""
        assert self.record is not None
        if self.checkpoint is None:
            return self.weights
        scored, _, how = self.weights.partition(", ")
        name = self.checkpoint.name
        if self.record.members:
            how = f"joins {counted(len(self.record.members), 'checkpoint')}"
        elif scored == name and how:
            pass
        elif name == "best.ckpt":
            how = f"best {monitor} on validation"
        elif name == "last.ckpt":
            how = f"the most recent one of its run, not the one chosen by {monitor}"
        else:
            how = f"of a run that chooses by {monitor}; whether this one was chosen, its name does not say"
        return f"{self.checkpoint} ({how})"

    def _identity(self) -> dict[str, Any]:
        """What a comparison needs to know: which images, and which method."""
        settings = {key: getattr(self.settings, key) for key in ("tolerance_px", "tolerance_percent", "bins")}
        identity = {
            "side": self.subset.name,
            "split": self.subset.split,
            "data": self.data_fingerprint,
            "settings": ", ".join(f"{key}={value:g}" for key, value in settings.items()),
        }
        if self.record is None:
            # Nothing but the place tells the masks of two programs apart.
            assert self.predictions is not None
            method = f"{self.name} {digest([str(self.predictions.resolve())])[:6]}"
            return {**identity, "training": None, "method": method, "seed": None, "fold": None}
        trained = self.record.config
        method_of = method_identity(self.record.config_written)
        if self.threshold_asked is not None and self.threshold_asked != trained["threshold"]:
            method_of["method"] += f" threshold={self.threshold_asked}"
        return {**identity, "training": trained["run_dir"], **method_of}

    def _agreement(self) -> pd.DataFrame:
        catalog = self.subset.catalog
        kept = catalog.annotations["image_id"].isin(self.subset.table["image_id"])
        kept &= catalog.annotations["mask_source"] != PSEUDO
        several = type(catalog)(catalog.table, annotations=catalog.annotations[kept])
        return agreement(several, self.max_megapixels)

    def _scorings(self) -> dict[str, Any] | None:
        if self.record is None or not self.is_test:
            return None
        if self.run_dir is None:
            return {
                "count": 1,
                "text": "The checkpoint lies in no run folder: earlier scorings are not known.",
            }
        return describe_scorings(scorings(self.run_dir), digest(self.table["image_id"]))

    def _cost(self) -> list[list[str]]:
        costs = self.costs
        if not costs:
            return []
        rows = [
            ["Parameters", f"{costs['parameters'] / 1e6:.2f} million"],
            ["Operations", f"{costs['gflops']:.2f} GFLOPs an image"],
        ]
        if "images_per_second" in costs:
            speed = f"{costs['images_per_second']:.1f} images/s on {self.device}, of the network alone"
            rows.append(["Speed", speed])
        if "training_seconds" in costs:
            rows.append(["Training", f"{costs['training_seconds'] / 60:.1f} min"])
        return rows

    def _gallery(self) -> list[GalleryImage]:
        files = self.subset.table[["image_id", "image", "mask"]]
        chosen = extremes(self.table, self.settings.gallery).merge(files, on="image_id")
        pictures = []
        for found in chosen.to_dict("records"):
            row = {str(key): value for key, value in found.items()}
            image_id = str(row["image_id"])
            masks = {"truth": Path(row["mask"]), "prediction": prediction_file(self.folder, image_id)}
            scores = {name: row[name] for name in HEADLINE[:4] if name in row}
            pictures.append(gallery_image(row, masks, scores, describe(row), self.max_megapixels))
        return pictures

    @property
    def card_beside(self) -> Path | None:
        """Where the card stands beside the checkpoint; None of scores that are not what it is known by.

        Those are of the whole of its own test subset, with a threshold that was not picked by hand.
        """
        known_by = self.own_data and self.is_whole and not isinstance(self.threshold_asked, float)
        if self.checkpoint is None or self.run_dir is None or not known_by:
            return None
        if self.checkpoint.resolve().parent.parent != self.run_dir.resolve():
            return None
        return self.checkpoint.with_name(f"{self.checkpoint.stem}.MODEL_CARD.md") if self.is_test else None

    def _write_card(self) -> None:
        assert self.record is not None
        card = model_card(self.evaluation, _network(self.record.config), LEAST_LESIONS)
        write_text(self.folder / "MODEL_CARD.md", card)
        if self.card_beside is not None:
            try:
                write_text(self.card_beside, card)
            except SkinsegError as error:
                log.warning("%s The card is in %s.", error, self.folder)


def run_folder(checkpoint: Path) -> Path | None:
    """Returns the run folder that a checkpoint lies in; None where it was moved out of one."""
    folder = checkpoint.resolve().parent.parent
    return (
        folder
        if (folder / "config.yaml").is_file() and checkpoint.resolve().parent.name == "checkpoints"
        else None
    )


def _network(config: Mapping[str, Any]) -> str:
    model = config["model"]
    if "members" in model:
        return f"Ensemble of {len(model['members'])}"
    return f"{str(model['_target_']).rsplit('.', 1)[-1]} {model.get('encoder_name', '')}".strip()


def _preprocessing(config: Mapping[str, Any]) -> str:
    """Returns what was done to every image."""
    transforms = (config["preprocess"] or {}).get("transforms")
    return f", preprocessed by {', '.join(transforms)}" if transforms else ""

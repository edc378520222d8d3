"""Photographs that are turned, damaged or too large, through every command that opens some."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Train, make_ham, train_tiny
from PIL import ExifTags, Image

from skinseg.audit import run as audit
from skinseg.config.compose import compose
from skinseg.data import photographs
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.inputs import input_files
from skinseg.data.problems import Problems
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.splits.make import make_split
from skinseg.errors import SkinsegError
from skinseg.evaluate import run as evaluate
from skinseg.predict import run as predict
from skinseg.preview import run as preview
from skinseg.split import run as split
from skinseg.train import run as train_run

# Turns what is seen to how it is stored, by the orientation that turns it back.
STORED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("opening")
    overrides = ("trainer.max_epochs=4", "optimizer.lr=0.01", "data.split.test=0.4")
    return train_tiny(make_ham(root / "ham10000", 20), root / "run", *overrides)


def turn(path: Path, orientation: int, to: Path | None = None) -> None:
    """Stores a photograph turned, with the orientation that turns it upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with Image.open(path) as image:
        stored = image.transpose(STORED[orientation]) if orientation != 1 else image.copy()
    # As bytes, of which alone pillow-heif takes the orientation.
    stored.save(to or path, exif=exif.tobytes(), quality=95)


def folders(run_dir: Path, place: Path, orientation: int, count: int = 6) -> tuple[Path, Path]:
    """Writes photographs without loss, turned, with upright masks; returns both folders."""
    images, truth = place / "images", place / "truth"
    images.mkdir(parents=True)
    truth.mkdir()
    for path in sorted((run_dir.parent / "ham10000").rglob("*.jpg"))[:count]:
        turn(path, orientation, images / f"{path.stem}.png")
        (mask,) = (run_dir.parent / "ham10000").rglob(f"{path.stem}_segmentation.png")
        shutil.copy(mask, truth)
    return images, truth


def ckpt_of(run_dir: Path) -> str:
    return f"ckpt={run_dir / 'checkpoints/best.ckpt'}"


def predict_folder(run_dir: Path, images: Path, output: Path, *overrides: str) -> dict[str, str]:
    what = [ckpt_of(run_dir), f"input={images}", f"output={output}", "run_dir=unused", "num_workers=0"]
    return predict(compose([*what, *overrides], "predict"))


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_photographs_are_predicted_and_scored_as_the_upright_ones(
    orientation: int, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {}
    for which in (1, orientation):
        images, truth = folders(run_dir, tmp_path / str(which), which)
        assert predict_folder(run_dir, images, tmp_path / str(which) / "out") == {}
        said = capsys.readouterr().out
        assert ("6 photographs are stored turned" in said) == (which > 1)
        what = [
            ckpt_of(run_dir),
            f"images={images}",
            f"truth={truth}",
            "overlap=keep",
            "draws=200",
            "workers=0",
        ]
        (folder,) = evaluate(compose([*what, f"run_dir={tmp_path / str(which) / 'scores'}"], "evaluate"))
        scores[which] = pd.read_csv(folder / "scores.csv")
        protocol = dict(json.loads((folder / "evaluation.json").read_text())["protocol"])
        assert protocol.get("Orientation", "").startswith("6 images") == (which > 1)
    assert scores[1]["dice"].between(0.01, 0.999).any()
    pd.testing.assert_frame_equal(scores[1], scores[orientation])
    for upright in (tmp_path / "1/out").iterdir():
        assert upright.read_bytes() == (tmp_path / str(orientation) / "out" / upright.name).read_bytes()


def test_a_turned_data_set_is_trained_on_upright_and_counted(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_ham(tmp_path / "ham10000", 20)
    turned = sorted(root.rglob("*.jpg"))[::2]
    for path in turned:
        turn(path, 6)
    caplog.set_level("INFO")
    folder = train("test=false")
    ids = sorted(path.stem for path in turned)
    noted = json.loads((folder / "data.json").read_text())["catalog"]["notes"]["turned"]
    assert noted == {"count": 20, "image_ids": ids}
    assert "20 images are stored turned or mirrored" in caplog.text
    for verify in (True, "headers"):
        catalog = read_ham10000(root, Problems(), verify=verify)  # type: ignore[arg-type]
        assert catalog.notes["turned"] == ids
        assert set(zip(catalog.table["width"], catalog.table["height"], strict=True)) == {(40, 32)}
    data = LesionDataModule(reader=read_ham10000, root=str(root), image_size=(32, 40), cache="none")
    for file in input_files(data.catalog.table):
        image, mask, truth = file.read((32, 40))
        assert truth.shape == (32, 40)
        dark = image.mean(-1) < 140  # the discs are dark
        assert (dark == (mask > 0)).mean() > 0.97


def test_what_passed_before_is_still_counted(tmp_path: Path) -> None:
    root = make_ham(tmp_path / "ham10000", 4)
    turn(next(root.rglob("*.jpg")), 3)
    for _ in range(2):
        data = LesionDataModule(
            reader=read_ham10000, root=str(root), image_size=(32, 32), cache="memmap", cache_dir=str(tmp_path)
        )
        assert len(data.catalog.notes["turned"]) == 1
    smaller = LesionDataModule(
        reader=read_ham10000, root=str(root), image_size=(32, 32), cache="memmap", cache_dir=str(tmp_path),
        max_megapixels=0.001,
    )  # fmt: skip
    with pytest.raises(SkinsegError, match=r"8 files cannot be decoded.*\n.*max_megapixels=0\.001"):
        smaller.catalog  # noqa: B018


@pytest.mark.parametrize("verify", [True, "headers"])
def test_a_mask_of_the_stored_pixels_is_refused_with_the_reason(tmp_path: Path, verify: object) -> None:
    root = make_ham(tmp_path / "ham10000", 4)
    path = next(root.rglob("*.jpg"))
    (mask,) = root.rglob(f"{path.stem}_segmentation.png")
    turn(path, 6)
    with Image.open(mask) as drawn:
        drawn.transpose(STORED[6]).save(mask)
    with pytest.raises(SkinsegError, match=r"32x40, its image is 40x32 once it is turned upright"):
        read_ham10000(root, Problems(), verify=verify)  # type: ignore[arg-type]


def test_so_is_one_in_a_folder(run_dir: Path, tmp_path: Path) -> None:
    images, truth = folders(run_dir, tmp_path, 6)
    for mask in truth.iterdir():
        with Image.open(mask) as drawn:
            drawn.transpose(STORED[6]).save(mask)
    what = [ckpt_of(run_dir), f"images={images}", f"truth={truth}", f"run_dir={tmp_path / 'scores'}"]
    with pytest.raises(SkinsegError, match=r"6 masks do not fit(.|\n)*upright by its EXIF orientation"):
        evaluate(compose(what, "evaluate"))


def test_the_audit_counts_turned_files(tmp_path: Path) -> None:
    root = make_ham(tmp_path / "ham10000", 4)
    path = next(root.rglob("*.jpg"))
    turn(path, 3)
    audit(compose(["data=ham10000", f"data.root={root}", f"run_dir={tmp_path / 'audit'}"], "audit"))
    findings = json.loads((tmp_path / "audit/audit.json").read_text())["findings"]
    (found,) = [finding for finding in findings if finding["kind"] == "turned"]
    assert found["severity"] == "caution"
    assert found["image_ids"] == [path.stem]
    assert "nobody can tell" in found["text"]


def bomb(path: Path) -> None:
    """Makes a JPEG's header claim 60,000 x 60,000 pixels."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(data)


def floating(path: Path) -> None:
    Image.fromarray(np.full((32, 40), 200, np.float32)).save(path, "TIFF")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a bomb": (bomb, "max_megapixels=120"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:300]), "Truncated"),
    "a mode that could only be guessed at": (floating, "floating point"),
    "an absurd chunk": (
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"IHDR" + b"x" * 40),
        "Truncated|not an image",
    ),
}


@pytest.mark.slow
def test_bad_photographs_are_left_out_and_listed_everywhere(
    train: Train, run_dir: Path, tmp_path: Path
) -> None:
    root = make_ham(tmp_path / "ham10000", 20)
    victims = dict(zip(DAMAGES, sorted(root.rglob("*.jpg"))[3:], strict=False))
    for damage, path in victims.items():
        DAMAGES[damage][0](path)
    ids = sorted(path.stem for path in victims.values())
    with pytest.raises(SkinsegError, match=f"{len(ids)} files cannot be decoded") as refused:
        train("test=false", run_dir="refused")
    for damage, path in victims.items():
        assert re.search(rf"{path.name}: .*({DAMAGES[damage][1]})", str(refused.value)), damage
    folder = train("data.on_unreadable=drop", "test=false")
    dropped = json.loads((folder / "data.json").read_text())["catalog"]["dropped"]
    assert dropped["unreadable"] == {"count": len(ids), "image_ids": ids}

    for on in ("error", "drop"):
        what = ["data=ham10000", f"data.root={root}", f"data.on_unreadable={on}", f"run_dir={tmp_path / on}"]
        audit(compose(what, "audit"))
        findings = json.loads((tmp_path / on / "audit.json").read_text())["findings"]
        (found,) = [finding for finding in findings if finding["kind"] == "unreadable"]
        assert found["image_ids"] == ids
    preview(compose([*what[:3], "images=2", f"run_dir={tmp_path / 'preview'}"], "preview"))
    split(compose([*what[:3], f"run_dir={tmp_path / 'split'}"], "split"))

    (tmp_path / "in").mkdir()
    for path in sorted(root.rglob("*.jpg"))[:10]:
        shutil.copy(path, tmp_path / "in")
    problems = predict_folder(run_dir, tmp_path / "in", tmp_path / "out")
    assert sorted(Path(file).stem for file in problems) == ids
    assert len(list((tmp_path / "out").glob("*.png"))) == 10 - len(ids)


def test_a_bad_mask_is_left_out_and_listed(train: Train, tmp_path: Path) -> None:
    root = make_ham(tmp_path / "ham10000", 20)
    victim = sorted(root.rglob("*_segmentation.png"))[3]
    Image.new("1", (14_000, 13_000)).save(victim)
    folder = train("data.on_unreadable=drop", "test=false")
    dropped = json.loads((folder / "data.json").read_text())["catalog"]["dropped"]
    assert dropped["unreadable"]["image_ids"] == [victim.stem.removesuffix("_segmentation")]


def test_the_limit_reaches_the_loader_processes(run_dir: Path, tmp_path: Path) -> None:
    images, _ = folders(run_dir, tmp_path, 1)
    Image.new("RGB", (100, 80), "tan").save(images / "larger.png")
    limits = ["max_megapixels=0.005", "num_workers=1"]
    problems = predict_folder(run_dir, images, tmp_path / "out", *limits)
    assert [Path(file).name for file in problems] == ["larger.png"]
    with pytest.raises(SkinsegError, match="max_megapixels=0: expected more than 0"):
        predict_folder(run_dir, images, tmp_path / "none", "max_megapixels=0")


@pytest.mark.slow
def test_every_command_opens_pictures_under_the_limit_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    opened = photographs._opened

    def watched(path: Path | str, max_megapixels: float) -> object:
        limits.append(max_megapixels)
        return opened(path, max_megapixels)

    monkeypatch.setattr(photographs, "_opened", watched)

    def check(command: str) -> None:
        assert limits, command
        assert set(limits) == {77}, command
        limits.clear()

    root = make_ham(tmp_path / "ham10000", 20)
    module = {"reader": read_ham10000, "split": make_split, "root": str(root), "image_size": (32, 32)}
    for cache in ("memmap", "ram"):
        LesionDataModule(
            **module, cache=cache, cache_dir=str(tmp_path), max_megapixels=77, verify=False
        ).setup("fit")  # type: ignore[arg-type]
        check(cache)
    data = ["data=ham10000", f"data.root={root}", "data.max_megapixels=77", "data.cache=none"]
    train_run(compose([*TINY, *data, f"run_dir={tmp_path / 'run'}"]))
    check("train")
    preview(compose([*data, "images=2", f"run_dir={tmp_path / 'preview'}"], "preview"))
    check("preview")
    audit(compose([*data, f"run_dir={tmp_path / 'audit'}"], "audit"))
    check("audit")
    split(compose([*data, f"run_dir={tmp_path / 'split'}"], "split"))
    check("split")
    ckpt = f"ckpt={tmp_path / 'run/checkpoints/best.ckpt'}"
    (scores,) = evaluate(
        compose([ckpt, f"run_dir={tmp_path / 'own'}", "threshold=val", "draws=200", "workers=0"], "evaluate")
    )
    check("evaluate, as trained")
    images, truth = folders(tmp_path / "run", tmp_path, 1)
    limit = ["data.max_megapixels=77", "draws=200", "workers=0"]
    what = [ckpt, f"images={images}", f"truth={truth}", "overlap=keep", f"run_dir={tmp_path / 'folders'}"]
    (scores,) = evaluate(compose([*what, *limit], "evaluate"))
    check("evaluate of folders")
    what = [f"predictions={scores / 'masks'}", *what[1:3], f"run_dir={tmp_path / 'masks'}"]
    evaluate(compose([*what, *limit], "evaluate"))
    check("evaluate of masks")
    predict_folder(tmp_path / "run", images, tmp_path / "out", "max_megapixels=77")
    check("predict")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_iphones_photograph_is_upright(orientation: int, tmp_path: Path) -> None:
    """HEIC has the orientation in its own box and perhaps in EXIF too; it is applied once."""
    pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    upright = np.full((48, 64, 3), 200, np.uint8)
    upright[:16, :16] = (200, 30, 30)  # a mark in the corner, so that a turn shows
    Image.fromarray(upright).save(tmp_path / "a.png")
    turn(tmp_path / "a.png", orientation, tmp_path / "a.heic")
    assert (b"irot" in (tmp_path / "a.heic").read_bytes()) == (orientation != 1)
    pixels, frame = photographs.read_photograph(tmp_path / "a.heic")
    assert frame.size == photographs.read_frame(tmp_path / "a.heic").size == (48, 64)
    assert np.abs(pixels.astype(int) - upright).mean() < 5

"""Masks of a folder of photographs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import AskScorer, make_ham, train_tiny
from PIL import Image

from skinseg.build import nets
from skinseg.config.compose import compose
from skinseg.data.inputs import read_input
from skinseg.errors import SkinsegError
from skinseg.evaluate import run as evaluate
from skinseg.models.net import LesionNet
from skinseg.names import escape_output, shown
from skinseg.predict import main, run
from skinseg.run.record import RunRecord
from skinseg.run.written import RECORD


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predict")
    return train_tiny(make_ham(root / "ham10000", 12), root / "run", "test=false") / "checkpoints/best.ckpt"


def photographs(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for number, size in enumerate([(40, 30), (61, 47), (200, 150)] * 3):
        path = folder / ("sub" if number % 2 else "") / f"IMG_{number}.{('jpg', 'png')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return folder


def predict(ckpt: Path, place: Path, *overrides: str) -> dict[str, str]:
    what = [
        f"ckpt={ckpt}",
        f"input={place / 'in'}",
        f"output={place / 'out'}",
        "run_dir=unused",
        "num_workers=0",
    ]
    return run(compose([*what, *overrides], "predict"))


def masks(place: Path) -> list[Path]:
    return sorted((place / "out").glob("*.png"))


def listed(place: Path) -> dict[str, str]:
    """What `unreadable.csv` says, by file name."""
    table = pd.read_csv(place / "out/unreadable.csv")
    return dict(zip(table["file"].map(lambda file: Path(file).name), table["problem"], strict=True))


def test_masks_are_of_the_photographs_sizes_and_the_challenges_form(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    assert predict(ckpt, tmp_path) == {}
    found = masks(tmp_path)
    assert sorted({path.name for path in (tmp_path / "out").iterdir()} - {path.name for path in found}) == [
        RECORD
    ]
    assert [path.name for path in found] == [f"IMG_{n}_segmentation.png" for n in range(9)]
    for number, path in enumerate(found):
        with Image.open(path) as mask:
            assert mask.mode == "L"
            assert mask.size == [(40, 30), (61, 47), (200, 150)][number % 3]
            assert set(np.unique(np.array(mask))) <= {0, 255}


def probabilities(net: LesionNet, record: RunRecord, files: list[str]) -> np.ndarray:
    predictor = nets.predictor(net, record, device="cpu", num_workers=0)
    return np.stack([prediction.probability for prediction in predictor(files)])


@pytest.mark.slow
def test_preprocessing_of_the_run_is_applied(tmp_path: Path) -> None:
    """Trained with preprocessing, scored with it, predicted with it: the same masks to the pixel.

    The photographs are under light of many colours, which the network would take amiss.
    """
    root = make_ham(tmp_path / "ham10000", 12)
    for number, path in enumerate(sorted(root.glob("*/*.jpg"))):
        with Image.open(path) as photograph:
            lamp = np.random.default_rng(number).uniform(0.3, 1.0, 3)
            Image.fromarray((np.array(photograph) * lamp).astype(np.uint8)).save(path, quality=95)
    run_dir = train_tiny(root, tmp_path / "run", "preprocess=grey_world", "data.split.test=0.4")
    ckpt = run_dir / "checkpoints/best.ckpt"
    trained = pd.read_csv(run_dir / "scores.csv").set_index("image_id")
    net, record = nets.load_net(ckpt)
    (tmp_path / "in").mkdir()
    for image_id in trained.index:
        (source,) = root.glob(f"*/{image_id}.jpg")
        shutil.copy(source, tmp_path / "in")
    middle = 0.5

    # What the network should see, made here by its definition.
    files = sorted(map(str, (tmp_path / "in").iterdir()))
    inputs = []
    for file in files:
        image = read_input(file, (32, 32)).astype(float)
        means = image.mean(axis=(0, 1))
        gains = np.linalg.norm(means) / np.sqrt(3) / means
        inputs.append(np.clip(np.round(image * gains), 0, 255).astype(np.uint8))
    pixels = torch.from_numpy(np.stack(inputs).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        expected = net.probabilities(pixels, (32, 40))[:, 0].numpy()
    found = probabilities(net, record, files)
    assert np.abs(found - expected).max() < 1e-4
    record = replace(record, config={**record.config, "preprocess": None})
    raw = probabilities(net, record, files)
    assert np.abs(raw - expected).max() > 0.02, "it makes a difference here"

    predict(ckpt, tmp_path, f"threshold={middle}")
    for number, file in enumerate(files):
        with Image.open(tmp_path / "out" / f"{Path(file).stem}_segmentation.png") as mask:
            certain = np.abs(expected[number] - middle) > 1e-4
            assert ((np.array(mask) > 0) == (expected[number] >= middle))[certain].all()
    what = [f"ckpt={ckpt}", f"run_dir={tmp_path / 'eval'}", "workers=0"]
    (evaluated,) = evaluate(compose(what, "evaluate"))
    scores = pd.read_csv(evaluated / "scores.csv").set_index("image_id")
    assert scores["dice"].to_dict() == pytest.approx(trained["dice"].to_dict(), abs=1e-9)
    assert "preprocessed by grey_world" in (evaluated / "evaluation.json").read_text()


def test_threshold_and_what_stands_beside_a_photograph(ckpt: Path, tmp_path: Path) -> None:
    """All photographs in one go give the same probabilities as each one alone."""
    photographs(tmp_path / "in")
    net, record = nets.load_net(ckpt)
    predictor = nets.predictor(net, record, device="cpu", num_workers=0)
    files = sorted(map(str, (tmp_path / "in").rglob("IMG*")))
    together = {prediction.row: prediction.probability for prediction in predictor(files)}
    for row, file in enumerate(files):
        alone = next(iter(predictor([file]))).probability
        assert (alone == together[row]).all()
    middle = float(np.median(together[0]))
    predict(ckpt, tmp_path, f"threshold={middle}")
    name = Path(files[0]).stem
    with Image.open(tmp_path / "out" / f"{name}_segmentation.png") as mask:
        assert ((np.array(mask) > 0) == (together[0] >= np.float32(middle))).all()


def test_a_photograph_may_be_an_array(ckpt: Path, tmp_path: Path) -> None:
    net, record = nets.load_net(ckpt)
    predictor = nets.predictor(net, record, device="cpu", num_workers=0)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    of_file, of_array = predictor([str(tmp_path / "photograph.png"), pixels])
    assert (of_file.probability == of_array.probability).all()
    assert of_array.probability.shape == (50, 70)
    for wrong in (pixels[..., 0], pixels / 255, pixels[:0]):
        with pytest.raises(SkinsegError, match=r"image 1 is an array of .*; expected uint8 and \(H, W, 3\)"):
            list(predictor([pixels, wrong]))


def test_a_network_is_loaded_without_what_trained_it(ckpt: Path) -> None:
    """Another program that takes one has neither Lightning nor Hydra to import."""
    script = f"""
import sys
from skinseg.build.nets import load_net, predictor
predictor(*load_net({str(ckpt)!r}), device="cpu", num_workers=0)
print(sorted({{"lightning", "pytorch_lightning", "hydra", "omegaconf"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unreadable_photograph_is_listed_and_not_fatal(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    (tmp_path / "in/broken.jpg").write_bytes(b"no image")
    problems = predict(ckpt, tmp_path)
    assert [Path(file).name for file in problems] == ["broken.jpg"]
    listed = pd.read_csv(tmp_path / "out/unreadable.csv")
    assert "not an image" in listed["problem"][0]
    assert len(list((tmp_path / "out").glob("*.png"))) == 9


def test_masks_and_superpixels_beside_the_photographs_are_passed_over(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    for ending in ("_segmentation", "_superpixels"):
        Image.new("L", (40, 30)).save(tmp_path / "in" / f"IMG_0{ending}.png")
    predict(ckpt, tmp_path)
    assert len(masks(tmp_path)) == 9


def test_masks_that_are_there_are_kept_unless_told_otherwise(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    kept = tmp_path / "out/IMG_3_segmentation.png"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    with pytest.raises(SkinsegError, match="overwrite=true"):
        predict(ckpt, tmp_path)
    assert kept.read_bytes() == b"mine"
    assert len(list((tmp_path / "out").iterdir())) == 1
    predict(ckpt, tmp_path, "overwrite=true")
    assert kept.read_bytes() != b"mine"


def test_the_folder_describes_the_last_call_alone(
    ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photograph repaired, one damaged, one gone, one new; a mask that somebody drew, and one corrected."""
    place, out = photographs(tmp_path / "in"), tmp_path / "out"
    broken = place / "broken.jpg"
    broken.write_bytes(b"no image")
    predict(ckpt, tmp_path)
    assert list(listed(tmp_path)) == ["broken.jpg"]

    Image.new("RGB", (40, 30), "red").save(broken)
    (place / "IMG_0.jpg").write_bytes(b"no image")
    (place / "IMG_2.jpg").unlink()
    (place / "IMG_4.jpg").rename(place / "other.jpg")
    (place / "IMG_6.jpg").unlink()
    (out / "IMG_6_segmentation.png").write_bytes(b"corrected by hand")
    (out / "drawn_segmentation.png").write_bytes(b"by hand")
    (out / "notes.txt").write_text("mine")
    predict(ckpt, tmp_path, "overwrite=true")
    assert list(listed(tmp_path)) == ["IMG_0.jpg"]
    of_call = [
        f"{name}_segmentation.png"
        for name in ("IMG_1", "IMG_3", "IMG_5", "IMG_7", "IMG_8", "broken", "other")
    ]
    kept = ["IMG_6_segmentation.png", "drawn_segmentation.png"]
    assert [path.name for path in masks(tmp_path)] == sorted(of_call + kept)
    assert (out / kept[0]).read_bytes() == b"corrected by hand"
    assert (out / "notes.txt").exists()
    assert ": 2 masks that this call did not write, e.g. " in capsys.readouterr().out

    Image.new("RGB", (40, 30), "red").save(place / "IMG_0.jpg")
    predict(ckpt, tmp_path, "overwrite=true")
    assert not (out / "unreadable.csv").exists()
    assert len(masks(tmp_path)) == 10


@pytest.mark.parametrize("recorded", [True, False])
def test_a_list_that_somebody_changed_stays(ckpt: Path, tmp_path: Path, recorded: bool) -> None:
    place, out = photographs(tmp_path / "in"), tmp_path / "out"
    (place / "broken.jpg").write_bytes(b"no image")
    predict(ckpt, tmp_path)
    table = out / "unreadable.csv"
    table.write_text("who,what\nme,I called the clinic\n")
    if not recorded:
        (out / ".skinseg").unlink()
    (place / "broken.jpg").unlink()
    predict(ckpt, tmp_path, "overwrite=true")
    assert table.read_text().startswith("who,what")


def test_a_list_of_a_version_without_a_record_goes(ckpt: Path, tmp_path: Path) -> None:
    place = photographs(tmp_path / "in")
    (place / "broken.jpg").write_bytes(b"no image")
    predict(ckpt, tmp_path)
    (tmp_path / "out/.skinseg").unlink()
    (place / "broken.jpg").unlink()
    predict(ckpt, tmp_path, "overwrite=true")
    assert not (tmp_path / "out/unreadable.csv").exists()


def test_masks_of_other_photographs_are_not_mixed_in_without_a_word(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    predict(ckpt, tmp_path)
    (tmp_path / "more").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "more/new.jpg")
    with pytest.raises(SkinsegError, match=r"already holds what an earlier call wrote.*overwrite=true"):
        predict(ckpt, tmp_path, f"input={tmp_path / 'more'}")
    assert len(masks(tmp_path)) == 9
    predict(ckpt, tmp_path, f"input={tmp_path / 'more'}", "overwrite=true")
    assert [path.name for path in masks(tmp_path)] == ["new_segmentation.png"]


def test_photographs_of_all_kinds_and_what_is_none(
    ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten files as people have them, and what lies beside; each is outlined, listed or counted."""
    (tmp_path / "in").mkdir()
    read = ("a.jpg", "b.JPG", "c.jfif", "d.jpe", "e.avif", "f.jp2", "g.ppm", "h.webp", "i.TIF")
    for name in read:
        Image.new("RGB", (40, 30), "red").save(tmp_path / "in" / name)
    for name in ("x.svs", "y.dcm", "z.CR3", "notes.txt", "Thumbs.db", "ages.csv", "sizes.csv"):
        (tmp_path / "in" / name).write_bytes(b"words")
    problems = predict(ckpt, tmp_path)
    assert [path.name for path in masks(tmp_path)] == [f"{name[0]}_segmentation.png" for name in read]
    assert [Path(file).name for file in problems] == list(listed(tmp_path)) == ["x.svs", "y.dcm", "z.CR3"]
    said = capsys.readouterr().out
    assert "Pictures that are not read: 1 .cr3, 1 .dcm, 1 .svs." in said
    assert "Other files, passed over: 2 .csv, 1 .db, 1 .txt." in said


@pytest.mark.parametrize(("file", "code"), [("notes.txt", 0), ("b.dcm", 1), ("b.jpg", 1)])
def test_the_exit_code_says_whether_each_photograph_has_a_mask(
    ckpt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    code: int,
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "in/a.jpg")
    (tmp_path / "in" / file).write_bytes(b"words")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", f"ckpt={ckpt}", "input=in", "output=out", "num_workers=0"])
    if not code:
        assert main() == 0
        return
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert f"1 photograph has no mask; see out/unreadable.csv:\n  in/{file}" in capsys.readouterr().err


def test_names_that_are_no_text_or_too_long(
    ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks bear the ids as every table shows them; a mask that cannot is listed, the others are written."""
    latin = os.fsdecode(b"caf\xe9")
    (tmp_path / "in").mkdir()
    names = ["a", "b" * 238, "c" * 239, "d" * 251, "ü" * 119 + "e", "f [bold]", "g" * 9, latin]
    for name in names:
        Image.new("RGB", (40, 30), "red").save(tmp_path / "in" / f"{name}.jpg")
    (tmp_path / "in" / f"{latin}2.jpg").write_bytes(b"no image")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    escape_output()
    predict(ckpt, tmp_path)
    too_long = [name for name in names if len(os.fsencode(name)) > 238]
    assert len(too_long) == 3
    written = {f"{shown(name)}_segmentation.png" for name in names if name not in too_long}
    assert {path.name for path in masks(tmp_path)} == written
    problems = listed(tmp_path)
    assert {f"{name}.jpg" for name in too_long} | {r"caf\udce92.jpg"} == problems.keys()
    assert {problems[f"{name}.jpg"] for name in too_long} == {
        "its mask cannot be written: File name too long."
    }
    assert problems[r"caf\udce92.jpg"] == "not an image (8 bytes)", "the path has a column of its own"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["input=/nowhere"], "input=/nowhere: no such folder"),
        (["ckpt=/nowhere.ckpt"], "no such file"),
        (["batch_size=0"], "batch_size=0"),
        (["threshold=2"], "threshold=2"),
        (["precision=half"], "precision"),
        (["threshold=val"], "predict takes a number"),
        (["ckpt="], "ckpt is empty"),
    ],
)
def test_mistakes(ckpt: Path, tmp_path: Path, overrides: list[str], said: str) -> None:
    photographs(tmp_path / "in")
    with pytest.raises(SkinsegError, match=said):
        predict(ckpt, tmp_path, *overrides)
    assert not (tmp_path / "out").exists()


def test_output_among_the_photographs_is_refused(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    with pytest.raises(SkinsegError, match="is the input"):
        predict(ckpt, tmp_path, f"output={tmp_path / 'in'}")


def test_what_is_no_checkpoint(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    (tmp_path / "text.ckpt").write_text("epoch 3, the best so far\n")
    with pytest.raises(SkinsegError, match=r"text\.ckpt \(25 bytes\) is not a whole checkpoint"):
        predict(tmp_path / "text.ckpt", tmp_path)
    with pytest.raises(SkinsegError, match=r"is a folder; did you mean .*checkpoints/best\.ckpt"):
        predict(ckpt.parents[1], tmp_path)


def test_nothing_readable_and_nothing_there(ckpt: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SkinsegError, match="holds no picture"):
        predict(ckpt, tmp_path)
    (tmp_path / "in/a.jpg").write_bytes(b"")
    with pytest.raises(SkinsegError, match=r"none of the 1 file .*empty file"):
        predict(ckpt, tmp_path)


def test_two_photographs_of_one_name_are_refused(ckpt: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    Image.new("RGB", (40, 30)).save(tmp_path / "in/IMG_0.png")
    with pytest.raises(SkinsegError, match="several files for 1 image"):
        predict(ckpt, tmp_path)


@pytest.mark.slow
def test_the_challenges_scorer_takes_the_masks_and_gives_the_scores_of_evaluate(
    ckpt: Path, tmp_path: Path, ask_scorer: AskScorer
) -> None:
    data = ckpt.parents[2] / "ham10000"
    (tmp_path / "in").mkdir()
    for path in data.glob("*/*.jpg"):
        shutil.copy(path, tmp_path / "in")
    predict(ckpt, tmp_path)
    truth = data / "HAM10000_segmentations_lesion_tschandl"
    answers = ask_scorer(tmp_path / "answers.json", "--folders", truth, tmp_path / "out")
    what = [
        f"predictions={tmp_path / 'out'}",
        f"truth={truth}",
        f"run_dir={tmp_path / 'scores'}",
        "workers=0",
    ]
    evaluate(compose(what, "evaluate"))
    scores = pd.read_csv(tmp_path / "scores/scores.csv").set_index("image_id")
    assert set(scores.index) == answers["images"].keys()
    assert len(scores) == 24
    for image_id, answer in answers["images"].items():
        for name, score in answer["scores"].items():
            assert scores.loc[image_id, name] == pytest.approx(score, rel=0, abs=1e-12)
    assert scores["dice"].between(0.01, 0.99).any()

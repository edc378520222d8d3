"""Decoded images: the same pixels, whoever made them and whatever happened meanwhile."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import make_ham
from PIL import Image

from skinseg.data import cache, inputs, inspection
from skinseg.data.cache import mapped_pixels, pixels_in_memory
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.inputs import InputFiles, input_files, warn_of_empty_masks
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.splits.make import make_split
from skinseg.data.transforms.augment import compose
from skinseg.errors import SkinsegError

SIZE = (24, 30)
ROW_BYTES = 24 * 30 * 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_ham(tmp_path / "ham10000", 20)


def module(root: Path, mode: str, **options: Any) -> LesionDataModule:
    options = {"num_workers": 0, "batch_size": 6, "cache_dir": str(root.parent / "cache"), **options}
    data = LesionDataModule(
        reader=read_ham10000, split=make_split, root=str(root), image_size=SIZE, cache=mode, **options
    )
    data.prepare_data()
    data.setup("fit")
    return data


def files_of(root: Path) -> list[InputFiles]:
    data = LesionDataModule(reader=read_ham10000, root=str(root), image_size=SIZE)
    return input_files(data.catalog.table)


def mapped(files: list[InputFiles], folder: Path, **options: Any) -> cache.Pixels:
    return mapped_pixels(files, SIZE, folder=folder, **{"name": "ham", "limit_gb": 1, **options})


def is_right(pixels: cache.Pixels, files: list[InputFiles]) -> bool:
    rows = pixels.rows_of([file.image_id for file in files])
    return all(
        (made == read).all()
        for row, file in zip(rows, files, strict=True)
        for made, read in zip(pixels[row], file.read(SIZE), strict=False)
    )


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that gets the name of each image that is decoded."""
    decoded: list[str] = []
    original = inputs.read_image

    def read(path: str, *rest: Any) -> Any:
        decoded.append(Path(path).stem)
        return original(path, *rest)

    monkeypatch.setattr(inputs, "read_image", read)
    return decoded


@pytest.mark.parametrize("mode", ["ram", "memmap"])
def test_lesions_that_are_lost_at_the_networks_size_are_counted_once(
    root: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_empty_masks.cache_clear()
    module(root, mode)
    assert not caplog.records
    file = files_of(root)[0]
    mask = np.zeros((320, 400), np.uint8)
    mask[:3, :3] = 255
    Image.fromarray(mask).save(file.mask)
    for _ in range(2):
        module(root, mode)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "1 of the 40 masks holds no lesion at data.image_size=[24,30]: it is too small for that size, or "
        "there is none. skinseg.audit names them."
    ]


@pytest.mark.parametrize("subset", ["train", "val", "test"])
@pytest.mark.parametrize("augmented", [False, True])
def test_batches_are_the_same_with_every_cache(root: Path, subset: str, augmented: bool) -> None:
    batches: dict[str, list[dict[str, Any]]] = {}
    for mode in ("none", "ram", "memmap"):
        data = module(root, mode)
        if augmented:
            data.augment = compose({"affine": A.Affine(rotate=(-90, 90), p=1)})
        loader = getattr(data, f"{subset}_dataloader")()
        loader.sampler.set_epoch(3)
        batches[mode] = list(loader)
    assert sum(len(batch["index"]) for batch in batches["none"]) >= 4
    for mode in ("ram", "memmap"):
        for plain, cached in zip(batches["none"], batches[mode], strict=True):
            assert plain.keys() == cached.keys()
            for key in ("image", "mask", "index"):
                assert plain[key].dtype == cached[key].dtype
                assert torch.equal(plain[key], cached[key])
            assert plain["image_id"] == cached["image_id"]
            assert all(map(torch.equal, plain.get("truth", []), cached.get("truth", [])))


def test_nothing_is_decoded_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counting(monkeypatch)
    data = module(root, "memmap")
    assert len(decoded) == len(data.catalog) == 40
    list(data.train_dataloader())
    list(data.val_dataloader())
    module(root, "memmap", batch_size=3, seed=7)
    assert len(decoded) == 40, "another run, with another seed, shares it"


def test_other_sizes_and_files_have_caches_of_their_own(root: Path, tmp_path: Path) -> None:
    files = files_of(root)
    folders = {mapped(files, tmp_path / "c").folder, mapped(files[1:], tmp_path / "c").folder}
    folders.add(mapped_pixels(files, (12, 15), folder=tmp_path / "c", name="ham", limit_gb=1).folder)
    assert len(folders) == 3
    assert all(re.fullmatch(r"ham_\d+x\d+_[0-9a-f]{12}", folder.name) for folder in folders if folder)


@pytest.mark.parametrize("check", ["stat", "content"])
def test_a_changed_image_is_noticed(root: Path, tmp_path: Path, check: str) -> None:
    files = files_of(root)
    before = mapped(files, tmp_path / "c", check=check)
    path = Path(files[0].image)
    stamp = path.stat()
    Image.new("RGB", (40, 32), (1, 2, 3)).save(path)
    if check == "content":  # by whoever changed it, the time was set back
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = mapped(files, tmp_path / "c", check=check)
    assert after.folder != before.folder
    assert is_right(after, files)
    assert not is_right(before, files)


def test_content_alone_names_a_cache_that_was_moved_along(root: Path, tmp_path: Path) -> None:
    first = mapped(files_of(root), tmp_path / "c", check="content")
    root.rename(tmp_path / "elsewhere")
    assert mapped(files_of(tmp_path / "elsewhere"), tmp_path / "c", check="content").folder == first.folder


def test_a_process_gets_the_place_and_not_the_pixels(root: Path, tmp_path: Path) -> None:
    files = files_of(root)
    pixels = mapped(files, tmp_path / "c")
    assert pixels.images.numel() > 0
    sent = pickle.dumps(pixels)
    assert len(sent) < ROW_BYTES * 5
    assert is_right(pickle.loads(sent), files)


def test_a_transform_cannot_change_the_cache(root: Path, tmp_path: Path) -> None:
    files = files_of(root)
    pixels = mapped(files, tmp_path / "c")
    image, mask = pixels[0]
    image[:], mask[:] = 0, 1
    images, _ = pixels.take(np.array([0, 1]))
    images[:] = 0
    assert is_right(pixels, files)
    assert is_right(mapped(files, tmp_path / "c"), files)


# Several processes, kills, full disks


def build_slowly(root: Path, folder: Path, log: Path) -> None:
    original = InputFiles.read

    def read(self: InputFiles, *arguments: Any) -> Any:
        time.sleep(0.02)
        with log.open("a") as file:
            file.write(self.image_id + "\n")
        return original(self, *arguments)

    InputFiles.read = read  # type: ignore[method-assign]
    mapped(files_of(root), folder)


def start(target: Callable[..., None], *arguments: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def test_two_processes_make_it_once(root: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "c", tmp_path / "log"
    processes = [start(build_slowly, root, folder, log) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(lines(log)) == len(set(lines(log))) == 40
    assert is_right(mapped(files_of(root), folder), files_of(root))


def test_a_killed_process_is_gone_on_with(root: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "c", tmp_path / "log"
    process = start(build_slowly, root, folder, log)
    while len(lines(log)) < 10:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    begun = len(lines(log))
    assert begun < 40
    again = tmp_path / "again"
    start(build_slowly, root, folder, again).join(60)
    # What was in the middle of it is made anew, in as many threads as there are cores.
    assert 40 - begun <= len(lines(again)) <= 40 - begun + (os.cpu_count() or 1)
    assert is_right(mapped(files_of(root), folder), files_of(root))


@pytest.mark.parametrize("what", ["cut short", "overwritten", "row lost"])
def test_a_damaged_cache_is_mended(
    root: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(root)
    folder = mapped(files, tmp_path / "c").folder
    assert folder is not None
    path = folder / "images.u8"
    content = bytearray(path.read_bytes())
    if what == "cut short":
        del content[-5000:]
    elif what == "overwritten":
        content[: 24 * 30 * 3] = bytes(24 * 30 * 3)
    path.write_bytes(content)
    if what == "row lost":
        (folder / "rows.crc32").write_bytes(bytes(4) + (folder / "rows.crc32").read_bytes()[4:])
    decoded = counting(monkeypatch)
    assert is_right(mapped(files, tmp_path / "c"), files) is True
    mended = len(decoded) - 40  # is_right decodes all of them
    assert mended == {"cut short": 3, "overwritten": 1, "row lost": 1}[what]


def test_a_full_disk_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    original = os.pwrite

    def pwrite(handle: int, data: Any, offset: int) -> int:
        nonlocal written
        if (written := written + len(data)) > 5 * ROW_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(SkinsegError, match=r"disk is full; .*data\.cache=none"):
        mapped(files_of(root), tmp_path / "c")
    assert not [path for path in (tmp_path / "c").iterdir() if not path.name.startswith(".")]


def test_a_folder_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SkinsegError, match=r"cache_dir=.*file/c cannot be written: .*data\.cache=none"):
        mapped(files_of(root), tmp_path / "file/c")


def test_a_whole_cache_is_read_where_nothing_can_be_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(root)
    mapped(files, tmp_path / "c")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "pwrite", refuse)
    assert is_right(mapped(files, tmp_path / "c"), files)
    with pytest.raises(SkinsegError, match="Permission denied"):
        mapped(files[1:], tmp_path / "c")


def test_more_than_the_limit_is_refused_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    files = files_of(root)
    limit = 39 * ROW_BYTES / 1e9
    said = r"40 images of 30x24 take .*cache_limit_gb=.*Raise the limit"
    with pytest.raises(SkinsegError, match=said):
        mapped(files, tmp_path / "c", limit_gb=limit)
    with pytest.raises(SkinsegError, match=said):
        pixels_in_memory(files, SIZE, limit_gb=limit)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("mode", ["memmap", "ram"])
def test_all_files_that_cannot_be_decoded_are_named(root: Path, tmp_path: Path, mode: str) -> None:
    files = files_of(root)
    for file in files[:2]:
        Path(file.image).write_bytes(b"no image")
    make = {
        "memmap": lambda: mapped(files, tmp_path / "c"),
        "ram": lambda: pixels_in_memory(files, SIZE, limit_gb=1),
    }[mode]
    with pytest.raises(SkinsegError, match=r"2 images cannot be decoded") as error:
        make()
    assert all(file.image_id in str(error.value) for file in files[:2])


def test_an_image_that_is_gone_is_named(root: Path, tmp_path: Path) -> None:
    files = files_of(root)
    Path(files[3].image).unlink()
    with pytest.raises(SkinsegError, match=f"{files[3].image_id}.jpg: No such file"):
        mapped(files, tmp_path / "c")


def test_a_cache_of_another_version_is_left_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(root)
    old = mapped(files, tmp_path / "c")
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    new = mapped(files, tmp_path / "c")
    assert new.folder != old.folder
    assert is_right(old, files)


def test_only_overfitted_images_are_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counting(monkeypatch)
    module(root, "ram", overfit=3)
    assert len(decoded) == 3


def decodings(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Returns which images a run decodes before it starts."""
    decoded: list[str] = []
    original = inspection.read_photograph

    def read(path: Path, **rest: Any) -> Any:
        decoded.append(path.stem)
        return original(path, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(inspection, "read_photograph", read)
        module_of = {"num_workers": 0, "cache_dir": str(root.parent / "cache"), "cache": "memmap", **options}
        data = LesionDataModule(reader=read_ham10000, root=str(root), image_size=SIZE, **module_of)
        assert set(data.catalog.table["width"]) <= {40, 50}
    return decoded


def test_images_that_passed_are_looked_at_again_only_when_they_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(decodings(root, monkeypatch)) == 40
    assert decodings(root, monkeypatch) == []
    changed = sorted(root.rglob("*.jpg"))[5]
    Image.new("RGB", (50, 40)).save(changed)
    assert decodings(root, monkeypatch) == [changed.stem]
    mask = next(root.rglob(f"{changed.stem}_segmentation.png"))
    Image.new("L", (40, 32)).save(mask)
    assert decodings(root, monkeypatch) == [changed.stem]
    assert len(decodings(root, monkeypatch, cache="none")) == 40
    (passed,) = (root.parent / "cache").glob("passed_*.json")
    passed.write_text("{")
    assert len(decodings(root, monkeypatch)) == 40, "a broken file is as good as none"


def test_an_image_with_a_problem_never_passes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = sorted(root.rglob("*.jpg"))[5]
    changed.write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(SkinsegError, match=f"{changed.stem}.jpg: not an image"):
            decodings(root, monkeypatch)
        assert changed.stem in decodings(root, monkeypatch, on_unreadable="drop")


def test_a_file_that_changes_while_it_is_looked_at_has_not_passed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = sorted(root.rglob("*.jpg"))[5]
    original = inspection.read_mask

    def read(path: Path, *rest: Any) -> Any:
        if path.stem.startswith(victim.stem):  # its image was decoded before
            victim.write_bytes(victim.read_bytes()[:400])
        return original(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(inspection, "read_mask", read)
        decodings(root, monkeypatch)
    with pytest.raises(SkinsegError, match=victim.stem):
        decodings(root, monkeypatch)


def test_no_folder_by_an_empty_name(root: Path) -> None:
    with pytest.raises(SkinsegError, match="cache_dir is empty"):
        module(root, "memmap", cache_dir="")

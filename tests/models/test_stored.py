"""Why a file is not read as a checkpoint or as weights: without advice to load it unsafely."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from skinseg.errors import SkinsegError
from skinseg.models.encoder_weights import _read_weights
from skinseg.models.stored import read_stored
from skinseg.run.checkpoint import read_checkpoint


def saved(content: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photographs/a.txt", "x")
    return file.getvalue()


TENSORS = saved({"a": torch.zeros(1000)})
FILES = {
    "empty": (b"", "it is empty"),
    "text": (b"epoch 3, the best so far\n", "it is a file of another kind"),
    "picture": (b"\xff\xd8\xff\xe0" + bytes(100), "it is a file of another kind"),
    "objects": (saved({"a": Path()}), "something else than tensors and plain values"),
    "old objects": (pickle.dumps({"a": Path()}), "something else than tensors and plain values"),
    "old cut": (saved({"a": torch.zeros(9)}, _use_new_zipfile_serialization=False)[:200], "it "),
    "cut short": (TENSORS[: len(TENSORS) // 2], "it is cut short"),
    "another archive": (zipped(), "it is a zip archive that PyTorch did not write"),
    "page": (b"<!DOCTYPE html><html>404</html>", "it is a file of another kind"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    content, reason = FILES[name]
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    for read in (lambda: read_checkpoint(path, key="ckpt"), lambda: _read_weights(path)):
        with pytest.raises(SkinsegError) as refused:
            read()
        said = str(refused.value)
        assert reason in said
        assert f"{path} ({len(content)} bytes)" in said
        for advice in ("weights_only", "torch.load", "trust the source", "arbitrary"):
            assert advice not in said


def test_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    content = bytearray(TENSORS)
    place = content.index(b"data.pkl") + 200
    content[place - 100 : place] = bytes(100)
    path.write_bytes(bytes(content))
    with pytest.raises(SkinsegError, match=r"is not a whole checkpoint: it "):
        read_checkpoint(path, key="ckpt")


def test_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(TENSORS)
    assert read_stored(tmp_path / "a.pt")["a"].shape == (1000,)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors"])
def test_what_is_no_file_of_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(SkinsegError, match=r"cannot be read as weights: no whole file of safetensors"):
        _read_weights(path)

"""Small data sets on disk in their real layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from conftest import write_image

ISIC9 = "Skin cancer ISIC The International Skin Imaging Collaboration"


def write_isic9(root: Path, files: dict[str, list[str]]) -> Path:
    """Writes class folders such as "Train/nevus" with the images of the given ids."""
    for folder, ids in files.items():
        (root / ISIC9 / folder).mkdir(parents=True, exist_ok=True)
        for image_id in ids:
            write_image(root / ISIC9 / folder / f"{image_id}.jpg")
    return root


def write_ham_metadata(path: Path, lesions: dict[str, str], dx: str = "nv") -> Path:
    """Writes HAM10000's metadata: image id to lesion id."""
    rows = [(lesion, image, dx, "histo", 40, "male", "back") for image, lesion in lesions.items()]
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


MASK_FOLDERS = {
    "ham10000": "HAM10000_segmentations_lesion_tschandl",
    "isic2018": "ISIC2018_Task1_Training_GroundTruth",
    "isic2017": "ISIC-2017_Training_Part1_GroundTruth",
    "isic2016": "ISBI2016_ISIC_Part1_Training_GroundTruth",
    "imaplusplus": "segs",
}


def mask_path(root: Path, source: str, image_id: str) -> Path:
    """Where a source keeps the mask of an image."""
    ending = {"isic2016": "_Segmentation.png", "imaplusplus": "_A03_T1_S1_5ab.png"}
    return root / MASK_FOLDERS[source] / f"{image_id}{ending.get(source, '_segmentation.png')}"


def _fields(text: str, change: Callable[[str], str]) -> str:
    return "\n".join(",".join(map(change, line.split(","))) for line in text.split("\n"))


def _head(text: str, change: Callable[[str], str]) -> str:
    head, rest = text.split("\n", 1)
    return f"{change(head)}\n{rest}"


DIALECTS: dict[str, Callable[[str], bytes]] = {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "decimal commas": lambda text: text.replace(",", ";").replace(".0", ",0").encode(),
    "UTF-8 with its mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Excel's Unicode text": lambda text: text.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "lines of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "lines of old Macs": lambda text: text.replace("\n", "\r").encode(),
    "the separator in the first line": lambda text: f"sep=;\r\n{text.replace(',', ';')}".encode(),
    "capitals in the header": lambda text: _head(text, str.upper).encode(),
    "blanks in the header": lambda text: _head(
        text, lambda head: head.replace("_", " ").replace(",", " , ")
    ).encode(),
    "blanks around values": lambda text: _fields(text, lambda value: f" {value} " if value else "").encode(),
    "blanks that do not break": lambda text: _fields(text, lambda v: f"{v}\xa0" if v else "").encode(),
    "marks of no width": lambda text: _fields(text, lambda v: f"\u200b{v}" if v else "").encode(),
    "quotes": lambda text: _fields(text, lambda value: f'"{value}"' if value else "").encode(),
    "empty columns and rows": lambda text: (text.replace("\n", ",,\n") + ",,,\n\n").encode(),
    "the index of pandas": lambda text: "\n".join(
        f"{number or ''},{line}" for number, line in enumerate(text.strip().split("\n"))
    ).encode(),
}
"""What programs and people make of a table of commas."""

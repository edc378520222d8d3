"""Fetch a data set with its masks from its publishers.

python -m skinseg.download data=isic2018 data.root=<folder>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from skinseg.config.command import Command
from skinseg.config.schema import Node


@dataclass
class DownloadConfig:
    """Every key at the root of the configuration.

    Attributes:
        data: The data set; it goes to a folder of its name below `data.root`.
        parts: "images", "masks" or both. Masks alone are small, and enough for data=isic9.
        keep_archives: Keep the zips that were unpacked.
        mirror: Another host to ask in place of the publishers', e.g. http://mirror.example.org. null: none.
    """

    data: Node
    parts: list[Literal["images", "masks"]]
    keep_archives: bool
    mirror: str | None


_COMMAND = Command("download", DownloadConfig, "skinseg.recipes.download", holds=lambda _: "not")
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())

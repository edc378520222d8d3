"""What a user gives beside a data set, and what is said of it: masks elsewhere, pairs of one lesion."""

from __future__ import annotations

import logging
from pathlib import Path

from skinseg.counting import counted
from skinseg.data.catalog import Catalog
from skinseg.data.tables import image_ids, matching, read_table, report_match
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)


def report_masks(catalog: Catalog, folder: Path, *, own: bool) -> None:
    """Says how many images have their mask from a folder of the user's; none is a mistake.

    Args:
        catalog: The images.
        folder: The folder.
        own: Whether there are no masks but these, which may have been written anew elsewhere.

    Raises:
        SkinsegError: No mask is of one of the images.
    """
    used = catalog.table["mask"].map(lambda path: own or folder in Path(path).parents, na_action="ignore")
    count, images = int(used.eq(True).sum()), len(catalog)
    if not count:
        raise SkinsegError(
            f"data.masks={folder}: none of its masks is of one of the {counted(images, 'image')}; expected "
            f"such as {catalog.table['image_id'].iloc[0]}_segmentation.png."
        )
    log.info("data.masks=%s: masks of %d of the %s.", folder, count, counted(images, "image"))


def read_pairs(path: Path, catalog: Catalog) -> list[tuple[str, str]]:
    """Reads pairs of images of one lesion, those of which both are in the catalog.

    Args:
        path: CSV with columns a and b.
        catalog: The images.

    Raises:
        SkinsegError: The table cannot be read, or no pair is of these images.
    """
    table = read_table(path, ["a", "b"], key="data.same_lesion")
    images = catalog.table["image_id"]
    a, b = (matching(image_ids(table[column]), images) for column in ("a", "b"))
    both = a.notna() & b.notna()
    said = table["a"].fillna("(blank)") + "," + table["b"].fillna("(blank)")
    report_match(both, said, images, f"data.same_lesion={path}")
    return list(zip(a[both], b[both], strict=True))

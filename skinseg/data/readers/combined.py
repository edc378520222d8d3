"""Several data sets as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from skinseg.data.catalog import Catalog, combine
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.errors import SkinsegError


def read_combined(
    root: Path,
    problems: Problems,
    *,
    readers: Mapping[str, Callable[..., Catalog]],
    mask_folder: Path | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads several data sets into one catalog: one row per image id, lesions grouped across all of them.

    Args:
        root: The folder that holds them all.
        problems: What is to happen where things do not fit.
        readers: By name, in order of precedence; such as `read_ham10000`.
        mask_folder: Handed to all of them. See `masks.find_masks`.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog; `notes["in_several"]` lists the ids that more than one data set holds.

    Raises:
        SkinsegError: What a reader raises, or fewer than two readers.
    """
    if len(readers) < 2:
        raise SkinsegError(f"data.reader.readers: found {list(readers)}, expected two data sets or more.")
    catalogs = []
    given = {} if mask_folder is None else {"mask_folder": mask_folder}
    for reader in readers.values():
        # What is wrong with an image in one data set says nothing of its copy in another.
        own = problems.fresh()
        catalogs.append(reader(root, own, verify=verify, **given))
        problems.absorb(own)
    return combine(catalogs)

"""Photographs and masks of one's own, matched by their names, with a table of what is known of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from skinseg.counting import counted
from skinseg.data import kinds
from skinseg.data.catalog import ANNOTATION_COLUMNS, Catalog
from skinseg.data.files import image_id_of, walk
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.data.readers.assemble import assemble
from skinseg.data.readers.converted import LesionValue, converted
from skinseg.data.readers.described import COLUMNS, OTHER_FORMS, own_rows, read_described, refuse_twice
from skinseg.data.readers.manifest import read_manifest
from skinseg.data.readers.masks import OWN
from skinseg.data.tables import image_ids, matching, report_match, some
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)

GroupBy = Literal["parent"]

_MASK = re.compile(r"(?P<id>.+)[-_](segmentation|seg|mask|lesion|label|gt)", re.IGNORECASE)
"""How a mask's name without its ending differs from its photograph's, where it does."""


def read_own(
    root: Path,
    problems: Problems,
    *,
    mask_folder: Path | None = None,
    mask_name: str | None = None,
    lesion_value: LesionValue | None = None,
    mask_threshold: int | None = None,
    cache_dir: str = "~/.cache/skinseg",
    metadata: str | None = None,
    columns: Mapping[str, str] | None = None,
    group_by: GroupBy | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads a folder of photographs and one of masks, or a manifest; see `read_manifest`.

    An image's id is its file's name without the ending; where two files in different folders have one name,
    the ids are their paths below `root`, with two underscores for each slash. A mask has the name of its
    photograph, or that and one of _mask, _segmentation, _seg, _lesion, _label or _gt in any case and also
    with a hyphen; where names are there twice it lies at the same place below its folder. Masks may lie
    among the photographs, if their names tell them apart.

    Args:
        root: The folder of the photographs, which may hold further ones; or a manifest, with which `columns`
            and what is said of masks of another form go.
        problems: What is to happen where things do not fit.
        mask_folder: The folder of the masks. None: there are none.
        mask_name: How masks are called without their ending, in place of the names above, such as
            "{id}-outline". None: as above.
        lesion_value: What the pixels of the lesion hold; see `converted`. None: masks are of 0 and 255.
        mask_threshold: From which grey value on a pixel is lesion; see `converted`.
        cache_dir: Where masks of another form are written anew.
        metadata: CSV with a row per image. None: there is none, and each image is a lesion of its own unless
            `group_by` says otherwise.
        columns: What the columns of `metadata` are called, by the keys of `COLUMNS`; those that are not here
            may have one of their usual names.
        group_by: "parent": the images of one folder show one lesion (or patient). None: `metadata` says.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog; `group_source` is "metadata", "folder", or "image" where nothing is known of the lesion.

    Raises:
        SkinsegError: There are no photographs, several masks of one, no mask that fits any, a table that
            fits none, or a problem whose policy is "error".
    """
    root = Path(root).expanduser()

    def rewritten(masks: pd.DataFrame) -> pd.DataFrame:
        if lesion_value is None and mask_threshold is None:
            return masks
        place = Path(cache_dir).expanduser() / "masks"
        return converted(masks, place, problems, lesion_value=lesion_value, threshold=mask_threshold)

    if root.is_file() and root.suffix.lower() in (".csv", ".tsv", ".txt"):
        given = {"masks": mask_folder, "mask_name": mask_name, "metadata": metadata, "group_by": group_by}
        if said := [f"data.{key}={value}" for key, value in given.items() if value is not None]:
            raise SkinsegError(
                f"data.images={root} is a manifest, which says this itself: leave out {said[0]}."
            )
        return read_manifest(root, problems, columns or {}, rewritten, verify=verify)
    photographs, inside = _photographs(root, mask_folder, mask_name)
    names = _ids(photographs)
    ids = pd.Series(sorted(names.values()), dtype=object)
    path_of = {names[key]: path for key, path in photographs.items()}
    folder_of = {names[key]: str(Path(key).parent) for key in photographs}
    masks = pd.DataFrame(columns=list(ANNOTATION_COLUMNS), dtype=object)
    where = "and data.masks names no folder"
    if mask_folder is not None:
        masks = rewritten(_masks(mask_folder.expanduser(), inside, names, mask_name))
        where = f"in {mask_folder}"
    known = _metadata(metadata, columns or {}, ids, problems)
    if group_by == "parent":
        if metadata is not None and known["lesion"].notna().any():
            raise SkinsegError(
                f"data.group_by=parent and data.metadata={metadata} both say which images show one lesion; "
                "leave one out, or name another column (data.columns.lesion=...)."
            )
        if len(set(folder_of.values())) == 1:
            raise SkinsegError(
                f"data.group_by=parent: all {counted(len(ids), 'photograph')} lie in "
                f"{path_of[ids[0]].parent}; expected a folder for each lesion or patient below data.images."
            )
        known["lesion"] = ids.map(folder_of).to_numpy()
    source = "folder" if group_by == "parent" else "metadata"
    return assemble(
        own_rows(ids, ids.map(path_of), known, source),
        masks,
        problems,
        verify=verify,
        missing_mask=f"has no mask {where}",
        advice={"missing_mask": "Masks: data.masks=<folder>, named as the photographs or with _mask behind."}
        | OTHER_FORMS,
    )


def _photographs(
    root: Path, mask_folder: Path | None, mask_name: str | None
) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Finds the pictures below a folder by their path in it, without ending; masks among them are apart.

    Returns:
        Photographs, and the pictures that are masks by place and name, each by its key; see `_key`.
    """
    if not root.is_dir():
        what = "is a file" if root.is_file() else "is not there"
        raise SkinsegError(
            f"data.images={root} {what}; expected a folder of photographs or a manifest (CSV)."
        )
    if mask_folder is not None and not mask_folder.expanduser().is_dir():
        what = "is a file" if mask_folder.expanduser().is_file() else "is not there"
        raise SkinsegError(f"data.masks={mask_folder} {what}; expected a folder of masks.")
    shared = mask_folder is not None and mask_folder.expanduser().resolve() == root.resolve()
    masks = None if mask_folder is None or shared else mask_folder.expanduser().resolve()
    found: dict[str, list[Path]] = {}
    unread: list[Path] = []
    for path in _files(root):
        if masks is not None and path.resolve().is_relative_to(masks):
            continue
        if path.suffix.lower() in kinds.endings():
            found.setdefault(_key(path, root), []).append(path)
        elif kinds.why_not_read(path) is not None:
            unread.append(path)
    if unread:
        files = counted(len(unread), "file is", "files are")
        log.warning("%s not read, e.g. %s: %s.", files, unread[0], kinds.why_not_read(unread[0]))
    if not found:
        raise SkinsegError(f"data.images={root} holds no photograph that can be read, in it or below.")
    inside: dict[str, list[Path]] = {}
    if shared:
        pattern = _pattern(mask_name)
        stems = {key.casefold() for key in found}
        for key in list(found):
            match = pattern.fullmatch(Path(key).name)
            if match and str(Path(key).with_name(match["id"])).casefold() in stems:
                inside[key] = found.pop(key)
        if not inside:
            raise SkinsegError(
                f"data.images and data.masks are both {root}, where no file is called like another one with "
                "_mask behind; name two folders, or say what the masks are called: "
                "data.mask_name='{id}-outline'."
            )
    several = {key: paths for key, paths in found.items() if len(paths) > 1}
    if several:
        raise SkinsegError(
            _listed(
                f"{counted(len(several), 'photograph is', 'photographs are')} there as several files",
                (" and ".join(map(str, paths)) for paths in several.values()),
                "keep one of each",
            )
        )
    return {key: paths[0] for key, paths in found.items()}, inside


def _ids(photographs: Mapping[str, Path]) -> dict[str, str]:
    """Returns the id of each photograph by its key."""
    stems = {key: image_id_of(Path(key).name) for key in photographs}
    if len(set(stems.values())) == len(stems):
        return stems
    return {key: image_id_of("__".join(Path(key).parts)) for key in photographs}


def _masks(
    folder: Path, inside: Mapping[str, list[Path]], names: Mapping[str, str], mask_name: str | None
) -> pd.DataFrame:
    """Finds the mask of each photograph.

    Args:
        folder: The folder of the masks.
        inside: The masks where it is that of the photographs, too.
        names: The photographs' ids by key.
        mask_name: As in `read_own`.
    """
    found = dict(inside)
    if not inside:
        for path in _files(folder):
            if path.suffix.lower() in kinds.endings():
                found.setdefault(_key(path, folder), []).append(path)
    if not found:
        raise SkinsegError(f"data.masks={folder} holds no picture, in it or below.")
    by_path = {key.casefold(): image_id for key, image_id in names.items()}
    by_name: dict[str, list[str]] = {}
    for key, image_id in names.items():
        by_name.setdefault(Path(key).name.casefold(), []).append(image_id)
    pattern = _pattern(mask_name)

    def image_of(key: str) -> str | None:
        stem = Path(key).name
        stems = [] if mask_name is not None else [stem]
        if match := pattern.fullmatch(stem):
            stems.append(match["id"])
        for name in stems:
            there = by_path.get(str(Path(key).with_name(name)).casefold())
            alike = by_name.get(name.casefold(), [])
            if there is not None or len(alike) == 1:
                return there or alike[0]
        return None

    of_image: dict[str, list[Path]] = {}
    others: list[Path] = []
    for key, paths in sorted(found.items()):
        if (of := image_of(key)) is None:
            others += paths
        else:
            of_image.setdefault(of, []).extend(paths)
    if not of_image:
        raise SkinsegError(
            f"data.masks={folder}: none of its {counted(len(others), 'picture')} is called like one of the "
            f"{counted(len(names), 'photograph')}. Expected such as {min(names)}_mask.png, found such as "
            f"{others[0].name}; say what they are called (data.mask_name='{{id}}-outline')."
        )
    several = {image_id: paths for image_id, paths in of_image.items() if len(paths) > 1}
    if several:
        raise SkinsegError(
            _listed(
                f"data.masks={folder}: {counted(len(several), 'photograph has', 'photographs have')} several "
                "masks",
                (f"{image_id}: {' and '.join(map(str, paths))}" for image_id, paths in several.items()),
                "keep one of each, or say what the masks are called (data.mask_name='{id}-outline')",
            )
        )
    if others:
        log.warning(
            "data.masks=%s: %s no photograph of that name: %s.",
            folder, counted(len(others), "picture has", "pictures have"), some(str(path) for path in others),
        )  # fmt: skip
    rows = [(image_id, str(paths[0]), OWN, None) for image_id, paths in of_image.items()]
    return pd.DataFrame(rows, columns=list(ANNOTATION_COLUMNS), dtype=object)


def _metadata(
    metadata: str | None, columns: Mapping[str, str], ids: pd.Series, problems: Problems
) -> pd.DataFrame:
    """Reads what is known of the images; a row per image of `ids`, in their order, as of `read_described`."""
    if metadata is None:
        if columns:
            raise SkinsegError(
                "data.columns names columns of a table; name the table, too: data.metadata=<CSV>."
            )
        return pd.DataFrame(index=range(len(ids)), columns=list(COLUMNS), dtype=object).astype({"age": float})
    path, where = Path(metadata).expanduser(), f"data.metadata={metadata}"
    rows = read_described(path, columns, "data.metadata")
    written = image_ids(rows["image"])
    matched = matching(written, ids)
    report_match(matched.notna(), written, ids, where, what="row")
    rows = rows.assign(image_id=matched)[matched.notna().to_numpy()]
    refuse_twice(rows["image_id"], where)
    for image_id in sorted(set(ids) - set(rows["image_id"])):
        problems.add("missing_metadata", image_id, f"{image_id} is not in {path}")
    return rows.set_index("image_id").reindex(ids).reset_index(drop=True)


def _pattern(mask_name: str | None) -> re.Pattern[str]:
    if mask_name is None:
        return _MASK
    before, found, after = mask_name.partition("{id}")
    if not found:
        raise SkinsegError(
            f"data.mask_name={mask_name}: expected a name with {{id}} in it, such as {{id}}-outline."
        )
    return re.compile(f"{re.escape(before)}(?P<id>.+){re.escape(after)}", re.IGNORECASE)


def _files(folder: Path) -> Iterable[Path]:
    return (here / name for here, names in walk(folder) for name in names)


def _key(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))


def _listed(what: str, items: Iterable[str], way_out: str) -> str:
    items = list(items)
    more = [f"  and {len(items) - 5} more"] if len(items) > 5 else []
    return "\n".join([f"{what}; {way_out}:", *(f"  {item}" for item in items[:5]), *more])

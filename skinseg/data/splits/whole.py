"""A whole data set as the test images of a training on another one."""

from __future__ import annotations

from typing import Literal

from skinseg.counting import counted
from skinseg.data.catalog import Catalog, combine
from skinseg.data.readers.masks import PSEUDO, how_to_get_masks
from skinseg.data.splits.split import Split
from skinseg.errors import SkinsegError


def whole_test_subset(
    catalog: Catalog,
    *,
    train: Catalog,
    overlap: Literal["exclude", "refuse"],
    keys: tuple[str, str] = ("test_data", "test_overlap"),
) -> Split:
    """Makes all of a catalog the test subset of a network that is trained on another one.

    Args:
        catalog: The images to be tested on; those with a mask that somebody drew take part.
        train: The catalog that is trained on, all of it: what it tests on counts as seen too.
        overlap: What happens to images and lesions that are in both: they are left out of the test subset, or
            refused.
        keys: What a configuration calls the catalog and `overlap`, for messages.

    Returns:
        A split with a test subset alone; `left_out` says what is in both.

    Raises:
        SkinsegError: There is overlap and it is refused, or nothing is left.
    """
    table = catalog.table
    scored = table[table["mask"].notna() & (table["mask_source"] != PSEUDO)]
    by_id, by_lesion = shared(train, catalog)
    same_id = scored["image_id"].isin(by_id)
    same_lesion = ~same_id & scored["image_id"].isin(by_lesion)
    of = "of the test data"
    found = (
        f"{counted(int(same_id.sum()), f'image {of} is', f'images {of} are')} in the training data, "
        f"{counted(int(same_lesion.sum()), 'more shows', 'more show')} a"
    )
    if overlap == "refuse" and (same_id | same_lesion).any():
        raise SkinsegError(
            f"{found} lesion that is: scores would be of lesions that were trained on. "
            f"{keys[1]}=exclude leaves them out."
        )
    left = scored[~(same_id | same_lesion)]
    if left.empty:
        way_out = (
            how_to_get_masks()
            if scored.empty
            else "Take other test data; evaluate takes these with overlap=keep."
        )
        raise SkinsegError(
            f"{keys[0]} leaves nothing to score: of its {counted(len(table), 'image')} "
            f"{counted(len(scored), 'has', 'have')} a mask; "
            f"{found} lesion that is. {way_out}"
        )
    left_out = {
        "in_training_data": scored["image_id"][same_id].tolist(),
        "lesion_in_training_data": scored["image_id"][same_lesion].tolist(),
    }
    return Split(left[["image_id", "group"]].assign(split="test"), left_out=left_out)


def shared(one: Catalog, other: Catalog) -> tuple[list[str], list[str]]:
    """Finds what two catalogs have in common.

    Two images are of one lesion if either catalog says so, also by way of an image that is in both.

    Args:
        one: A catalog.
        other: Another one.

    Returns:
        Ids of images of `other` that are in `one`, and ids of all images of `other` whose lesion is in `one`
        (these include the former).
    """
    here, there = set(one.table["image_id"]), set(other.table["image_id"])
    both = combine([one, other]).table
    lesions = set(both.loc[both["image_id"].isin(here), "group"])
    of_shared_lesion = both.loc[both["image_id"].isin(there) & both["group"].isin(lesions), "image_id"]
    return sorted(here & there), sorted(of_shared_lesion)

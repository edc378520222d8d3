"""What may be wrong with images, and what becomes of those that are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from skinseg.counting import counted
from skinseg.data.passed import PassedFiles
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS
from skinseg.errors import SkinsegError

Policy = Literal["error", "drop"]


MissingPolicy = Literal["error", "drop", "keep"]


PROBLEMS: Mapping[str, tuple[str, str]] = {
    "missing_image": (
        "row of the metadata has no image file",
        "rows of the metadata have no image file",
    ),
    "missing_metadata": (
        "image file is not listed in the metadata",
        "image files are not listed in the metadata",
    ),
    "missing_mask": ("image has no mask", "images have no mask"),
    "missing_lesion": ("image of HAM10000 has no lesion id", "images of HAM10000 have no lesion id"),
    "unreadable": ("file cannot be decoded", "files cannot be decoded"),
    "mask_size": ("mask is not of its image's proportions", "masks are not of their image's proportions"),
    "mask_format": (
        "mask is not an 8-bit grey or palette image of 0 and 255",
        "masks are not 8-bit grey or palette images of 0 and 255",
    ),
}
"""What may be wrong with a row, said of one and of many.

Each has a switch `data.on_<name>`, and "drop" leaves the row out.
"""


KEEPABLE = ("missing_mask", "missing_lesion")
"""Problems whose row may also stay as it is ("keep"): it is still an image, or a lesion of its own."""


class Problems:
    """Collects what does not fit, so that one message lists all of it.

    Args:
        policy: For each key of `PROBLEMS`, "error" or "drop", and for those of `KEEPABLE` also "keep".
            Missing keys mean "error".
        passed: Files that were looked at before and had no problem. None: all are looked at.
        max_megapixels: A picture of more millions of pixels counts as unreadable.

    Raises:
        SkinsegError: A policy has another value.
    """

    def __init__(
        self,
        policy: Mapping[str, MissingPolicy] | None = None,
        passed: PassedFiles | None = None,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
    ) -> None:
        self.passed = passed
        self.max_megapixels = max_megapixels
        strict: dict[str, MissingPolicy] = dict.fromkeys(PROBLEMS, "error")
        self._policy = strict | dict(policy or {})
        self._found: dict[str, dict[str, str]] = {kind: {} for kind in PROBLEMS}
        for kind, value in self._policy.items():
            allowed = get_args(MissingPolicy if kind in KEEPABLE else Policy)
            if kind not in PROBLEMS or value not in allowed:
                raise SkinsegError(f"data.on_{kind}: found {value!r}, expected one of {allowed}.")

    def add(self, kind: str, image_id: str, detail: str) -> None:
        """Notes that `image_id` has the problem `kind`; `detail` names the file and what was found first."""
        self._found[kind].setdefault(image_id, detail)

    def fresh(self) -> Problems:
        """Returns an empty collection with the same policies, for the next data set."""
        return Problems(self._policy, self.passed, self.max_megapixels)

    def absorb(self, other: Problems) -> None:
        """Adds what another collection has found."""
        for kind, found in other.found.items():
            self._found[kind].update(found)

    @property
    def found(self) -> Mapping[str, Mapping[str, str]]:
        """What was added, by kind and image id."""
        return self._found

    def settle(self, advice: Mapping[str, str] | None = None) -> dict[str, list[str]]:
        """Returns the image ids to leave out by kind of problem (kinds that were found only).

        Args:
            advice: What else can be done about a kind of problem.

        Raises:
            SkinsegError: A problem was found whose policy is "error"; all of them are listed.
        """
        refused = {k: v for k, v in self._found.items() if v and self._policy[k] == "error"}
        if refused:
            lines = ["The data do not fit together:"]
            for kind, found in refused.items():
                ways = f"data.on_{kind}=drop leaves such images out"
                if kind in KEEPABLE:
                    ways += ", =keep keeps them"
                lines.append(f"  {counted(len(found), *PROBLEMS[kind])}; {ways}:")
                shown = list(found.values())[:5]
                lines += [f"    {detail}" for detail in shown]
                if len(found) > len(shown):
                    lines.append(f"    and {len(found) - len(shown)} more")
                if advice and kind in advice:
                    lines.append(f"  {advice[kind]}")
            raise SkinsegError("\n".join(lines))
        return {
            kind: sorted(found)
            for kind, found in self._found.items()
            if found and self._policy[kind] == "drop"
        }

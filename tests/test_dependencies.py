"""The bounds of the dependencies: what they leave out, and that the pinned versions lie within."""

from __future__ import annotations

import re
import tomllib

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The last releases, or the only ones, that an advisory names.
BAD = (
    ("lightning", "2.6.2"),  # GHSA-w37p-236h-pfx3: an attacker's
    ("lightning", "2.6.3"),
    ("lightning", "2.6.5"),  # GHSA-qqmf-gpg7-g8gw: code from a checkpoint
    ("hydra-core", "1.3.5"),  # GHSA-37p2-j732-x8pj: targets by another name
    ("hydra-core", "1.3.6"),  # GHSA-mwj6-rfh8-7qf4: targets that take away the guard
    ("torch", "2.9.1"),  # CVE-2026-24747: torch.load with weights_only=True
    ("torch", "2.10.0"),  # CVE-2026-4538
    ("pillow", "12.3.0"),  # CVE-2026-112403: the JPEG decoder
    ("opencv-python-headless", "4.11.0.86"),  # CVE-2025-53644: the JPEG decoder
    ("requests", "2.32.5"),  # CVE-2026-25645
    ("filelock", "4.2.0"),  # CVE-2026-112911
    ("jinja2", "3.1.5"),  # CVE-2025-27516
    ("pytest", "9.0.2"),  # CVE-2025-71176
)


def bounds() -> dict[str, Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(one.name): one for one in found if one.name != "skinseg"}


@pytest.mark.parametrize(("name", "version"), BAD)
def test_a_bad_release_is_left_out(name: str, version: str) -> None:
    assert version not in bounds()[name].specifier


def test_what_is_pinned_is_admitted() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text)
    admitted = bounds()
    for name, version in pins:
        assert name not in admitted or version in admitted[name].specifier, name
    without = {"hydra-ray-launcher", "ray"}  # of the extra that has no place beside joblib
    assert admitted.keys() - {name for name, _ in pins} == without
    assert "://" not in text, "a pin names no place"

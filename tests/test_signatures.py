"""The table of signatures is what an import shows, and silent where it may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinseg.config import check as check_module
from skinseg.config import list_signatures, signatures
from skinseg.config.check import problems_without_import
from skinseg.config.compose import compose, plain
from skinseg.config.signatures import TABLE, NotInTableError, Unknown, listed_signature
from skinseg.config.targets import Signature, imported_signature

# Of each kind that a parameter may refuse.
VALUES = (None, True, 3, -0.5, "no", "text", [1, 2], [0.5], ["a"], [[1, 2], [3, 4]], {"a": 1}, {"a": None})


def verdicts(signature: Signature, name: str) -> list[str]:
    """What `check` says of each value."""
    if name not in signature.types:
        return []
    kind = signature.types[name]
    return [text for value in VALUES for text in check_module._type_problem(name, {name: value}, name, kind)]


def test_the_table_is_what_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = TABLE.read_text(encoding="utf-8")
    monkeypatch.setattr(signatures, "TABLE", tmp_path / "signatures.json")
    list_signatures.main()
    assert signatures.TABLE.read_text(encoding="utf-8") == written, "python -m skinseg.config.list_signatures"


@pytest.mark.parametrize("target", sorted(signatures._table()))
def test_a_listed_signature_is_the_real_one(target: str) -> None:
    listed, real = listed_signature(target), imported_signature(target)
    assert listed == real
    for name in real.named:
        if Unknown in _all_of(listed.types.get(name)):  # which an import may know more of
            assert set(verdicts(listed, name)) <= set(verdicts(real, name))
        else:
            assert verdicts(listed, name) == verdicts(real, name), name


def _all_of(kind: object) -> set[object]:
    return {kind}.union(*map(_all_of, getattr(kind, "__args__", ())))


def test_what_is_not_listed_is_left_to_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotInTableError):
        listed_signature("torch.optim.RAdam")
    monkeypatch.setattr(signatures.metadata, "version", lambda package: "0.0.1")
    signatures.version_of.cache_clear()
    try:
        with pytest.raises(NotInTableError):
            listed_signature("torch.optim.AdamW")
        config = plain(compose(["+optimizer.weight_decy=0", "run_dir=."]))
        assert problems_without_import(config) == []
    finally:
        signatures.version_of.cache_clear()


@pytest.mark.parametrize(
    ("was", "is_now", "same"),
    [
        ("    return 1\n", "    return 2\n", True),
        ('    """Does."""\n', '    """Does: more."""\n', True),
        ("    width: int,\n", "    height: int,\n", False),
        ("    depth: int = 3\n", "    depth: int = 4\n    more: int = 5\n", False),
        ("class Box(Base):\n", "class Box(Other):\n", False),
        ("@wraps(f)\n", "@other(f)\n", False),
    ],
)
def test_a_changed_declaration_is_another_version(
    was: str, is_now: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        '@wraps(f)\ndef make(\n    width: int,\n) -> int:\n    """Does."""\n    return 1\n\n\n'
        "class Box(Base):\n    depth: int = 3\n"
    )
    monkeypatch.setattr(signatures, "__file__", str(tmp_path / "config/signatures.py"))
    versions = []
    for text in (source, source.replace(was, is_now)):
        (tmp_path / "boxes.py").write_text(text)
        versions.append(signatures.version_of.__wrapped__("skinseg.boxes"))
    assert (versions[0] == versions[1]) is same

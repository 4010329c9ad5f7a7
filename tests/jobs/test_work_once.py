"""Slow work on a large payload is done once: parsing, searching names of functions, the manifest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stacked import HANDLER, HELPER, XEN, ident, stacked, write

import lpmangle.elf
import lpmangle.manifest.read
import lpmangle.manifest.write
import lpmangle.store.source
import lpmangle.xen.function_names
from lpmangle.jobs.mangle import mangle_file
from lpmangle.mangle.options import Options

WORK = {
    "parsed": (lpmangle.elf, "parse"),
    "functions looked for": (lpmangle.xen.function_names, "looked_up"),
    "encoded": (lpmangle.manifest.write, "encode"),
    "decoded": (lpmangle.store.source, "decode"),
    "decoded elsewhere": (lpmangle.manifest.read, "decode"),
}


@pytest.fixture
def payloads(tmp_path: Path) -> tuple[Path, Path]:
    """A mangled payload, and one that borrows an undefined symbol and a function to replace from it."""
    lower, upper = write(
        tmp_path,
        lower=stacked(1, XEN, new=(HELPER, HANDLER)),
        upper=stacked(2, ident(1), new=("b.c#own",), undefined=(HELPER,), replaces=(HANDLER,)),
    )
    mangle_file(str(lower), Options())
    return lower, upper


@pytest.fixture
def work(payloads: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is done from here on."""
    counts: Counter[str] = Counter()

    def counting(what: str, right: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            counts[what] += 1
            return right(*args, **options)

        return counted

    for what, (module, name) in WORK.items():
        monkeypatch.setattr(module, name, counting(what, getattr(module, name)))
    return counts


def test_against_and_embed(payloads: tuple[Path, Path], work: Counter[str]) -> None:
    lower, upper = payloads
    result = mangle_file(str(upper), Options(against=(str(lower),), embed=True))
    assert (len(result.plan.renames), len(result.plan.references), len(result.plan.functions)) == (1, 1, 1)
    assert work == {
        "parsed": 4,  # read: both payloads; proven: the one with other names of functions, the one with its manifest
        "functions looked for": 2,  # in what was read, in what was made of it
        "encoded": 1,
        "decoded": 1,  # the lower one's
    }


def test_against_a_manifest(payloads: tuple[Path, Path], work: Counter[str]) -> None:
    lower, upper = payloads
    mangle_file(str(upper), Options(against=(f"{lower}.manifest.json",)))
    assert work == {"parsed": 2, "functions looked for": 2, "encoded": 1, "decoded": 1}


def test_alone(payloads: tuple[Path, Path], work: Counter[str]) -> None:
    """The proof compares bytes: nothing is parsed for it."""
    mangle_file(str(payloads[1]), Options())
    assert work == {"parsed": 1, "encoded": 1}


def test_embedded(payloads: tuple[Path, Path], work: Counter[str]) -> None:
    mangle_file(str(payloads[1]), Options(embed=True))
    assert work == {"parsed": 2, "encoded": 1}

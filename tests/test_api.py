"""What `import lpmangle` offers: whole jobs."""

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_examples import ROOT

import lpmangle


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("617712b", "fbab204"):
        shutil.copy(ROOT / f"examples/{name}.livepatch", tmp_path)
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(lpmangle)
    assert done.attempted >= 10
    assert done.failed == 0


def test_every_job_has_a_docstring_and_an_example() -> None:
    assert lpmangle.__doc__
    for name in lpmangle.__all__:
        assert getattr(lpmangle, name).__doc__, name
        assert name in lpmangle.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lpmangle.nothing


def test_import_loads_nothing() -> None:
    code = "import sys, lpmangle; print(*[name for name in sys.modules if name.startswith('lpmangle.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []

"""The packages: `make lint` checks their order (import-linter); this checks what its contracts do not."""

import re
from collections import Counter
from graphlib import TopologicalSorter

import grimp
from commands import ROOT


def test_no_circle_of_modules() -> None:
    """No cycles, including typing-only and lazy imports; a CycleError names the modules."""
    graph = grimp.build_graph("lpmangle", cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_a_class_has_a_name_of_its_own() -> None:
    texts = [path.read_text() for path in (ROOT / "lpmangle").rglob("*.py")]
    names = Counter(name for text in texts for name in re.findall(r"^class (\w+)", text, re.MULTILINE))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_is_a_helper_of_another() -> None:
    """What several modules need is in a module of its own."""
    tests = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    imports = re.compile(r"^(?:from (?:\w+\.)*test_\w+ import|import (?:\w+\.)*test_)", re.MULTILINE)
    assert [path.name for path, text in tests.items() if imports.search(text)] == []

"""The rooms of the house: `make lint` holds their order (import-linter); here is what its contracts do not say."""

from graphlib import TopologicalSorter

import grimp


def test_no_circle_of_modules() -> None:
    """Anywhere, typing-only and lazy imports counted; a CycleError names the modules."""
    graph = grimp.build_graph("lpmangle", cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()

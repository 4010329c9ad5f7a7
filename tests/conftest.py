"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from corpus import Item, cached_corpus
from lab.summary import pytest_terminal_summary as pytest_terminal_summary

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

OURS = ("FAULTS", "GOLDEN", "LAB", "LABS", "REQUIRE_LAB", "SEED", "STACKS")

# The makes that tests call are not to be sub-makes of `make test`; Python is to buffer its output, and to keep compiled
# modules, as it does for users.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
# The user's own settings (lpmangle/cli/settings.py) do not count either, only those of the tests.
for name in [name for name in os.environ if name.startswith("LPMANGLE_") and name[9:] not in OURS]:
    del os.environ[name]

# Python ignores these, and restores them when it starts a process.
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_ignored() -> None:
    """Processes that tests start get all signals, even those that we ignore since our start (nohup, or a shell's `&`).

    A handler that does nothing has the same effect for us, and no process that we start inherits it.
    """
    for number in signal.valid_signals() - {*PYTHON_IGNORES}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.fixture(scope="session")
def corpus() -> dict[str, Item]:
    """All payloads that tests/corpus.py builds, by name."""
    return cached_corpus(Path(__file__).parent.parent / ".cache")


# --- On several cores (pytest -n; `make test`) -----------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Tests that share something slow stay together: those of a module; in the lab, those of one run of Xen."""
    from xdist.scheduler import LoadScopeScheduling  # only here: there is none without xdist

    class Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if not file.startswith("tests/lab/"):
                return file
            # test_scenario[LAB-NAME]: those of one lab share a run of Xen. All others have their own.
            return test.rpartition("-")[0] if test.startswith("test_scenario[") else nodeid

    config.option.loadscopereorder = False  # but as `pytest_collection_modifyitems` has them
    return Groups(config, log)


# The files that take longest begin early, so that no core is still busy with one when the others are done.
LONG = (
    "test_offline.py",
    "test_packaging.py",
    "test_buildsystems.py",
    "test_faults.py",
    "test_properties.py",
    "test_oracles.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The labs begin first, because they take longest; the rest runs beside them, long files first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (item.get_closest_marker("xen") is None, item.path.name not in LONG))

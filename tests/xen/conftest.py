"""The lab as fixtures: prepared once, booted once for all scenarios that pytest selected."""

from __future__ import annotations

import os

import pytest

from xen.lab import Lab, LabError
from xen.prepare import prepare
from xen.scenario import SCENARIOS, Shared

# In CI the real hypervisor must be asked: there it is a failure if it cannot be.
REQUIRED = os.environ.get("CI") == "true" or os.environ.get("LPMANGLE_REQUIRE_LAB") == "1"
MISSING = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    try:
        return prepare()
    except LabError as error:
        if REQUIRED:
            pytest.fail(f"the Xen lab is required here, but: {error}", pytrace=False)
        pytestconfig.stash[MISSING] = " ".join(str(error).split())
        pytest.skip(f"no Xen lab: {error}")


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    selected = {item.callspec.params.get("name") for item in items if hasattr(item, "callspec")}
    names = [name for name in SCENARIOS if name in selected]
    return Shared(lab, tmp_path_factory.mktemp("xen"), names)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if reason := config.stash.get(MISSING, ""):
        terminalreporter.write_line(f"NOT TESTED on a real Xen hypervisor: {reason}", yellow=True)

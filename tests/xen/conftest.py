"""The labs as fixtures: prepared once, booted once for all scenarios that pytest selected."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from xen.lab import LabError
from xen.labs import Lab, selected, thorough
from xen.packages import SourceMissing
from xen.prepare import prepare
from xen.scenario import SCENARIOS, X86_ONLY, Shared

# In CI the real hypervisor must be asked: there it is a failure if it cannot be.
REQUIRED = os.environ.get("CI") == "true" or os.environ.get("LPMANGLE_REQUIRE_LAB") == "1"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" in metafunc.fixturenames:
        try:
            labs = selected()
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        if not thorough() and metafunc.definition.get_closest_marker("one_lab"):
            labs = labs[:1]
        for mark in metafunc.definition.iter_markers("only"):
            labs = [lab for lab in labs if mark.args[0](lab)]
        metafunc.parametrize("lab", labs, ids=str, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scenarios that are none for Arm are not run there."""
    left_out = [item for item in items if _is_none_for_arm(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_none_for_arm(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    lab = item.callspec.params.get("lab")
    return isinstance(lab, Lab) and not lab.machine.x86 and item.callspec.params.get("name") in X86_ONLY


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    wanted: Lab = request.param
    try:
        return prepare(wanted)
    except LabError as error:
        # An archive keeps old sources for a limited time: nobody's fault.
        if REQUIRED and not isinstance(error, SourceMissing):
            pytest.fail(f"the lab {wanted} is required here, but: {error}", pytrace=False)
        pytest.skip(f"no lab {wanted}: {' '.join(str(error).split())}")


@pytest.fixture(scope="session")
def booted(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    params = [item.callspec.params for item in items if hasattr(item, "callspec")]
    chosen = {each.get("name") for each in params if each.get("lab") == lab}
    return Shared(lab, tmp_path_factory.mktemp(f"xen-{lab}"), [name for name in SCENARIOS if name in chosen])


@pytest.fixture
def shared(booted: Shared, record_property: Callable[[str, object], None]) -> Shared:
    booted.record = record_property
    return booted

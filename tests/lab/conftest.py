"""The labs as fixtures: prepared once, booted once for all scenarios that pytest selected."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lab.labs import Lab, selected, thorough
from lab.packages import SourceMissing
from lab.prepare import prepare
from lab.qemu import LabError
from lab.scenario import SCENARIOS, X86_ONLY, Shared

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
        if not metafunc.definition.get_closest_marker("vendors"):
            labs = [lab for lab in labs if not lab.vendor]
        for mark in metafunc.definition.iter_markers("only"):
            labs = [lab for lab in labs if mark.args[0](lab)]
        metafunc.parametrize("lab", labs, ids=str, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests whose labs are not selected, and scenarios that do not exist on Arm."""
    every = "all" in os.environ.get("LPMANGLE_LABS", "").split()
    left_out = [
        item
        for item in items
        if _has_no_lab(item) or _is_none_for_arm(item) or (item.get_closest_marker("all_labs") and not every)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _lab_of(item: pytest.Item) -> Lab | None:
    lab = item.callspec.params.get("lab") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    return lab if isinstance(lab, Lab) else None


def _has_no_lab(item: pytest.Item) -> bool:
    """For a test without any lab, pytest makes one item, which it would skip."""
    return isinstance(item, pytest.Function) and "lab" in item.fixturenames and _lab_of(item) is None


def _is_none_for_arm(item: pytest.Item) -> bool:
    lab = _lab_of(item)
    if not lab or lab.machine.x86 or not isinstance(item, pytest.Function):
        return False
    return item.callspec.params.get("name") in X86_ONLY


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    wanted: Lab = request.param
    try:
        return prepare(wanted)
    except LabError as error:
        # The archive keeps old sources only for a limited time, so this is not a failure.
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

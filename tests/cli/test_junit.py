"""check --junit: what CI systems read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import EXAMPLES, lpmangle
from hypervisor import base
from lab.editor import Editor
from signing import key, public, sign

# The part of Jenkins' junit-10.xsd that we use: attributes, required attributes, children.
SHAPE = {
    "testsuites": ({"name"}, set(), {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors"}, {"name", "tests", "failures", "errors"},
                  {"testcase", "system-out"}),
    "testcase": ({"classname", "name"}, {"classname", "name"}, {"failure", "system-out"}),
    "failure": ({"type", "message"}, set(), set()),
    "system-out": (set(), set(), set()),
}  # fmt: skip


def read(path: Path) -> ElementTree.Element:
    """The report, after checking that it is as readers expect it."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, needed, children = SHAPE[element.tag]
        assert needed <= element.attrib.keys() <= attributes
        assert {child.tag for child in element} <= children
    for suite in root:
        cases = suite.findall("testcase")
        assert [suite.get("tests"), suite.get("errors")] == [str(len(cases)), "0"]
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in (*EXAMPLES.glob("*.livepatch"), *EXAMPLES.glob("stacked/*.livepatch")):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_one_for_each_payload(folder: Path) -> None:
    payloads = ("617712b.livepatch", "fbab204.livepatch", "fbab204.livepatch")
    said = lpmangle("check", "--junit", "report.xml", *payloads, cwd=folder, code=1).stdout
    assert said == lpmangle("check", *payloads, cwd=folder, code=1).stdout
    first = (folder / "report.xml").read_bytes()
    root = read(folder / "report.xml")
    assert [case.get("name") for case in root.iter("testcase")] == [*payloads[:2], "fbab204.livepatch (2)"]
    taken, refused, _ = root.iter("testcase")
    assert taken.findtext("system-out", "").startswith(
        "accepted (not all checked), then: xen-livepatch apply 617712b\n"
        "    not checked: needs the hypervisor's build-id"
    )
    assert taken.find("failure") is None
    failure = refused.find("failure")
    assert failure is not None
    assert failure.get("type") == "duplicate-symbol"
    assert failure.get("message") == "refused: livepatch: fbab204: duplicate new symbol: x86_emulate.c#_get_fpu"
    assert all(f"\n{line}\n" in f"\n{failure.text}\n" for line in said.split("fbab204.livepatch\n")[1].splitlines()[:4])
    (rules,) = root.findall("testsuite/system-out")
    assert rules.text == said.splitlines()[-1]

    lpmangle("check", "--junit", "report.xml", *payloads, cwd=folder, code=1)
    assert (folder / "report.xml").read_bytes() == first  # no time, duration or host is in it


def test_one_for_each_group_of_equal_stacks(folder: Path) -> None:
    (folder / "fleet").write_text(
        "# bare\n\n# a\n617712b.livepatch\n\n# new\nfbab204.livepatch\n\n# b\n617712b.livepatch\n\n"
        "# a\nfbab204.livepatch\n8d4a1c7.livepatch\n"
    )
    lpmangle(
        "check", "--junit", "r.xml", "--stack", "fleet", "fbab204.livepatch", "8d4a1c7.livepatch", cwd=folder, code=1
    )
    root = read(folder / "r.xml")
    assert [suite.get("name") for suite in root] == ["fbab204.livepatch", "8d4a1c7.livepatch"]
    found = {case.get("name"): (case.find("failure") is None, case[0].text) for case in root[0].findall("testcase")}
    assert {name: good for name, (good, _) in found.items()} == {
        "bare": True, "a and 1 equal stack": False, "new": False, "a": False,
    }  # fmt: skip
    assert "stacks: a, b\nloaded: 617712b.livepatch\n" in (found["a and 1 equal stack"][1] or "")
    assert found["bare"][1] == "accepted (not all checked), then apply\nloaded: nothing"


def test_a_signature_that_is_not_valid_fails(folder: Path) -> None:
    (folder / "fleet").write_text("# bare\n")
    sign(folder / "fbab204.livepatch")
    payloads = ("617712b.livepatch", "fbab204.livepatch")
    said = lpmangle("check", "--junit", "r.xml", payloads[1], cwd=folder).stdout.splitlines()
    (case,) = read(folder / "r.xml").iter("testcase")
    assert said[-1] == f"{payloads[1]}: {case.findtext('system-out', '').splitlines()[-1]}"

    key_of = {name: ("--key", str(public(key(name)))) for name in ("one", "another")}
    lpmangle("check", "--junit", "r.xml", *key_of["one"], payloads[1], cwd=folder)
    (case,) = read(folder / "r.xml").iter("testcase")
    assert "its signature is valid" in case.findtext("system-out", "")
    lpmangle("check", "--junit", "r.xml", *key_of["another"], payloads[1], cwd=folder, code=1)
    (case,) = read(folder / "r.xml").iter("testcase")
    assert case[0].get("type") == "signature"
    assert (case[0].get("message") or "").startswith("its signature was made with another key")
    assert "\naccepted (not all checked), then" in (case[0].text or "")

    done = lpmangle(
        "check", "--junit", "r.xml", "--json", "--stack", "fleet", *key_of["another"], *payloads, cwd=folder, code=1
    )
    assert json.loads(done.stdout)["signatures"] == ["not signed", "another key"]
    found = {
        (suite.get("name"), case.get("name")): case.find("failure") is None
        for suite in read(folder / "r.xml")
        for case in suite.findall("testcase")
    }
    names = zip(payloads * 2, ("bare", "bare", "signature", "signature"), strict=True)
    assert found == dict(zip(names, (True, False, False, False), strict=True))


def test_names_that_xml_cannot_hold(tmp_path: Path) -> None:
    payload = tmp_path / 'p\x01\udc80<&"\ufffe.livepatch'
    payload.write_bytes(Editor(base()).rename("lp_data", "<b>\x1b\n&]]>").edit_symbol(15, shndx=0xFFF2).data)
    lpmangle("check", "--junit", tmp_path / "r.xml", payload.name, cwd=tmp_path, code=1)
    (case,) = read(tmp_path / "r.xml").iter("testcase")
    assert case.get("name") == 'p\\x01\\udc80<&"\\ufffe.livepatch'
    assert "Unexpected common symbol: <b>\\x1b\\n&]]>" in (case[0].get("message") or "")
    assert "Unexpected common symbol: <b>\\x1b\\n&]]>" in (case[0].text or "")


@pytest.mark.parametrize("other", ["fbab204.livepatch", "fleet"])
def test_a_report_costs_no_other_file(folder: Path, other: str) -> None:
    (folder / "fleet").write_text("617712b.livepatch\n")
    before = (folder / other).read_bytes()
    said = lpmangle("check", "--junit", other, "--stack", "fleet", "fbab204.livepatch", cwd=folder, code=4).stderr
    hint = "name another file, or remove this one"
    assert said == f"lpmangle: {other}: exists and is not a JUnit report: not replaced\n  hint: {hint}\n"
    assert (folder / other).read_bytes() == before

"""What check prints: messages of several lines as lines, a name with a newline in it as one."""

from __future__ import annotations

import pytest
from hypervisor import BUILD_ID, base, state
from lab.editor import Editor

from lpmangle.cli.check_report import print_report, report
from lpmangle.loader import Upload, Verdict, check_sequence


def checked(editor: Editor) -> tuple[list[Verdict], str]:
    """The verdicts on one payload, and the first message to xen-livepatch."""
    verdicts = check_sequence([Upload("two", bytes(editor.data))], state("4.20"))
    return verdicts, report(verdicts, state("4.20"))["payloads"][0]["message"]


def printed(verdicts: list[Verdict], capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_report(verdicts, state("4.20"))
    return capsys.readouterr().out.splitlines()


def test_a_message_of_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """livepatch.c:check_xen_buildid prints both build-ids, each on a line that begins with no-break spaces."""
    verdicts, message = checked(Editor(base()).byte(".livepatch.xen_depends", 20, 0))
    expected = [
        "livepatch: two: build-id mismatch:",
        f"\xa0 livepatch: {BUILD_ID.hex()[:8]}00{BUILD_ID.hex()[10:]}",
        f"{7 * chr(0xA0)} xen: {BUILD_ID.hex()}",
    ]
    assert message == "\n".join(expected)
    lines = printed(verdicts, capsys)
    assert lines[1].endswith(f"  {expected[0]}")
    at = lines.index(f"      {expected[0]}")
    assert [line.removeprefix("      ") for line in lines[at : at + 3]] == [
        one.replace("\xa0", " ") for one in expected
    ]


def test_a_name_with_a_newline_makes_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts, message = checked(Editor(base()).rename("lp_data", "evil\nname").edit_symbol(15, shndx=0xFFF2))
    assert message.endswith("Unexpected common symbol: evil\nname")
    lines = printed(verdicts, capsys)
    assert lines[1].endswith("Unexpected common symbol: evil\\nname")
    assert lines[2] == ""

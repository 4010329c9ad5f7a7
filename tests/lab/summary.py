"""What pytest says of the labs at its end. tests/conftest.py takes it: no other is read where several test at once."""

from __future__ import annotations

import re

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Of each lab: how many scenarios and verdicts, and how many of these are not what `check` says."""
    counts = dict[str, list[int]]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == "lab" and report.when == "call":
                    name, *numbers = value
                    counts[name] = [a + b for a, b in zip(counts.get(name, (0, 0, 0)), numbers, strict=True)]
    for name, (scenarios, verdicts, different) in counts.items():
        line = f"lab {name}: {scenarios} scenarios, {verdicts} verdicts, {different} differences"
        terminalreporter.write_line(line, red=different > 0, green=different == 0)
    skipped = "\n".join(str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    for name, reason in dict(re.findall(r"Skipped: no lab (\S+): (.*)'\)$", skipped, re.MULTILINE)).items():
        terminalreporter.write_line(f"NOT TESTED on the real hypervisor of the lab {name}: {reason}", yellow=True)

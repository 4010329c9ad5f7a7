"""The sheet: a report as one page for a change ticket, by the templates beside this file.

A page is one file without scripts or external parts. Its sentences are those of the terminal report. Every text that a
template shows is made safe to print, as there, and then escaped for HTML.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lpmangle import __version__
from lpmangle.cli.check_fleet import accepted_by, accepted_by_words, cell_parts, reasons
from lpmangle.cli.check_report import (
    errno_words,
    is_unfit,
    kinds,
    outcome,
    rules_line,
    says,
    signature_lines,
    small,
    spaced,
    summary,
)
from lpmangle.cli.output import shown
from lpmangle.errors import counted
from lpmangle.loader import CRASH, NOT_CHECKED, REFUSED, WARNING, Finding, State, Upload, Verdict
from lpmangle.loader.fleet import Cell, Group, Row, equal_hosts
from lpmangle.system.files import sha256
from lpmangle.verify.signing_key import SignatureAnswer

# Signs and colours: all is well, the answer is no, look here, not known, the hypervisor dies.
GOOD, BAD, WARN, INFO, DEAD = "good", "bad", "warn", "info", "dead"
_WORST_LAST = (GOOD, INFO, WARN, BAD, DEAD)
_TONES = {REFUSED: BAD, CRASH: DEAD, WARNING: WARN, NOT_CHECKED: INFO}
# The row of a larger group names this many hosts; a click shows all.
_MOST_NAMES = 8


def of_uploads(verdicts: list[Verdict], state: State, signatures: Sequence[str | SignatureAnswer]) -> bytes:
    """The page about uploads, one after the other."""
    payloads = [_upload(verdict, said) for verdict, said in zip(verdicts, signatures, strict=True)]
    return rendered(
        "check",
        headline=summary(verdicts) + _unfit(signatures),
        tone=worst([*(one["tone"] for one in payloads), *(BAD for said in signatures if is_unfit(said))]),
        rules=rules_line(state),
        payloads=payloads,
    )


def of_fleet(
    rows: list[Row], payloads: list[Upload], state: State, signatures: Sequence[str | SignatureAnswer]
) -> bytes:
    """The page about uploads to many hosts: which accept what, equal hosts together."""
    takers = accepted_by_words(sum(all(cell.good for cell in row.cells) for row in rows), len(rows))
    several = f"{counted(len(payloads), 'payload')}: all of them {takers}"
    return rendered(
        "fleet",
        headline=(several if len(payloads) > 1 else f"{payloads[0].path}: {takers}") + _unfit(signatures),
        tone=worst(
            [*(_cell_tone(cell) for row in rows for cell in row.cells), *(BAD for said in signatures if is_unfit(said))]
        ),
        rules=rules_line(state),
        payloads=[
            {
                "path": payload.path,
                "accepted_by": accepted_by(rows, number),
                "parts": _parts(rows, number),
                "signature": _signature(said),
            }
            for number, (payload, said) in enumerate(zip(payloads, signatures, strict=True))
        ],
        groups=[_group(group) for group in equal_hosts(rows)],
        reasons=[{"count": count, "says": said, "remedy": remedy} for (said, remedy), count in reasons(rows)],
    )


def rendered(template: str, **values: Any) -> bytes:
    """The page that the template of that name makes from the values."""
    environment = Environment(
        loader=FileSystemLoader(os.path.join(os.path.dirname(__file__), "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["sign"] = _sign
    text = environment.get_template(f"{template}.html.j2").render(version=__version__, **values)
    return f"{text}\n".encode()


def _safe(value: Any) -> Any:
    """Make texts safe to print, except those that a template or `_sign` has made."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sign(tone: str) -> Markup:
    return Markup('<svg class="sign" aria-hidden="true"><use href="#{}"/></svg>').format(tone)


def worst(tones: Iterable[str]) -> str:
    """The tone of a page about all of them."""
    return max(tones, key=_WORST_LAST.index)


def tone_of(verdict: Verdict) -> str:
    """The colour and sign of a verdict."""
    if verdict.first:
        return _TONES[verdict.first.severity]
    return BAD if not verdict.good else GOOD if verdict.complete else INFO


def _upload(verdict: Verdict, said: str | SignatureAnswer) -> dict[str, Any]:
    return {
        "path": verdict.upload.path,
        "tone": tone_of(verdict),
        "verdict": outcome(verdict),
        "errno": errno_words(verdict.first),
        "says": says(verdict),
        "build_id": verdict.build_id.hex(),
        "sha256": sha256(verdict.upload.data),
        "console": list(map(spaced, verdict.printed)),
        "kinds": finding_rows(verdict),
        "signature": _signature(said),
    }


def _signature(said: str | SignatureAnswer) -> dict[str, Any]:
    tone = INFO if isinstance(said, str) else BAD if is_unfit(said) else GOOD
    return {"tone": tone, "lines": signature_lines(said)}


def _unfit(signatures: Sequence[str | SignatureAnswer]) -> str:
    """For the headline."""
    count = sum(map(is_unfit, signatures))
    return f"; {counted(count, 'signature is', 'signatures are')} not valid" if count else ""


def finding_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """All findings, for findings.html.j2."""
    return [
        {
            "tone": _TONES[kind.findings[0].severity],
            "severity": kind.findings[0].severity,
            "errno": kind.errno,
            "meaning": kind.findings[0].meaning,
            "rule": str(kind.findings[0].rule),
            "reported": kind.reported,
            "findings": list(map(_finding, kind.findings)),
            "remedies": kind.remedies,
        }
        for kind in kinds(verdict)
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    return {"lines": list(map(spaced, finding.lines)), "small": small(finding).strip()}


def _cell_tone(cell: Cell) -> str:
    return _TONES[cell.finding.severity] if cell.finding else GOOD if cell.complete else INFO


def _parts(rows: list[Row], number: int) -> list[dict[str, Any]]:
    """How many hosts give each verdict, best first."""
    counts = Counter(_cell_tone(row.cells[number]) for row in rows)
    return [{"tone": tone, "count": counts[tone]} for tone in _WORST_LAST if counts[tone]]


def _group(group: Group) -> dict[str, Any]:
    names = [host.name for host in group.hosts]
    more = len(names) - _MOST_NAMES
    return {
        "names": ", ".join(names[:_MOST_NAMES]),
        "more": f"and {more} more" if more > 0 else "",
        "all_names": ", ".join(names),
        "count": len(names),
        "size": counted(len(names), "stack"),
        "loaded": group.hosts[0].paths,
        "cells": [_cell(cell) for cell in group.cells],
    }


def _cell(cell: Cell) -> dict[str, str]:
    verdict, more = cell_parts(cell)
    return {"tone": _cell_tone(cell), "verdict": verdict, "more": more}

"""`lpmangle build --check`: what Xen will say to what the build has made, before it is written."""

from collections.abc import Iterable

import click

from lpmangle.cli.check_report import print_findings, says
from lpmangle.cli.output import shown
from lpmangle.errors import CheckError
from lpmangle.jobs.check import put_on, state_of
from lpmangle.loader import Upload, Verdict, check_upload


class Check:
    """The hypervisor with its payloads, and the verdict about the last payload that was asked for."""

    def __init__(self, xen: str | None, loaded: Iterable[str]) -> None:
        """`xen` is a xen-syms or a symbol table, `loaded` are payloads. Raises LpmangleError."""
        self._state = state_of(xen)
        self._verdict: Verdict | None = None
        put_on(self._state, loaded)

    def approve(self, path: str, data: bytes) -> None:
        """Raise CheckError if Xen would refuse the payload; each stands on what is loaded, not on the one before."""
        self._verdict = check_upload(Upload.at(path, data), self._state)
        if not self._verdict.good:
            raise CheckError(f"check: {self._verdict.status}: {says(self._verdict)}")

    def say_taken(self, path: str) -> None:
        """One line about a payload that is approved."""
        assert self._verdict
        click.echo(f"{shown(path)}: check: {self._verdict.status}")

    def say_why_not(self) -> None:
        """All findings about one that is not."""
        assert self._verdict
        print_findings(self._verdict)

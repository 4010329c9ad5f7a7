"""`lpmangle build --check`: what Xen will answer to the payload that was built, before it is written."""

from collections.abc import Iterable
from typing import Any

import click

from lpmangle.cli.check_report import headline, print_findings, record
from lpmangle.cli.output import shown
from lpmangle.errors import CheckError
from lpmangle.jobs.check import put_on, state_of
from lpmangle.loader import Upload, Verdict, check_upload


class Check:
    """The hypervisor with its payloads, and the verdict on the current payload; None until it is asked for."""

    def __init__(self, xen: str | None, loaded: Iterable[str]) -> None:
        """`xen` is a xen-syms or a symbol table, `loaded` are payloads. Raises LpmangleError."""
        self._state = state_of(xen)
        self.verdict: Verdict | None = None
        put_on(self._state, loaded)

    def approve(self, path: str, data: bytes) -> None:
        """Raise CheckError if Xen would refuse the payload; each is put on what is loaded, not on the previous one."""
        self.verdict = check_upload(Upload.at(path, data), self._state)
        if not self.verdict.good:
            raise CheckError(f"check: {headline(self.verdict)}")

    def say(self, path: str) -> None:
        """One line about a payload that is accepted; after the error's message, all findings about one that is not."""
        if self.verdict is None:
            return
        if self.verdict.good:
            click.echo(f"{shown(path)}: check: {self.verdict.words}")
        else:
            print_findings(self.verdict)

    def record(self) -> dict[str, Any] | None:
        """The verdict for JSON."""
        return record(self.verdict) if self.verdict else None

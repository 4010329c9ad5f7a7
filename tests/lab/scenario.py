"""Scenarios: commands for a real Xen, each with what is expected of it.

A scenario is a function that builds payloads and writes down steps; nothing runs before all
scenarios of the test run have been written down, so that they can share one boot.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from commands import run_lpmangle
from livepatch import Source, build_id, cached_payload

from lab.boot import Job, Result, Run, boot
from lab.labs import Lab

ROOT = Path(__file__).resolve().parent.parent.parent
EMPTY = "Nothing to list\n"


class CommandError(AssertionError):
    """lpmangle did not do what a scenario expects of it."""


@dataclass
class Step:
    command: str
    checks: list[Callable[[Result], str]]  # each returns what is wrong, or nothing
    deadly: bool = False  # nothing after it is run


class Scenario:
    """The payloads and steps of one scenario; payloads are named by their file's stem."""

    def __init__(self, name: str, lab: Lab, folder: Path) -> None:
        self.name = name
        self.lab = lab
        self.xen_syms = lab.xen_syms
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.steps: list[Step] = []

    # Payloads

    def build(self, name: str, *sources: Source | str, depends: bytes | None = None) -> Path:
        """A payload for the lab's Xen; it stands on the hypervisor itself unless told otherwise."""
        xen = _identity(self.xen_syms)
        return cached_payload(
            self.folder / f"{name}.livepatch",
            [Source(source) if isinstance(source, str) else source for source in sources],
            depends=xen if depends is None else depends,
            xen_depends=xen,
            machine=self.lab.machine.compiler,
        )

    def lpmangle(self, *arguments: str | Path, code: int = 0, says: str = "") -> str:
        """Runs the command line, as a user would."""
        done = run_lpmangle([*map(str, arguments)], cwd=self.folder)
        said = done.stdout + done.stderr
        if done.returncode != code or says not in said:
            raise CommandError(
                f"{' '.join(done.args)}\nexit code {done.returncode}, expected {code}"
                f"{f' and the words {says!r}' if says else ''}:\n{said}"
            )
        return said

    def retrace(self, console: str, *sources: Path) -> str:
        """What Xen said, with the original names by these manifests or payloads."""
        log = self.folder / "console"
        log.write_text(console)
        return self.lpmangle("retrace", *(word for source in sources for word in ("-m", source)), log)

    def mangle(self, payload: Path, *options: str | Path, says: str = "", to: str = "mangled") -> Path:
        """The mangled copy of a payload, under the same name in a folder of its own."""
        (self.folder / to).mkdir(exist_ok=True)
        output = self.folder / to / payload.name
        self.lpmangle(*options, "-o", output, payload, says=says)
        return output

    # Steps

    def run(self, command: str, *, fails: bool = False, output: str | None = None, console: str = "") -> Step:
        """Any command; `output` is all it must print, `console` something that Xen must print."""

        def check(result: Result) -> str:
            if result.code < 0:
                return "no answer: Xen or dom0 is dead, or the time was up"
            if (result.code > 0) is not fails:
                return f"exit code {result.code}, expected {'an error' if fails else 0}"
            if output is not None and result.output != output:
                return f"output is not {output!r}"
            return "" if console in result.console else f"Xen did not say {console!r}"

        step = Step(command, [check])
        self.steps.append(step)
        return step

    def dies(self, command: str, check: Callable[[str], str]) -> None:
        """The hypervisor does; `check` returns what is wrong with what it said meanwhile, or nothing."""

        def look(result: Result) -> str:
            return check(result.console) if result.code < 0 else "the hypervisor is still alive"

        self.steps.append(Step(command, [look], deadly=True))

    def tool(self, arguments: str, *, error: int = 0, console: str = "") -> None:
        """`xen-livepatch ARGUMENTS`; `error` is the errno that Xen must return."""
        step = self.run(f"xen-livepatch {arguments}", fails=error != 0, console=console)
        if error:
            words = f"Error {error}: {os.strerror(error)}\n"
            step.checks.append(lambda result: "" if words in result.output else f"not {words!r}")

    def upload(self, payload: Path, *, error: int = 0, console: str = "") -> None:
        self.tool(f"upload {payload.stem} {self.send(payload)}", error=error, console=console)

    def load(self, payload: Path, *, error: int = 0, console: str = "") -> None:
        """Uploads and applies, on top of what is applied already."""
        self.tool(f"load {self.send(payload)}", error=error, console=console)

    def refused(self, payload: Path, symbol: str) -> None:
        """The upload fails as that of a duplicate symbol does: errno and words."""
        words = f"(XEN) livepatch: {payload.stem}: duplicate new symbol: {symbol}\n"
        self.upload(payload, error=errno.EEXIST, console=words)

    def replace(self, payload: Path, *, console: str = "") -> None:
        """Uploads, and puts the payload in the place of all others in one go."""
        self.upload(payload)
        self.tool(f"replace {payload.stem}", console=console)

    def unload(self, name: str, *, console: str = "") -> None:
        self.tool(f"revert {name}", console=console)
        self.tool(f"unload {name}")

    def extra(self, version: str) -> None:
        """What the running hypervisor calls its extra version: shows whose code runs."""
        self.run("cat /sys/hypervisor/version/extra", output=f"{version}\n")

    def listed(self, *expected: str) -> None:
        """The payload list: "NAME" for an applied payload, "NAME CHECKED" for a loaded one."""
        wanted = [[*words.split(), "APPLIED"][:2] for words in expected]

        def check(result: Result) -> str:
            rows = [line.split() for line in result.output.splitlines()[2:]]
            return "" if [[row[0], row[2]] for row in rows] == wanted else f"list is not {wanted}"

        self.run("xen-livepatch list", output=None if wanted else EMPTY).checks.append(check)

    def send(self, payload: Path) -> str:
        """The payload's name in dom0."""
        name = str(payload.relative_to(self.folder))
        self.files[name] = payload.read_bytes()
        return name

    # The end

    def job(self) -> Job:
        """All steps, and one that leaves no payload behind."""
        self.run("unload-all", output=EMPTY)
        return Job(self.name, [step.command for step in self.steps], self.files)

    def problem(self, results: list[Result]) -> str:
        """The first step that went wrong, below all that happened before it; or nothing."""
        log = ""
        for step, result in zip(self.steps, results, strict=True):
            log += str(result)
            wrong = next(filter(None, (check(result) for check in step.checks)), "")
            if wrong:
                return f"{log}^^^ {self.name}: {wrong}"
            if step.deadly:
                break
        return ""


@cache
def _identity(xen_syms: Path) -> bytes:
    return build_id(xen_syms)


SCENARIOS: dict[str, Callable[[Scenario], None]] = {}
X86_ONLY: dict[str, str] = {}  # names of scenarios, and why they are none for Arm


def scenario(function: Callable[[Scenario], None]) -> Callable[[Scenario], None]:
    """Registers a scenario under its function's name."""
    SCENARIOS[function.__name__] = function
    return function


def x86_only(reason: str) -> Callable[[Callable[[Scenario], None]], Callable[[Scenario], None]]:
    """Registers a scenario that is none for Arm."""

    def register(function: Callable[[Scenario], None]) -> Callable[[Scenario], None]:
        X86_ONLY[function.__name__] = reason
        return scenario(function)

    return register


def scenarios_of(module: str) -> list[str]:
    """The names of those that a test module has registered so far."""
    return [name for name, function in SCENARIOS.items() if function.__module__ == module]


class Shared:
    """All selected scenarios, written down and run in one boot."""

    def __init__(self, lab: Lab, folder: Path, names: list[str]) -> None:
        self.lab = lab
        self.record: Callable[[str, object], None] = lambda name, value: None
        self.errors: dict[str, Exception] = {}
        self.scenarios = {}
        for name in names:
            (folder / name).mkdir()
            self.scenarios[name] = Scenario(name, lab, folder / name)
            try:
                SCENARIOS[name](self.scenarios[name])
            except Exception as error:  # of this scenario alone: the others are run
                self.errors[name] = error
        jobs = [s.job() for name, s in self.scenarios.items() if name not in self.errors]
        self.run = boot(lab, jobs) if jobs else Run("", {})

    def check(self, name: str) -> None:
        error = self.errors.get(name)
        if isinstance(error, CommandError):
            problem = str(error)
        elif error:
            raise error
        else:
            problem = self.scenarios[name].problem(self.run.results[name])
        self.record("lab", (self.lab.name, 1, len(self.scenarios[name].steps), 1 if problem else 0))
        if problem:
            pytest.fail(problem, pytrace=False)

"""Generated uploads asked of a real hypervisor, and what it answers held against what `check` says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.boot import Job, Result, boot
from lab.labs import Lab
from lab.uploads import Step, Uploads

# Xen tells what it does, at a level that a release build does not print unless it is told to.
INFORMATION = re.compile(
    r"(alternatives: Patching with )?alt table [0-9a-f]+ -> [0-9a-f]+$"
    r"|livepatch: .*(finished (APPLY|REVERT|REPLACE) with rc=-?\d+|: (Verifying enabled expectations for all functions"
    r"|Applying \d+ functions?|Reverting|Calling [a-z-]+ hook function( with rc=0)?))$"
)


@dataclass(frozen=True)
class Answer:
    """What comes back of one command, from Xen or by `check`."""

    errno: int = 0  # -1: none that can be told
    lines: tuple[str, ...] = ()  # what Xen prints, without `(XEN) `
    crash: bool = False


@dataclass
class Difference:
    """The first step of a scenario to which Xen and `check` say different things."""

    title: str
    step: str
    rule: str
    check: Answer
    xen: Answer
    console: str = ""
    files: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"[{self.title}] {self.step}: {_words(self.xen)}; check says {_words(self.check)} ({self.rule or 'taken'})"
        )


def ask(lab: Lab, scenarios: Sequence[Uploads], folder: Path) -> dict[int, list[Result]]:
    """What each scenario's steps, and the last one, which tidies up, gave. A crash costs only its own scenario.

    The console of all boots is kept in `folder`, which is emptied before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_behind in folder.iterdir():
        left_behind.unlink()
    jobs = [_job(f"s{number}", scenario) for number, scenario in enumerate(scenarios)]
    run = boot(lab, jobs, uploader=True, keep=folder / "console")
    return {number: run.results[job.name] for number, job in enumerate(jobs)}


def _job(name: str, scenario: Uploads) -> Job:
    files: dict[str, bytes] = {}
    commands = []
    for step in scenario.steps:
        command = f"ask {step.command} {step.name}"
        if step.command == "upload":
            files[str(len(files))] = step.data
            command += f" {len(files) - 1}"
        commands.append(command)
    rest = ", ".join(f"{step.command} {step.name}" for step in scenario.rest)
    return Job(name, [*commands, f"tidy {rest}"], files)


def differences(scenarios: Sequence[Uploads], results: dict[int, list[Result]]) -> list[Difference]:
    found = []
    for number, scenario in enumerate(scenarios):
        *steps, clean_up = results[number]
        for step, result in zip(scenario.steps, steps, strict=True):
            wanted, got = _expected(step), read(result)
            if not fits(got, wanted):
                name = f"{step.command} {step.name}"
                found.append(Difference(scenario.title, name, step.rule, wanted, got, result.console[-4000:]))
                break
            if wanted.crash:
                break
        else:
            if clean_up.code != 0:
                got = read(clean_up)
                words = clean_up.console[-4000:] + clean_up.output
                found.append(Difference(scenario.title, "clean-up", "", Answer(), got, words))
    return found


def fits(got: Answer, wanted: Answer) -> bool:
    """Question marks stand for the digits of an address that cannot be known before."""
    patterns = [re.sub(r"(\\\?){8,}", "[0-9a-f]+", re.escape(line)) for line in wanted.lines]
    if (got.errno, got.crash, len(got.lines)) != (wanted.errno, wanted.crash, len(patterns)):
        return False
    return all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, got.lines, strict=True))


def _expected(step: Step) -> Answer:
    if step.crash:
        return Answer(crash=True)
    return Answer(step.errno, tuple(step.message.splitlines()))


def read(result: Result) -> Answer:
    if result.code < 0:
        return Answer(crash=True)
    error = re.search(r"^Error (\d+):", result.output, re.MULTILINE)
    errno = int(error[1]) if error else 0 if result.code == 0 else -1
    lines = re.findall(r"^\(XEN\) (.*)$", result.console, re.MULTILINE)
    return Answer(errno, tuple(line for line in lines if not INFORMATION.match(line)))


def _words(answer: Answer) -> str:
    if answer.crash:
        return "a crash"
    return f"errno {answer.errno}" + "".join(f" {line!r}" for line in answer.lines)


def keep(folder: Path, found: Sequence[Difference], scenarios: Sequence[Uploads]) -> None:
    """The differences, one JSON object a line, and the payloads that they are about."""
    by_title = {scenario.title: scenario for scenario in scenarios}
    for difference in found:
        for step in by_title[difference.title].steps:
            if step.command == "upload":
                path = folder / f"{step.name}.livepatch"
                path.write_bytes(step.data)
                difference.files.append(str(path))
    lines = [json.dumps(asdict(difference)) for difference in found]
    (folder / "differences.jsonl").write_text("".join(f"{line}\n" for line in lines))

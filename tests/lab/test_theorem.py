"""The theorem's random stacks, uploaded to a real Xen before and after mangling.

Each verdict is the one of `check`. Accepted payloads are then read in Xen's memory: every relocation, and every
function to replace, has the target that the resolver of the theorem's tests gives; so it means the same before and
after.
"""

from __future__ import annotations

import os
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from livepatch import Source, build_id, build_payload
from theorem.mangling import mangled_stack
from theorem.resolver import File, bases, read, resolve
from theorem.stacks import ENTRY, random_stack, random_way

from lab.answers import Answer
from lab.answers import read as read_answer
from lab.boot import Job, Result, boot
from lab.editor import Editor
from lab.labs import LABS, Lab
from lpmangle.errors import LpmangleError
from lpmangle.loader import CRASH, Hypervisor, State, Upload, check_upload

pytestmark = [
    pytest.mark.xen,
    pytest.mark.only(lambda lab: lab == LABS[0], reason="the stacks are for x86_64"),
]

SEED = int(os.environ.get("LPMANGLE_SEED", "4711"))
STACKS = 40
FUNCTIONS = ".livepatch.funcs"


@dataclass
class Asked:
    """A stack as it is uploaded; `taken` are those that Xen accepts according to `check`, with their addresses."""

    title: str
    answers: list[Answer] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    taken: list[tuple[int, File]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return len(self.taken) == len(self.files)

    @property
    def crashes(self) -> bool:
        return any(answer.crash for answer in self.answers)


def ask(title: str, stack: list[bytes], xen: Hypervisor) -> Asked:
    asked, state = Asked(title), State(xen)
    for number, data in enumerate(stack):
        verdict = check_upload(Upload(f"p{number}", data), state)
        first = verdict.first
        crash = first is not None and first.severity == CRASH
        asked.answers.append(Answer(first.errno if first else 0, tuple(verdict.printed), crash))
        asked.files.append(data)
        if verdict.loaded:
            state.loaded.append(verdict.loaded)
            asked.taken.append((verdict.loaded.base, read(data)))
    return asked


def choose(xen: Hypervisor) -> list[tuple[Asked, Asked]]:
    """Each stack as built and as mangled, so many that are taken whole when they are mangled; none that is a crash."""
    assert xen.build_id
    chosen: list[tuple[Asked, Asked]] = []
    others = 0
    for number in range(100 * STACKS):
        rng = random.Random(f"{SEED}/{number}")
        stack = random_stack(rng, xen.build_id, found=number % 4 > 0)
        ways = [random_way(rng) for _ in stack]
        try:
            pair = ask(f"{number}", stack, xen), ask(f"{number}m", mangled_stack(stack, ways), xen)
        except LpmangleError:
            continue
        if any(asked.crashes for asked in pair):
            continue
        if not pair[1].whole:
            others += 1
            if others > STACKS // 4:
                continue
        chosen.append(pair)
        if len(chosen) - min(others, STACKS // 4) >= STACKS:
            return chosen
    raise AssertionError(f"seed {SEED}: {len(chosen)} stacks are too few")


def places(asked: Asked, xen: Hypervisor) -> Iterator[tuple[int, int]]:
    """Addresses in the taken payloads, and what must stand there by the theorem's resolver."""
    files = [file for _, file in asked.taken]
    starts = [[None if at is None else base + at for at in bases(file, True)] for base, file in asked.taken]
    found = resolve(files, xen.symbols.keys(), True)
    assert not found.collisions, asked.title
    for (payload, section, place), meaning in found.meanings.items():
        assert isinstance(payload, int)
        assert isinstance(place, int)
        assert meaning, (asked.title, payload, section, place)
        if section == "function":
            start, place = starts[payload][files[payload].section(FUNCTIONS)], ENTRY * place + 16
        else:
            assert isinstance(section, int)
            start = starts[payload][section]
        words = [word for word in meaning if word != "+"]
        if words[0] == "xen":
            (_, name, *addend) = words
            assert isinstance(name, bytes)
            target = xen.symbols[name]
        else:
            (owner, target_section, offset, *addend) = words
            assert isinstance(owner, int)
            assert isinstance(target_section, int)
            base = starts[owner][target_section]
            assert base is not None
            assert isinstance(offset, int)
            target = base + offset
        assert start is not None
        yield start + place, (target + sum(int(str(number)) for number in addend)) % (1 << 64)


def job(asked: Asked, wanted: list[tuple[int, int]], eye: bytes) -> Job:
    files = {f"{number}": data for number, data in enumerate(asked.files)}
    commands = [f"ask upload p{number} {number}" for number in range(len(asked.files))]
    editor = Editor(eye)
    table = struct.pack(f"<{1 + len(wanted)}Q", len(wanted), *(address for address, _ in wanted))
    at = editor.content(".eye")
    assert len(table) <= editor.field(".eye", "size")
    editor.data[at : at + len(table)] = table
    files["eye"] = bytes(editor.data)
    taken = [number for number, answer in enumerate(asked.answers) if not answer.errno]
    rest = ", ".join(["revert eye", "unload eye", *(f"unload p{number}" for number in reversed(taken))])
    return Job(asked.title, [*commands, "ask upload eye eye", "ask apply eye", f"tidy {rest}"], files)


def problem(asked: Asked, wanted: list[tuple[int, int]], results: list[Result]) -> str:
    """The first thing that is not as it must be."""
    *uploads, eye, looked, tidied = results
    for number, (result, answer) in enumerate(zip(uploads, asked.answers, strict=True)):
        got = read_answer(result)
        if got != answer:
            return f"p{number}: {got}, check says {answer}"
    seen = [int(word, 16) for word in re.findall(r"^\(XEN\) eye: (\w+)$", looked.console, re.MULTILINE)]
    if eye.code or looked.code or len(seen) != len(wanted):
        return f"{eye}{looked}"
    for (address, value), word in zip(wanted, seen, strict=True):
        if word != value:
            return f"at {address:#x} Xen has written {word:#x}, by the resolver it is {value:#x}"
    return f"{tidied}" if tidied.code else ""


def test_the_theorem(lab: Lab, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    xen = Hypervisor.read_from(lab.xen_syms.read_bytes())
    identity = build_id(lab.xen_syms)
    source = Source((Path(__file__).parent / "payloads" / "eye.c").read_text(), file="eye.c")
    eye = build_payload(tmp_path / "eye", [source], depends=identity, xen_depends=identity).read_bytes()
    pairs = choose(xen)
    every = [asked for pair in pairs for asked in pair]
    wanted = {asked.title: list(places(asked, xen)) for asked in every}
    run = boot(lab, [job(asked, wanted[asked.title], eye) for asked in every], uploader=True)
    counts: Counter[str] = Counter()
    wrong = []
    for before, after in pairs:
        counts["taken before"] += before.whole
        counts["taken after"] += after.whole
        for asked in (before, after):
            counts["words"] += len(wanted[asked.title])
            if said := problem(asked, wanted[asked.title], run.results[asked.title]):
                wrong.append(f"stack {asked.title}: {said}")
    verdicts = sum(len(asked.files) for asked in every)
    record_property("lab", (lab.name, len(every), verdicts, len(wrong)))
    print(f"{lab}, seed {SEED}: {len(pairs)} stacks, {verdicts} uploads, {dict(counts)}")
    assert not wrong, f"seed {SEED}\n" + "\n".join(wrong)
    assert counts["taken after"] >= STACKS
    assert counts["taken before"] < counts["taken after"]

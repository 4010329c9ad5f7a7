"""Scenarios of uploads made from a seed: what to upload, in which order, with which defects."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from lab.defects import DEFECTS, HYPERVISOR, LOCALS, Defect
from lab.editor import Editor
from lab.targeted import replace_function, targeted
from lpmangle.loader import CRASH, Hypervisor, State, Upload, Verdict, check_upload
from lpmangle.loader.findings import Finding
from lpmangle.loader.upload import perform
from lpmangle.xen.machines import ENDBR64

# The number of scenarios besides one for each defect alone.
PAIRS, SEQUENCES, STACKS = 85, 45, 12
# Kinds of payloads in a stack. One that expects code is never on top: the patched code there is not known.
STACKED = (
    "plain", "on top", "on top", "on another", "on nothing", "hook", "expects the code", "expects other code",
    "expects reserved bits", "expects too much", "expects nothing",
)  # fmt: skip


@dataclass
class Step:
    """One command for xen-livepatch, and what `check` says about it."""

    command: str
    name: str
    data: bytes = b""
    errno: int = 0
    message: str = ""  # what Xen prints about the payload, without `(XEN) `
    rule: str = ""
    detail: str = ""
    crash: bool = False  # it crashes the hypervisor


@dataclass
class Uploads:
    """One scenario: steps, and those that bring the hypervisor back to where it was."""

    title: str
    steps: list[Step] = field(default_factory=list)
    rest: list[Step] = field(default_factory=list)

    @property
    def crashes(self) -> str:
        """The rule by which `check` says that it crashes the hypervisor, and the detail."""
        return next((f"{step.rule} {step.detail}" for step in self.steps if step.crash), "")


def make_scenarios(seed: int, base: bytes, xen: Hypervisor, vendor: str = "") -> Iterator[Uploads]:
    """All scenarios of a seed. Those that would crash the hypervisor are marked."""
    maker = _Maker(Random(seed), base, xen, vendor)
    special = targeted(Editor(base).machine, maker.endbr, maker.init)
    for name, defect in {**DEFECTS, **special}.items():
        yield maker.defects({name: defect})
    for _ in range(PAIRS):
        names = maker.random.sample(sorted(DEFECTS), maker.random.choice((2, 2, 3)))
        yield maker.defects({name: DEFECTS[name] for name in names})
    for _ in range(SEQUENCES):
        yield maker.sequence()
    yield maker.stack("plain", "on top", "on nothing", "hook", "plain", "expects too much", "plain")
    yield maker.stack("hook", "plain", "on top")
    yield maker.stack("expects other code", "expects the code", "expects other code", "on nothing")
    for _ in range(STACKS):
        yield maker.stack(*maker.random.choices(STACKED, k=maker.random.randrange(2, 5)))
    yield maker.stack("plain", "over a payload's function")
    yield maker.stack("plain", "on top", "over a payload's function", "on top")
    yield maker.stack("read-only functions")
    if maker.endbr:
        yield maker.stack("deletes of ENDBR64")
    yield maker.names()
    yield maker.long_names()


class _Maker:
    def __init__(self, random: Random, base: bytes, xen: Hypervisor, vendor: str) -> None:
        self.random = random
        self.base = base
        start, end = (xen.symbols.get(name, 0) for name in (b"_sinittext", b"_einittext"))
        names = sorted((_text(name), at) for name, at in xen.symbols.items())
        # One that begins with ENDBR64, one that is gone after the hypervisor has booted.
        self.endbr = next((name for name, at in names if not start <= at < end and xen.read(at, 4) == ENDBR64), "")
        self.init = next((name for name, at in names if start < at < end), "")
        self.lp_data = Editor(base).symbol("lp_data")
        self.xen = xen
        self.vendor = vendor
        self._begin("")
        self.number = 0

    def defects(self, defects: dict[str, Defect]) -> Uploads:
        """One payload with all of these defects."""
        self._begin(" + ".join(defects))
        editor = self._payload()
        for defect in defects.values():
            self._spoil(editor, defect)
        self._upload(bytes(editor.data))
        return self._end()

    def sequence(self) -> Uploads:
        """A few payloads that share names, refer to one another, or are the same; some are unloaded in between."""
        random = self.random
        names = [*(f"shared{n}" for n in range(3)), "s" * 126, "s" * 126 + "a", "s" * 126 + "b", *HYPERVISOR[:2]]
        self._begin("sequence")
        made: list[bytes] = []
        for _ in range(random.randrange(2, 5)):
            editor = self._payload()
            for local in LOCALS:
                if random.random() < 0.85:
                    shared = random.random() < 0.35
                    editor.rename(local, random.choice(names) if shared else f"own{random.randrange(10**9)}")
            if random.random() < 0.3:  # an undefined symbol that an earlier payload may have
                editor.edit_symbol(self.lp_data, shndx=0)
            if random.random() < 0.2:  # a function of an earlier payload to replace
                replace_function(editor, random.choice(names[:4]), random.choice((4, 5, 12)))
            if random.random() < 0.15:
                self._spoil(editor, DEFECTS[random.choice(sorted(DEFECTS))])
            data = bytes(editor.data)
            if made and random.random() < 0.15:
                data = random.choice(made)
            again = self.uploads.steps[-1].name if made and random.random() < 0.1 else ""
            self._upload(data, again)
            made.append(data)
            if self.state.loaded and random.random() < 0.2:
                gone = random.choice(self.state.loaded)
                self.state.loaded.remove(gone)
                self.uploads.steps.append(Step("unload", gone.name))
        return self._end()

    def stack(self, *kinds: str) -> Uploads:
        """Payloads that are applied, on top of one another or instead of one another; see STACKED."""
        random = self.random
        self._begin(f"stack of {', '.join(kinds)}")
        for kind in kinds:
            editor = self._payload()
            for local in LOCALS:
                editor.rename(local, f"own{random.randrange(10**9)}")
            if kind == "over a payload's function":
                replace_function(editor, _text(next(iter(self.state.applied[0].symbols))), 12)
            elif kind == "read-only functions":
                editor.edit(".livepatch.funcs", flags=2)
            elif kind == "deletes of ENDBR64":
                editor.rename("xen_extra_version", "own_extra_version").drop_relocation(".livepatch.funcs", 1)
                replace_function(editor, self.endbr, 12).function(new_size=3)
            if kind in ("on top", "over a payload's function") and self.state.applied:
                editor.build_id(self.state.applied[-1].build_id, ".livepatch.depends")
            elif kind == "on another" and self.state.loaded:
                editor.build_id(random.choice(self.state.loaded).build_id, ".livepatch.depends")
            elif kind == "on nothing":
                editor.build_id(random.randbytes(20), ".livepatch.depends")
            elif kind == "hook":  # it keeps the payload from replacing others; what it calls does no harm
                name = f".livepatch.hooks.{random.choice(('postapply', 'postrevert'))}"
                editor.add(name, bytes(editor.format.pointer), flags=3)
                editor.add_relocation(name, 0, editor.symbol_of(".text"))
            elif kind.startswith("expects"):
                self._expectation(editor, kind.removeprefix("expects "))
            verdict = self._upload(bytes(editor.data))
            if verdict.loaded:
                self._act(verdict)
        return self._end()

    def names(self) -> Uploads:
        """The names of the payloads themselves."""
        self._begin("names")
        for size in (127, 128):  # with more, the tool does not even ask
            editor = self._payload()
            for local in LOCALS:
                editor.rename(local, f"own{self.random.randrange(10**9)}")
            self._upload(bytes(editor.data), "n" * size)
        first = self.uploads.steps[0]
        self._upload(first.data, first.name)
        self._upload(bytes(Editor(self.base).data[:9]), first.name)
        self._upload(first.data)
        return self._end()

    def long_names(self) -> Uploads:
        """The kept part of a long name is found and clashes; the whole name is not found, but clashes."""
        self._begin("long names")
        for name, shndx in (
            ("n" * 127, None),
            ("n" * 127, 0),
            ("n" * 126, 0),
            ("n" * 126, None),
            ("n" * 126 + "x", None),
        ):
            editor = self._payload()
            for local in LOCALS[:-1]:
                editor.rename(local, f"own{self.random.randrange(10**9)}")
            editor.rename("lp_data", name)
            if shndx is not None:
                editor.edit_symbol(name, shndx=shndx)
            self._upload(bytes(editor.data))
        return self._end()

    def _payload(self) -> Editor:
        """The base with a build-id of its own."""
        return Editor(self.base).build_id(self.random.randbytes(20))

    def _spoil(self, editor: Editor, defect: Defect) -> None:
        # Something that it needs may have been renamed or destroyed.
        with suppress(KeyError, StopIteration, IndexError, ValueError, struct.error):
            defect(editor, self.random)

    def _expectation(self, editor: Editor, kind: str) -> None:
        """What xen_extra_version begins with, or something else; the payload replaces others, or is the first."""
        code = self.xen.read(self.xen.symbols[b"xen_extra_version"], 7)
        assert code
        enabled, length = 1, len(code) << 1
        flags = {"reserved bits": enabled | length | 1 << 6, "too much": enabled | 13 << 1, "nothing": length}
        editor.function(expect=flags.get(kind, enabled | length))
        at = editor.content(".livepatch.funcs") + editor.format.func["expected"][0]
        editor.data[at : at + len(code)] = code if kind == "the code" else b"\xcc" * len(code)

    def _begin(self, title: str) -> None:
        self.state, self.uploads = State(self.xen, vendor=self.vendor), Uploads(title)

    def _upload(self, data: bytes, name: str = "") -> Verdict:
        self.number += 1
        name = name or f"u{self.number}"
        verdict = check_upload(Upload(name, data), self.state)
        first = verdict.first
        step = Step("upload", name, data)
        if first:
            _expect(step, first)
        step.message = "\n".join(verdict.printed)
        self.uploads.steps.append(step)
        if verdict.loaded:
            self.state.loaded.append(verdict.loaded)
        return verdict

    def _act(self, verdict: Verdict) -> None:
        """Apply it, or do what `check` says; if that is not possible, Xen must say why."""
        assert verdict.loaded
        wrong = next((finding for finding in verdict.then if finding.fatal), None)
        step = Step(verdict.attempt, verdict.loaded.name)
        if wrong:
            _expect(step, wrong)
        self.uploads.steps.append(step)
        perform(verdict.attempt, verdict.then, verdict.loaded, self.state)

    def _end(self) -> Uploads:
        for loaded in reversed(self.state.applied):
            self.uploads.rest.append(Step("revert", loaded.name))
        for loaded in reversed(self.state.loaded):
            self.uploads.rest.append(Step("unload", loaded.name))
        return self.uploads


def _expect(step: Step, finding: Finding) -> None:
    step.errno, step.message, step.rule = finding.errno, finding.message, finding.rule
    step.detail, step.crash = finding.detail, finding.severity == CRASH


def _text(name: bytes) -> str:
    return name.decode()

"""One upload played through the loader, and what could be done with the payload then."""

import os

from lpmangle.errors import PayloadError
from lpmangle.loader import advice
from lpmangle.loader.image import Image
from lpmangle.loader.rules import CRASH, NOT_CHECKED, Finding, Report, Rule
from lpmangle.loader.state import Loaded, State
from lpmangle.loader.steps import actions
from lpmangle.loader.steps.functions import FUNCS, functions
from lpmangle.loader.steps.memory import place_sections, resolve_symbols
from lpmangle.loader.steps.names import check_names, new_symbols
from lpmangle.loader.steps.prepare import HOOKS, Contents, check_sections, check_xen_depends_first, prepare
from lpmangle.loader.steps.relocations import perform_relocations
from lpmangle.loader.steps.structure import read_structure
from lpmangle.xen.abi import LIVEPATCH_MAX_SIZE, MAX_NAME
from lpmangle.xen.machines import Machine, machine_of

MAX_PAYLOAD_NAME = 127  # XEN_LIVEPATCH_NAME_SIZE is 128, with the NUL


class Payload:
    """A payload's bytes and the name that it is uploaded by."""

    def __init__(self, name: str, data: bytes, path: str = "") -> None:
        self.name = name
        self.data = data
        self.path = path or name

    @classmethod
    def at(cls, path: str, data: bytes) -> "Payload":
        """`xen-livepatch load` names a payload after its file, up to the last dot."""
        stem, dot, _ = os.path.basename(path).rpartition(".")
        return cls(stem if dot else os.path.basename(path), data, path)


class Verdict:
    """What the hypervisor makes of an upload. `findings` stand in the order of its work, warnings after that.

    `first` is what it would report; `loaded` what the payload leaves behind if it is taken. `attempt` is what would be
    tried then, `apply` or `replace`, and `then` what was found about that.
    """

    def __init__(self, payload: Payload, report: Report, loaded: Loaded | None) -> None:
        self.payload = payload
        self.findings = report.findings
        self.first: Finding | None = report.fatal
        self.loaded = None if self.first else loaded
        self.build_id = b""
        self.xen_depends = b""
        self.attempt = ""
        self.then: list[Finding] = []

    @property
    def status(self) -> str:
        """`taken`, `refused` or `would crash the hypervisor`."""
        if self.first is None:
            return "taken"
        return "would crash the hypervisor" if self.first.severity == CRASH else "refused"

    @property
    def good(self) -> bool:
        """Whether it is taken and can be put to use."""
        return self.first is None and not any(finding.fatal for finding in self.then)

    @property
    def action(self) -> str:
        """What can be done with it: `apply`, `replace`, or nothing."""
        return self.attempt if self.good else ""

    @property
    def complete(self) -> bool:
        """Whether all could be checked that decides."""
        return not any(finding.severity == NOT_CHECKED for finding in self.everything)

    @property
    def everything(self) -> list[Finding]:
        return self.findings + self.then


def check_upload(payload: Payload, state: State) -> Verdict:
    """Play the upload of `payload` to a hypervisor in `state`, to which nothing is done."""
    report = Report(payload.name)
    image = Image(payload.data, _machine(payload, state))
    contents = Contents()
    xen_depends, names = b"", dict[bytes, int]()
    new: list[int] = []
    if _check_request(payload, state, report) and read_structure(image, report):
        if state.rules.xen_depends_first:
            xen_depends = check_xen_depends_first(image, state, report)
        if place_sections(image, state, report):
            resolve_symbols(image, state, report)
            perform_relocations(image, report)
            check_sections(image, state, report)
            contents = prepare(image, state, report)
            new = new_symbols(image, contents.new_addresses)
            names = check_names(image, new, state, report)
    verdict = Verdict(payload, report, None if report.fatal else _loaded(payload, image, contents, names))
    verdict.build_id, verdict.xen_depends = contents.build_id, xen_depends or contents.xen_depends
    advice.advise(image, new, state, report)
    if verdict.loaded:
        verdict.attempt, verdict.then = actions.next_action(verdict.loaded, verdict.xen_depends, state)
    return verdict


def check_sequence(payloads: list[Payload], state: State) -> list[Verdict]:
    """Upload after upload, each followed by what can be done with it: apply, else replace. `state` follows."""
    verdicts = []
    for payload in payloads:
        verdict = check_upload(payload, state)
        verdicts.append(verdict)
        if verdict.loaded:
            state.loaded.append(verdict.loaded)
            perform(verdict.attempt, verdict.then, verdict.loaded, state)
    return verdicts


def perform(attempt: str, then: list[Finding], loaded: Loaded, state: State) -> None:
    """Do what would be tried with a payload that is loaded, with the outcome `then`."""
    if attempt == actions.REPLACE and not any(finding.rule == Rule.REPLACE_HOOKS for finding in then):
        state.applied.clear()  # reverted, whether the rest goes well or not; their names stay taken
    if not any(finding.fatal for finding in then):
        state.applied.append(loaded)


def take(payload: Payload, state: State) -> Loaded:
    """What a payload that is loaded already has left behind, without asking whether Xen should have taken it.

    Only what others can meet is read. Raises PayloadError if it cannot be.
    """
    report = Report(payload.name)
    image = Image(payload.data, _machine(payload, state))
    if not read_structure(image, report) or not place_sections(image, state, report):
        assert report.fatal
        says = report.fatal.message or report.fatal.meaning
        raise PayloadError(f"cannot be loaded already: {says}")
    silent, alone = Report(payload.name), State(state.xen, state.rules.version)
    resolve_symbols(image, alone, silent)
    for name in (FUNCS, *HOOKS):
        if number := image.section(name):
            perform_relocations(image, silent, only_into=number)
    contents = prepare(image, alone, silent)
    if not contents.build_id or not contents.depends:
        raise PayloadError("cannot be loaded already: it has no build-id, or none that it depends on")
    names: dict[bytes, int] = {}
    for index in new_symbols(image, contents.new_addresses):
        names.setdefault(image.symbols[index][0][:MAX_NAME], image.values[index])
    return _loaded(payload, image, contents, names)


def _loaded(payload: Payload, image: Image, contents: Contents, names: dict[bytes, int]) -> Loaded:
    return Loaded(
        payload.name,
        contents.build_id,
        contents.depends,
        names,
        image.base,
        image.memory,
        contents.vetoing,
        functions(image),
    )


def _machine(payload: Payload, state: State) -> Machine:
    if state.machine is None:
        state.machine = machine_of(payload.data)
    return state.machine


def _check_request(payload: Payload, state: State, report: Report) -> bool:
    """What the tool (xen-livepatch, libxc) and verify_payload look at. All silent. False if there is no more to see."""
    size = len(payload.data)
    if len(os.fsencode(payload.name)) > MAX_PAYLOAD_NAME:
        report.refuse(Rule.NAME_LENGTH, detail=f"{len(os.fsencode(payload.name))} bytes")
    if not size:
        report.refuse(Rule.EMPTY_FILE)
        return False
    if size > LIVEPATCH_MAX_SIZE:
        report.refuse(Rule.TOO_LARGE, detail=f"{size} bytes, Xen takes {LIVEPATCH_MAX_SIZE}")
    if any(loaded.name == payload.name for loaded in state.loaded):
        report.refuse(Rule.NAME_IN_USE, detail=payload.name)
    return True

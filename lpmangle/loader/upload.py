"""Simulates one upload, step by step in the loader's order, and what could be done with the payload then."""

import os

from lpmangle.errors import PayloadError
from lpmangle.loader import advice
from lpmangle.loader.findings import CRASH, NOT_CHECKED, WARNING, Finding, Report
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import Loaded, State
from lpmangle.loader.steps import actions
from lpmangle.loader.steps.functions import FUNCS
from lpmangle.loader.steps.memory import place_sections, resolve_symbols
from lpmangle.loader.steps.names import find_new_symbols, register_names
from lpmangle.loader.steps.prepare import HOOKS, check_sections, check_xen_depends, check_xen_depends_first, prepare
from lpmangle.loader.steps.relocations import perform_relocations
from lpmangle.loader.steps.request import check_request
from lpmangle.loader.steps.structure import read_structure
from lpmangle.mangle.mark import Mark
from lpmangle.xen.machines import Machine, machine_of
from lpmangle.xen.versions import version_text

# Follows the status of what is accepted as far as could be checked.
NOT_ALL_CHECKED = " (not all checked)"


class Upload:
    """A payload's bytes and the name that it is uploaded by.

    `mark` is the mark of a mangled payload that has lost it, for example through objcopy, from its manifest.
    """

    def __init__(self, name: str, data: bytes, path: str = "", mark: Mark | None = None) -> None:
        self.name = name
        self.data = data
        self.path = path or name
        self.mark = mark

    @classmethod
    def at(cls, path: str, data: bytes) -> "Upload":
        """`xen-livepatch load` names a payload after its file, up to the last dot."""
        stem, dot, _ = os.path.basename(path).rpartition(".")
        return cls(stem if dot else os.path.basename(path), data, path)


class Verdict:
    """What the hypervisor does with an upload. `findings` are in the order of its work, then warnings.

    `first` is what it would report; `loaded` is the loaded payload, if it is accepted. `attempt` is what would be tried
    then, `apply` or `replace`, and `then` what was found about that.
    """

    def __init__(self, upload: Upload, report: Report, image: Image) -> None:
        self.upload = upload
        self.findings = report.findings
        self.first: Finding | None = report.fatal
        self.loaded = None if self.first else Loaded(upload.name, image)
        self.build_id = image.build_id
        self.attempt = ""
        self.then: list[Finding] = []

    @property
    def status(self) -> str:
        """`accepted`, `refused` or `would crash the hypervisor`."""
        if self.first is None:
            return "accepted"
        return "would crash the hypervisor" if self.first.severity == CRASH else "refused"

    @property
    def words(self) -> str:
        """The status, and whether something could not be checked."""
        return self.status if self.first or self.complete else self.status + NOT_ALL_CHECKED

    @property
    def good(self) -> bool:
        """Whether it is accepted and can be used."""
        return self.first is None and not any(finding.fatal for finding in self.then)

    @property
    def action(self) -> str:
        """What can be done with it: `apply`, `replace`, or nothing."""
        return self.attempt if self.good else ""

    @property
    def complete(self) -> bool:
        """Whether everything that decides could be checked."""
        return not any(finding.severity == NOT_CHECKED for finding in self.everything)

    @property
    def printed(self) -> list[str]:
        """The lines that Xen prints about the upload, without `(XEN) ` before them."""
        end = len(self.findings) if self.first is None else self.findings.index(self.first) + 1
        said = [finding for finding in self.findings[:end] if finding.severity == WARNING or finding is self.first]
        return [line for finding in said for line in finding.lines]

    @property
    def everything(self) -> list[Finding]:
        return self.findings + self.then


def check_upload(upload: Upload, state: State) -> Verdict:
    """Simulate `upload` on a hypervisor in `state`, which does not change."""
    report = Report(upload.name)
    image = Image(upload.data, _machine(upload, state))
    _check_version(state, report)
    _load(upload, image, state, report)
    verdict = Verdict(upload, report, image)
    advice.advise(image, state, report, upload.mark)
    if verdict.loaded:
        verdict.attempt, verdict.then = actions.next_action(verdict.loaded, state)
    return verdict


def _load(upload: Upload, image: Image, state: State, report: Report) -> None:
    """The order of Xen's work (livepatch.c:livepatch_upload, load_payload_data), as far as the file can be read.

    Xen stops at the first refusal; here the steps continue, to find everything that is wrong.
    """
    if not check_request(upload.name, len(upload.data), state, report):  # verify_payload
        return
    if not read_structure(image, report):  # livepatch_elf_load
        return
    if state.profile.xen_depends_first:
        check_xen_depends_first(image, state, report)  # check_xen_buildid
    if not place_sections(image, state, report):  # move_payload
        return
    resolve_symbols(image, state, report)  # livepatch_elf_resolve_symbols
    perform_relocations(image, report)  # livepatch_elf_perform_relocs
    check_sections(image, state, report)  # check_special_sections, check_patching_sections
    prepare(image, state, report)  # prepare_payload
    if not state.profile.xen_depends_first:
        check_xen_depends(image, state, report)  # check_xen_buildid
    register_names(image, state, report)  # build_symbol_table


def check_sequence(uploads: list[Upload], state: State) -> list[Verdict]:
    """Simulate one upload after the other, each followed by apply, or else replace. `state` changes accordingly."""
    verdicts = []
    for upload in uploads:
        verdict = check_upload(upload, state)
        verdicts.append(verdict)
        if verdict.loaded:
            state.loaded.append(verdict.loaded)
            perform(verdict.attempt, verdict.then, verdict.loaded, state)
    return verdicts


def perform(attempt: str, then: list[Finding], loaded: Loaded, state: State) -> None:
    """Do what would be tried with a loaded payload; `then` is the outcome."""
    if attempt == actions.REPLACE and not any(finding.rule == Rule.REPLACE_HOOKS for finding in then):
        state.applied.clear()  # they are reverted, even if the rest fails; their names stay in use
    if not any(finding.fatal for finding in then):
        state.applied.append(loaded)


def take(upload: Upload, state: State) -> Loaded:
    """A payload that is already loaded, without asking whether Xen should have accepted it.

    Only what others can meet is read. Raises PayloadError if it cannot have been loaded.
    """
    report = Report(upload.name)
    image = Image(upload.data, _machine(upload, state))
    if not read_structure(image, report) or not place_sections(image, state, report):
        assert report.fatal
        says = report.fatal.headline or report.fatal.meaning
        raise PayloadError(f"cannot be loaded already: {says}")
    silent, alone = Report(upload.name), State(state.xen, state.version, vendor=state.profile.vendor)
    resolve_symbols(image, alone, silent)
    for name in (FUNCS, *HOOKS):
        if number := image.section(name):
            perform_relocations(image, silent, only_into=number)
    prepare(image, alone, silent)
    if not image.build_id or not image.depends:
        raise PayloadError("cannot be loaded already: it has no build-id, or none that it depends on")
    find_new_symbols(image)
    return Loaded(upload.name, image)


def _check_version(state: State, report: Report) -> None:
    """For an unknown version the rules of another one apply, but never silently."""
    rules = version_text(state.profile.version)
    if state.version is None:
        if state.xen:
            report.not_checked(Rule.UNKNOWN_VERSION, f"the hypervisor's version is not known; judged as Xen {rules}")
    elif state.version != state.profile.version:
        report.not_checked(Rule.UNKNOWN_VERSION, f"Xen {version_text(state.version)}; judged as Xen {rules}")


def _machine(upload: Upload, state: State) -> Machine:
    if state.machine is None:
        state.machine = machine_of(upload.data)
    return state.machine

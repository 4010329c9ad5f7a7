"""The mangler and the loader see a payload in the same way, under every version of Xen."""

import random

from corpus import Item
from elfbuild import ABS, ALLOC, EXEC, GLOBAL, MERGE, WRITE, Sec, Sym, build, build_id, funcs, note, rela
from hypervisor import before

from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image
from lpmangle.loader.profile import CHANGES
from lpmangle.loader.state import State
from lpmangle.loader.steps.functions import check_functions
from lpmangle.loader.steps.memory import place_sections, resolve_symbols
from lpmangle.loader.steps.names import find_new_symbols
from lpmangle.loader.steps.relocations import perform_relocations
from lpmangle.loader.steps.structure import read_structure
from lpmangle.xen.machines import machine_of
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind
from lpmangle.xen.versions import NEWEST, OLDEST, Version

SEED, ROUNDS = 20260, 300
# Both sides of every change of the rules.
VERSIONS = sorted(
    {OLDEST, NEWEST}
    | {first for change in CHANGES.values() for first in change.first}
    | {before(first) for change in CHANGES.values() for first in change.first}
)


def _new_to_the_loader(data: bytes, version: Version) -> set[int]:
    image, report, state = Image(data, machine_of(data)), Report("p"), State(version=version)
    assert read_structure(image, report), report.findings
    assert place_sections(image, state, report), report.findings
    resolve_symbols(image, state, report)
    perform_relocations(image, report)
    check_functions(image, state, report)
    find_new_symbols(image)
    return set(image.new)


def _assert_one_model(data: bytes, what: str) -> int:
    """Returns the number of symbols that some version counts as overriding, and another as new."""
    payload = Payload.parse(data)
    new = {index for index, kind in enumerate(payload.kinds) if kind == Kind.NEW}
    overriding = {index for index, kind in enumerate(payload.kinds) if kind == Kind.OVERRIDING}
    found = {version: _new_to_the_loader(data, version) for version in VERSIONS}
    for version, there in found.items():
        placed = State(version=version).profile.empty_sections_placed
        assert there == new - payload.coincidences[placed], (what, version)
        assert not there & overriding, (what, version)
    return len(payload.coincidences[0] ^ payload.coincidences[1])


def test_corpus(corpus: dict[str, Item]) -> None:
    compared = 0
    for name, item in corpus.items():
        spec = item.spec
        if not spec.linker or not spec.add_sections or spec.machine.endswith("be") or spec.version == 1:
            continue
        _assert_one_model(item.path.read_bytes(), name)
        compared += 1
    assert compared > 20


def _random_payload(rng: random.Random) -> bytes:
    sections = []
    for number in range(rng.randrange(2, 9)):
        flags = rng.choice([ALLOC | EXEC] * 4 + [ALLOC | WRITE, ALLOC, ALLOC | MERGE, 0])
        size = rng.choice([0, 0, 1, 8, 16, 24])
        sections.append(Sec(f".s{number}", bytes(size), flags, align=rng.choice([0, 1, 4, 16, 64, 256])))
    symbols = []
    symbols.append(Sym(b"absolute", ABS, value=rng.choice([0, 8])))
    for number in range(rng.randrange(1, 20)):
        section = rng.choice(sections)
        value = rng.choice([0, len(section.data), rng.randrange(0, 32)])
        name = rng.choice([b"f%d" % number, b"", b".L%d" % number, b"$d", b"$x.%d" % number, b"twin"])
        symbols.append(Sym(name, section.name, value=value, bind=rng.choice([0, 0, GLOBAL])))
    count = rng.randrange(1, 4)
    table = funcs(count)
    rows = [(104 * n + 8, rng.randrange(1, len(symbols) + 1), 1, rng.choice([0, 0, 8, 16])) for n in range(count)]
    notes = [build_id(b"\1" * 20), Sec(".livepatch.depends", note(b"\2" * 20), ALLOC)]
    return build([*sections, table, rela(table.name, rows), *notes], symbols, machine=rng.choice([62, 183])).data


def test_random_payloads() -> None:
    rng = random.Random(SEED)
    differing = sum(bool(_assert_one_model(_random_payload(rng), f"seed {SEED}, round {n}")) for n in range(ROUNDS))
    assert differing > ROUNDS // 50, "hardly a payload on which versions differ"

"""How a real Xen answers to unmangled, mangled and restored payloads.

Each scenario writes down its steps; all run in one boot (see conftest.py).
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
from pathlib import Path

import builds
import pytest
from livepatch import Source, build_id, local_symbols
from toolchain import MACHINES, run

from lab.boot import Result
from lab.editor import Editor
from lab.scenario import ROOT, Scenario, Shared, scenario, scenarios_of, x86_only
from lpmangle.xen.xensyms import captured_symbols, hypervisor_symbols

pytestmark = pytest.mark.xen

PAYLOADS = Path(__file__).parent / "payloads"
GET_FPU = "x86_emulate.c#_get_fpu"


def source(name: str, *defines: str, file: str = "x86_emulate.c") -> Source:
    return Source((PAYLOADS / f"{name}.c").read_text(), file=file, defines=defines)


def extra(xen: Scenario, name: str, *defines: str, depends: bytes | None = None) -> Path:
    """A payload that shows in /sys/hypervisor/version/extra as "-NAME"."""
    return xen.build(name, source("extra", f'VERSION="-{name}"', *defines), depends=depends)


def renames(mangled: Path) -> dict[str, str]:
    """Original and new names, from the manifest."""
    manifest = json.loads(Path(f"{mangled}.manifest.json").read_text())
    return {symbol["original"]: symbol["name"] for symbol in manifest["symbols"]}


@scenario
def seed(xen: Scenario) -> None:
    """The example payloads, built for the lab's Xen: what lpmangle is for."""
    first, second = (
        xen.build(name, Source((ROOT / f"examples/{name}.c").read_text(), plain=("lp_helper",)))
        for name in ("617712b", "fbab204")
    )
    xen.load(first)
    xen.extra("-617712b.1")
    xen.refused(second, GET_FPU)
    xen.listed("617712b")
    xen.extra("-617712b.2")
    xen.replace(xen.mangle(second))
    xen.extra("-fbab204.2")
    xen.listed("617712b CHECKED", "fbab204")


@scenario
def static_hooks(xen: Scenario) -> None:
    """Hooks are static and have the same names in every payload."""
    one, two = (xen.build(name, source("hooks", f'NAME="{name}"', file="lp-hooks.c")) for name in ("one", "two"))
    xen.load(one, console="one: apply_hook check_fnc 1\n")
    xen.refused(two, local_symbols(two)[0])  # which one comes first depends on the machine
    xen.unload("one", console="one: revert_hook check_fnc 2\n")
    one, two = xen.mangle(one), xen.mangle(two)
    xen.load(one, console="one: apply_hook check_fnc 1\n")
    xen.replace(two, console="two: apply_hook check_fnc 1\n")
    xen.listed("one CHECKED", "two")
    xen.unload("two", console="two: revert_hook check_fnc 2\n")


@scenario
def chain_of_five(xen: Scenario) -> None:
    """Each cumulative payload replaces the previous one; in the end all are removed."""
    xen.run("cat /sys/hypervisor/version/extra >before")
    names = [f"hotfix{number}" for number in range(1, 6)]
    for name in names:
        xen.replace(xen.mangle(extra(xen, name)))
        xen.extra(f"-{name}")
    xen.listed(*(f"{name} CHECKED" for name in names[:-1]), names[-1])
    xen.tool(f"revert {names[-1]}")
    xen.run("cmp before /sys/hypervisor/version/extra")
    for name in names:
        xen.tool(f"unload {name}")
    xen.listed()


@scenario
def state_starts_anew(xen: Scenario) -> None:
    """A counter that has counted begins again at 0 in the payload that replaces it; check and compare say so before."""
    one, two = (
        xen.mangle(xen.build(name, source("counter", f'NAME="-{name}"')), "--scope", "new") for name in ("one", "two")
    )
    for command in (("check", "--xen", xen.xen_syms, "--loaded"), ("compare", "--xen", xen.xen_syms)):
        said = xen.lpmangle(*command, one, two, says="x86_emulate.c#calls")
        assert "start anew" in said
    xen.load(one)
    xen.extra("-one.1")
    xen.extra("-one.2")
    xen.replace(two)
    xen.extra("-two.1")


@scenario
def new_globals(xen: Scenario) -> None:
    """Xen ignores binding: a new GLOBAL collides like a LOCAL, and --scope local says so."""
    one, two = (extra(xen, name, "NEW_GLOBALS") for name in ("one", "two"))
    xen.load(one)
    local = xen.mangle(two, says="clash with the same names of any other payload: lp_frame_begin", to="local")
    assert set(renames(local)) == {GET_FPU, "x86_emulate.c#get_fpu_calls"}
    xen.refused(local, "lp_frame_begin")
    xen.listed("one")
    xen.replace(xen.mangle(two, "--scope", "new"))
    xen.extra("-two")


@scenario
def name_of_the_hypervisor(xen: Scenario) -> None:
    """A new symbol named like one of the hypervisor's own is refused too, with nothing loaded."""
    payload = extra(xen, "patch", "NEW_GLOBALS", "lp_frame_begin=domain_create")
    xen.refused(payload, "domain_create")
    xen.load(xen.mangle(payload, "--scope", "new"))
    xen.extra("-patch")


@scenario
def long_names(xen: Scenario) -> None:
    """Xen cuts names to 126 bytes; what it then shows is what the manifest says."""

    def shown(words: str) -> None:
        xen.run("cat /sys/hypervisor/version/extra", output="-shown\n", console=words)

    length = 126 - len("shown.c#")
    for_limit, cut_a, cut_b = (
        xen.build(name, source("shown", f"FUNCTION={function}", f'NAME="{name}"', file="shown.c"))
        for name, function in (
            ("limit", "f" * (length - 41)),  # with _ and 40 digits exactly 126 bytes
            ("cut-a", "g" * length + "_a"),
            ("cut-b", "g" * length + "_b"),
        )
    )
    xen.load(cut_a)
    shown(f"cut-a: shown.c#{'g' * length} [cut-a]\n")
    xen.refused(cut_b, f"shown.c#{'g' * length}")
    xen.unload("cut-a")
    for payload in (cut_a, cut_b, for_limit):
        mangled = xen.mangle(payload)
        names = renames(mangled)
        name = next(new for old, new in names.items() if old.startswith(("shown.c#f", "shown.c#g")))
        assert len(name) == 126
        assert name.endswith(f"_{build_id(payload).hex()}")
        xen.upload(mangled)
        xen.tool(f"apply {payload.stem}")
        shown(f"{payload.stem}: {name} [{payload.stem}]\n")
        xen.tool(f"revert {payload.stem}")
    xen.listed("cut-a CHECKED", "cut-b CHECKED", "limit CHECKED")


@scenario
def every_form(xen: Scenario) -> None:
    """Suffixes, templates, restored payloads, a payload mangled twice."""
    base, other = extra(xen, "base"), extra(xen, "other")
    identity = build_id(other).hex()
    xen.load(base)
    forms = {
        f"{GET_FPU}_{identity}": (),
        f"{GET_FPU}_{identity[:12]}": ("--suffix", "buildid:12"),
        f"{GET_FPU}_other": ("--suffix", "name"),
        f"{GET_FPU}_v1.2-rc3": ("--suffix", "text:v1.2-rc3"),
        f"_get_fpu_{identity}": ("--template", "{name}_{suffix}"),
        f"_get_fpu_{identity[:7]}": ("--suffix", "buildid:7", "--template", "{name}_{suffix}"),
    }
    for number, (name, options) in enumerate(forms.items()):
        mangled = xen.mangle(other, *options, to=f"form{number}")
        assert renames(mangled)[GET_FPU] == name
        xen.upload(mangled)
        xen.tool("unload other")

        restored = xen.folder / f"restored{number}" / other.name
        restored.parent.mkdir()
        xen.lpmangle("restore", mangled, "-o", restored)
        assert restored.read_bytes() == other.read_bytes()
        xen.refused(restored, GET_FPU)

    twice = xen.mangle(other, to="twice")
    once = twice.read_bytes()
    xen.lpmangle(twice, says="already")
    assert twice.read_bytes() == once
    xen.replace(twice)
    xen.extra("-other")


@scenario
def embedded_manifest(xen: Scenario) -> None:
    """A payload with its manifest inside: Xen accepts and replaces it, also after strip -g has removed it."""
    base, other, third = (extra(xen, name) for name in ("base", "other", "third"))
    xen.load(base)
    mangled = xen.mangle(other, "--embed")
    assert b".debug_lpmangle\0" in mangled.read_bytes()
    xen.replace(mangled)
    xen.extra("-other")
    stripped = xen.mangle(third, "--embed")
    run(MACHINES[xen.lab.machine.compiler].tool("strip"), "-g", stripped.name, cwd=stripped.parent)
    assert b".debug_lpmangle\0" not in stripped.read_bytes()
    xen.replace(stripped)
    xen.extra("-third")
    xen.listed("base CHECKED", "other CHECKED", "third")

    Path(f"{mangled}.manifest.json").unlink()
    xen.lpmangle("verify", mangled, says="verified")
    restored = xen.folder / "restored" / other.name
    restored.parent.mkdir()
    xen.lpmangle("restore", mangled, "-o", restored)
    assert restored.read_bytes() == other.read_bytes()


@x86_only("the copy of livepatch-build compiles for x86_64")
def livepatch_build(xen: Scenario) -> None:
    """A cumulative pair from `lpmangle build` is loaded and replaced; the tool's own output is refused."""
    builds.make_tree(xen.folder / "tree")
    (xen.folder / "config").touch()
    identity = build_id(xen.xen_syms).hex()

    def built(name: str, *command: str) -> Path:
        builds.write_patch(xen.folder / f"{name}.patch", f"-{name}")
        output = xen.folder / f"{name}-{len(command)}"
        words = [*command, "livepatch-build", "-s", "tree", "-p", f"{name}.patch", "-c", "config", "-o", str(output)]
        builds.run([*words, "--depends", identity, "--xen-depends", identity], xen.folder)
        return output / f"{name}.livepatch"

    checked = ["lpmangle", "build", "--check", "--xen", str(xen.xen_syms)]
    first = built("first")
    xen.load(first)
    xen.extra("-first")
    xen.refused(built("second"), GET_FPU)
    xen.replace(built("second", *checked, "--loaded", str(first), "--"))
    xen.extra("-second")
    xen.replace(built("third", *checked, "--"))
    xen.extra("-third")
    xen.listed("first CHECKED", "second CHECKED", "third")


@scenario
def overriding(xen: Scenario) -> None:
    """Overriding functions keep their names, GLOBAL or LOCAL, and still override."""
    first = extra(xen, "first")
    second = extra(xen, "second", "LOCAL_OVERRIDE", depends=build_id(first))
    third = extra(xen, "third", depends=build_id(second))
    lower, middle, upper = (xen.mangle(p, "--scope", "new") for p in (first, second, third))
    assert "xen_extra_version" not in renames(lower)
    assert "x86_emulate.c#extra_version" in local_symbols(middle)

    for payload in (lower, middle, upper):  # stacked: each stands on the one before
        xen.load(payload)
        xen.extra(f"-{payload.stem}")
    xen.tool("revert second", error=errno.EBUSY)
    xen.tool("revert third")
    xen.extra("-second")
    xen.tool("revert second")
    xen.extra("-first")
    xen.listed("first", "second CHECKED", "third CHECKED")


@scenario
def hundred_payloads(xen: Scenario) -> None:
    """All with the same symbols, all loaded at once."""
    names = [f"p{number:03}" for number in range(1, 101)]
    first = extra(xen, names[0]).read_bytes()
    payloads = []
    for name in names:  # compiled once: they differ in a word and in the build-id
        payloads.append(xen.folder / f"{name}.livepatch")
        another = first.replace(f"-{names[0]}\0".encode(), f"-{name}\0".encode())
        payloads[-1].write_bytes(Editor(another).build_id(hashlib.sha1(another).digest()).data)
    mangled = [xen.mangle(payload) for payload in payloads]
    assert len({build_id(payload) for payload in payloads}) == 100
    for payload in mangled:
        xen.upload(payload)
    xen.listed(*(f"{name} CHECKED" for name in names))
    for name in (names[0], names[49], names[99]):
        xen.tool(f"replace {name}")
        xen.extra(f"-{name}")


@scenario
def symbol_table(xen: Scenario) -> None:
    """The hypervisor's own table, rebuilt from xen-syms, has the same names at the same addresses."""

    def check(result: Result) -> str:
        if xen.lab.machine.x86:
            captured = captured_symbols(gzip.decompress(bytes.fromhex(result.output)))
        else:  # there is no /proc/xen/xensyms: the build's own table is used
            captured = captured_symbols(xen.lab.xen_map.read_bytes())
        rebuilt = hypervisor_symbols(xen.xen_syms.read_bytes())
        # The order at one address is not defined: the build sorts with qsort.
        different = sorted(set(captured) ^ set(rebuilt))
        if different or len(captured) != len(rebuilt):
            return f"{len(captured)} symbols, {len(rebuilt)} rebuilt; different: {different[:20]}"
        return ""

    table = 'gzip -c /proc/xen/xensyms | hexdump -v -e \'32/1 "%02x" "\\n"\''
    xen.run(table if xen.lab.machine.x86 else "true").checks.append(check)


@pytest.mark.parametrize("name", scenarios_of(__name__))
def test_scenario(shared: Shared, name: str) -> None:
    shared.check(name)

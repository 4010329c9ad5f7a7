"""lpmangle compare: pairs of payloads from real compilers, whose differences the test knows."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLES, lpmangle
from corpus import Item
from elfbuild import HOOK, TEXT, Sec, Sym, build, rela
from elfbuild import build_id as build_id_section
from livepatch import FLAGS, Source, build_id, build_payload
from toolchain import run

XEN = b"\xee" * 20
LAB = Path(__file__).parent.parent / "lab" / "payloads"

# A replaced function that calls two new ones, counts, prints, and uses a jump table.
CODE = """\
#include "livepatch.h"
#ifdef MOVED /* everything behind it lies elsewhere */
LOCAL int before(int value) { return value * 77 + 3; }
#endif
#ifndef FACTOR
#define FACTOR 3
#endif
#ifndef INLINED
#define INLINED 5
#endif
#ifndef MESSAGE
#define MESSAGE "helper: %d\\n"
#endif

static int counter;
static int table[4] = {1, 2, FIRST, 4};
static const char *const names[] = {"one", "two", "three"};

LOCAL int helper(int value)
{
    static int once;
    counter += value * FACTOR;
    table[counter & 1] = value;
    once++;
    return table[value & 3] + once;
}

LOCAL int twice(int value)
{
    switch (value) {
    case 0: return helper(1);
    case 1: return printk("a");
    case 2: return counter;
    case 3: return helper(value) ^ 0x55;
    case 4: return printk(names[counter & 1]);
    case 5: return helper(8) - 9;
    default: return helper(helper(value));
    }
}

static inline int inlined(int value) { return value ^ INLINED; }

const char *xen_extra_version(void)
{
    printk(MESSAGE, inlined(twice(counter)));
    return names[table[1] & 1];
}

#ifdef MOVED
LOCAL int behind(int value) { return before(value) * 5; }
const char *xen_compiler(void) { return names[behind(counter) & 1]; }
OVERRIDES = {ENTRY("xen_compiler", xen_compiler, 16), ENTRY("xen_extra_version", xen_extra_version, 12)};
#elif defined(TWO)
const char *xen_changeset(void) { return names[helper(2) & 1]; }
OVERRIDES = {ENTRY("xen_extra_version", xen_extra_version, 12), ENTRY("xen_changeset", xen_changeset, 16)};
#else
OVERRIDE(xen_extra_version);
#endif
#ifdef CARRIES
static void carry(void) { counter = 1; }
HOOK(load, carry);
#endif
"""


def make(folder: Path, name: str, *defines: str, code: str = CODE, machine: str = "x86_64", more: str = "") -> Path:
    if not any(define.startswith("FIRST") for define in defines):
        defines = (*defines, "FIRST=3")
    sources = [Source(code, file="x86_emulate.c", defines=defines)]
    if more:
        sources.insert(0, Source(f'#include "livepatch.h"\n{more}', file="first.c"))
    return build_payload(folder / f"{name}.livepatch", sources, depends=XEN, xen_depends=XEN, machine=machine)


def compare(*words: str | Path, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lpmangle("compare", "--json", *words, code=code).stdout)
    return found


def verdicts(found: dict[str, Any], part: str) -> dict[str, str]:
    return {one["name"].rpartition("#")[2].partition(".")[0]: one["verdict"] for one in found[part]}


def unequal(found: dict[str, Any]) -> dict[str, str]:
    """Everything that is not equal, by name."""
    parts = ("functions", "helpers", "variables", "constants")
    everything = [one for part in parts for one in verdicts(found, part).items()]
    return {name: verdict for name, verdict in everything if verdict != "equal"}


def built(folder: Path, machine: str, *defines: str) -> dict[str, Any]:
    """A payload compared with one built with `defines`."""
    old, new = make(folder, "old", machine=machine), make(folder, "new", *defines, machine=machine)
    return compare(old, new)


machines = pytest.mark.parametrize("machine", FLAGS)


@machines
def test_one_constant_in_one_function(tmp_path: Path, machine: str) -> None:
    """The function has changed code; its callers do not."""
    found = built(tmp_path, machine, "FACTOR=9")
    assert unequal(found) == {"helper": "changed"}
    assert verdicts(found, "helpers") == {"helper": "changed", "twice": "equal"}
    assert verdicts(found, "functions") == {"xen_extra_version": "equal"}
    assert found["differs"]


@machines
def test_what_only_moved_is_equal(tmp_path: Path, machine: str) -> None:
    """Distances of calls, places of data, numbers of static variables and offsets of strings differ."""
    found = built(tmp_path, machine, "MOVED")
    assert unequal(found) == {"before": "new", "behind": "new", "xen_compiler": "new"}
    assert verdicts(found, "functions")["xen_extra_version"] == "equal"
    assert verdicts(found, "helpers")["twice"] == "equal"
    assert verdicts(found, "variables") == {"counter": "equal", "table": "equal", "once": "equal"}


@machines
def test_inlined_helper(tmp_path: Path, machine: str) -> None:
    """An inlined function changes the one that it was inlined into."""
    assert unequal(built(tmp_path, machine, "INLINED=6")) == {"xen_extra_version": "changed"}


@machines
def test_another_string(tmp_path: Path, machine: str) -> None:
    """The bytes are equal; the reference leads to different content."""
    found = built(tmp_path, machine, 'MESSAGE="helper; %d\\n"')
    assert unequal(found) == {"xen_extra_version": "changed"}
    [function] = found["functions"]
    assert function["why"]["what"] == "target"
    assert function["why"]["old"] == '"helper: %d\n"'
    assert function["why"]["new"] == '"helper; %d\n"'


@machines
def test_first_value(tmp_path: Path, machine: str) -> None:
    assert unequal(built(tmp_path, machine, "FIRST=7")) == {"table": "changed"}


@machines
def test_strings_merged_otherwise(tmp_path: Path, machine: str) -> None:
    """Another string ends like ours: the linker keeps only one of them."""
    old = make(tmp_path, "old", machine=machine)
    more = 'int told(void); int told(void) { return printk("the helper: %d\\n") + printk("thirty-three"); }'
    found = compare(old, make(tmp_path, "new", machine=machine, more=more))
    assert unequal(found) == {"told": "new"}


@machines
def test_replaced_by_one_alone(tmp_path: Path, machine: str) -> None:
    one, two = make(tmp_path, "one", machine=machine), make(tmp_path, "two", "TWO", machine=machine)
    assert unequal(compare(one, two)) == {"xen_changeset": "new"}
    assert unequal(compare(two, one)) == {"xen_changeset": "gone"}
    said = lpmangle("compare", two, one).stdout
    assert "xen_changeset  replaced only by OLD: after replace, the hypervisor's own runs again" in said
    assert "1 function the hypervisor's own again" in said.splitlines()[0]


@machines
def test_state(tmp_path: Path, machine: str) -> None:
    """Variables of both start anew; a hook may copy them. `check` says the same."""
    old, new = make(tmp_path, "old", machine=machine), make(tmp_path, "new", "FACTOR=9", machine=machine)
    lpmangle(old, new)
    found = compare(old, new)
    lost = {one["name"].partition("#")[2].partition(".")[0]: one["size"] for one in found["lost_state"]["variables"]}
    assert lost == {"counter": 4, "table": 16, "once": 4}
    assert found["lost_state"]["hooks"] == []
    assert found["replaces"]
    [warning] = [one for one in found["check"]["findings"] if one["rule"] == "state-reset"]
    assert "x86_emulate.c#counter (4 bytes)" in warning["detail"]
    said = lpmangle("compare", old, new).stdout
    assert f"state that is lost: {warning['meaning']}\n" in said
    checked = json.loads(lpmangle("check", "--json", "--loaded", old, new).stdout)["payloads"][0]
    assert [one for one in checked["findings"] if one["rule"] == "state-reset"] == [warning]

    carrying = make(tmp_path, "carrying", "CARRIES", machine=machine)
    lpmangle(carrying)
    assert compare(old, carrying)["lost_state"]["hooks"] == [".livepatch.hooks.load"]
    assert "  unless the load hook of NEW carries them over\n" in lpmangle("compare", old, carrying).stdout
    assert "; unless its load hook carries them over" in lpmangle("check", "--loaded", old, carrying).stdout


def test_state_of_a_stacked_payload_stays(tmp_path: Path) -> None:
    """Nothing starts anew where nothing is replaced."""
    old = make(tmp_path, "old")
    sources = [Source(CODE, file="x86_emulate.c", defines=("FIRST=3", "FACTOR=9"))]
    new = build_payload(tmp_path / "new.livepatch", sources, depends=build_id(old), xen_depends=XEN)
    lpmangle(old, new)
    found = compare(old, new)
    assert not found["replaces"]
    assert not [one for one in found["check"]["findings"] if one["rule"] == "state-reset"]
    assert found["lost_state"]["variables"] == []


@pytest.mark.parametrize("which", ["neither", "old", "new", "both"])
def test_mangled_or_not(tmp_path: Path, which: str) -> None:
    """Original names decide, with or without a manifest."""
    old, new = make(tmp_path, "old"), make(tmp_path, "new", "FACTOR=9")
    for path in {"neither": (), "old": (old,), "new": (new,), "both": (old, new)}[which]:
        lpmangle("--scope", "new", path)
        Path(f"{path}.manifest.json").unlink()
    found = compare(old, new)
    assert unequal(found) == {"helper": "changed"}
    assert found["check"]["verdict"] == ("refused" if which == "neither" else "accepted")


def test_names_that_only_a_manifest_tells(tmp_path: Path) -> None:
    """From a template without {symbol}; without a manifest the output says that it does not know."""
    old, new = make(tmp_path, "old"), make(tmp_path, "new", "FACTOR=9")
    lpmangle("--template", "{suffix}_{name}", new)
    assert unequal(compare(old, new)) == {"helper": "changed"}
    Path(f"{new}.manifest.json").unlink()
    assert "helper" in unequal(compare(old, new))
    assert "NEW  is mangled, and its original names are not known" in lpmangle("compare", old, new).stdout


def test_plt_and_section_symbols(tmp_path: Path) -> None:
    """For Xen, PLT32 and PC32 are the same; so is a place by its own symbol or by its section's."""
    code = """\
    #include "livepatch.h"
    #ifdef GLOBALLY
    #define VISIBLE(name) ".globl " name "\\n.hidden " name "\\n"
    #define CALL "call printk"
    #else
    #define VISIBLE(name)
    #define CALL ".byte 0xe8\\n.reloc ., R_X86_64_PC32, printk - 4\\n.long 0"
    #endif
    asm(".data\\n" VISIBLE("state") ".type state, %object\\n.size state, 8\\n.zero 8\\nstate: .quad 5\\n.text\\n"
        ".type xen_extra_version, %function\\n.globl xen_extra_version\\n.hidden xen_extra_version\\n"
        "xen_extra_version: incl state(%rip)\\nmovl $7, state+4(%rip)\\n" CALL "\\nret\\n"
        ".size xen_extra_version, . - xen_extra_version\\n");
    const char *xen_extra_version(void);
    OVERRIDE(xen_extra_version);
    """
    old, new = (make(tmp_path, name, *defines, code=code) for name, *defines in (("old",), ("new", "GLOBALLY")))
    assert "R_X86_64_PC32" in run("readelf", "-rW", old)
    assert "PLT32" in run("readelf", "-rW", new)
    shutil.copy(new, tmp_path / "renamed.livepatch")
    run("objcopy", "--redefine-sym=state=x86_emulate.c#state", tmp_path / "renamed.livepatch")
    found = compare(old, tmp_path / "renamed.livepatch")
    assert unequal(found) == {}, found


def test_two_compilers_in_one_line(corpus: dict[str, Item]) -> None:
    old, new = corpus["x86_64-gcc-ld"].path, corpus["x86_64-clang-ld"].path
    said = lpmangle("compare", old, new).stdout
    assert said.count("have changed code: another compiler, or other options?") == 1
    assert "made with  GCC: " in said


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_two_linkers_and_debug_information(corpus: dict[str, Item], machine: str) -> None:
    """The same code, laid out by another linker, and with debug information: nothing of it differs."""
    for other in (f"{machine}-gcc-lld", f"{machine}-gcc-ld-g"):
        found = compare(corpus[f"{machine}-gcc-ld"].path, corpus[other].path)
        assert unequal(found) == {}, other


def test_chain_of_five(tmp_path: Path) -> None:
    """The lab's cumulative payloads: of each pair one string differs, and one variable starts anew."""
    code = (LAB / "extra.c").read_text()
    chain = [make(tmp_path, f"five{n}", f'VERSION="-five{n}"', code=code) for n in range(5)]
    lpmangle(*chain)
    for old, new in pairwise(chain):
        found = compare(old, new)
        assert unequal(found) == {"xen_extra_version": "changed"}
        assert found["functions"][0]["why"]["old"] == f'"-{old.stem}"'
        assert [one["name"] for one in found["lost_state"]["variables"]] == ["x86_emulate.c#get_fpu_calls"]
        assert found["replaces"]
        assert found["console"][-1] == f"livepatch: {new.stem} finished REPLACE with rc=0"


def test_signed_and_written_anew(tmp_path: Path) -> None:
    """A payload is equal to itself after objcopy and a signer."""
    old = make(tmp_path, "old")
    lpmangle("--embed", old)
    new = Path(shutil.copy(old, tmp_path / "new.livepatch"))
    run("objcopy", "--set-section-flags", ".bss=alloc", new)
    with new.open("ab") as stream:
        stream.write(b"SIGNATURE\n")
    assert unequal(compare(old, new)) == {}


def test_special_sections(tmp_path: Path) -> None:
    """An entry that is new, one that is gone; their targets are identified by name."""
    code = """\
    #include "livepatch.h"
    #define BUG(what) "1: ud2\\n.pushsection .bug_frames.0, \\"a\\"\\n.long 1b - ., " #what "\\n.popsection\\n"
    LOCAL int one(int value) { asm volatile(BUG(1) ::); return value; }
    #ifdef MORE
    LOCAL int two(int value) { asm volatile(BUG(2) ::); return value; }
    #else
    LOCAL int two(int value) { asm volatile("nop" ::); return value; }
    #endif
    const char *xen_extra_version(void) { return one(two(1)) ? "x" : "y"; }
    OVERRIDE(xen_extra_version);
    """
    old, new = make(tmp_path, "old", code=code), make(tmp_path, "new", "MORE", code=code)
    found = compare(old, new)
    assert found["special_sections"] == [{"section": ".bug_frames.0", "both": 1, "gone": 0, "new": 1}]
    assert ".bug_frames.0  1 new, 0 gone, 1 in both" in lpmangle("compare", old, new).stdout


def test_exit_code(tmp_path: Path) -> None:
    old, new = make(tmp_path, "old"), make(tmp_path, "new", "FACTOR=9")
    lpmangle("compare", "--exit-code", old, old)
    lpmangle("compare", old, new)
    lpmangle("compare", "--exit-code", old, new, code=1)
    lpmangle("compare", "--exit-code", old, tmp_path / "gone", code=2)
    (tmp_path / "text").write_text("no elf\n")
    done = lpmangle("compare", "--exit-code", old, tmp_path / "text", code=3)
    assert done.stderr == f"lpmangle: {tmp_path / 'text'}: not an ELF file\n"


def test_another_machine(tmp_path: Path) -> None:
    old, new = make(tmp_path, "old"), make(tmp_path, "new", machine="aarch64")
    said = lpmangle("compare", old, new).stdout
    assert "machine    x86_64 -> aarch64" in said or "machine  x86_64 -> aarch64" in said
    assert "Xen refuses NEW" in said


def test_globals_that_are_gone(tmp_path: Path) -> None:
    more = "__attribute__((noipa)) int frame_begin(int type); int frame_begin(int type) { return type & 7; }"
    old, new = make(tmp_path, "old", more=more), make(tmp_path, "new")
    lpmangle("--scope", "new", old)
    lpmangle("--scope", "new", new)
    assert compare(old, new)["globals_gone"] == ["frame_begin"]
    assert "GLOBAL names that are gone; a payload on top of OLD may use them" in lpmangle("compare", old, new).stdout


def test_with_the_hypervisor(tmp_path: Path) -> None:
    """--xen: everything is checked."""
    table = tmp_path / "xensyms"
    table.write_text("ffff82d040200000 T xen_extra_version\nffff82d040201000 T printk\n")
    old, new = make(tmp_path, "old"), make(tmp_path, "new", "FACTOR=9")
    found = compare("--xen", table, "--xen-version", "4.17", old, new)
    assert found["console"] == ["livepatch: new: duplicate new symbol: x86_emulate.c#helper"]
    assert found["xen_version"].startswith("4.17")
    first = lpmangle("compare", "--xen", table, old, new).stdout.splitlines()[0]
    assert first.endswith("; Xen refuses NEW")


def test_examples_on_a_page(tmp_path: Path) -> None:
    for name in ("617712b", "fbab204"):
        shutil.copy(EXAMPLES / f"{name}.livepatch", tmp_path)
    lpmangle("617712b.livepatch", "fbab204.livepatch", cwd=tmp_path)
    lines = lpmangle("compare", "617712b.livepatch", "fbab204.livepatch", cwd=tmp_path).stdout.splitlines()
    assert len(lines) < 40
    assert lines[0].startswith("617712b.livepatch -> fbab204.livepatch: 2 functions with changed code; ")


def test_address_that_the_assembler_knows(tmp_path: Path) -> None:
    """At the same distance is another function: the bytes are equal, and there is no relocation."""
    code = """\
    #include "livepatch.h"
    asm(".text\\n.type xen_extra_version, %function\\n.globl xen_extra_version\\n.hidden xen_extra_version\\n"
        "xen_extra_version: lea " FIRST "(%rip), %rax\\nmov $7, %edi\\njmp *%rax\\n"
        ".size xen_extra_version, . - xen_extra_version\\n.balign 16\\n"
        ".type " FIRST ", %function\\n" FIRST ": nop\\nret\\n.size " FIRST ", 2\\n.balign 16\\n"
        ".type " SECOND ", %function\\n" SECOND ": xor %eax, %eax\\nret\\n.size " SECOND ", 3\\n");
    const char *xen_extra_version(void);
    OVERRIDE(xen_extra_version);
    """
    names = ('"one"', '"two"')
    old = make(tmp_path, "old", f"FIRST={names[0]}", f"SECOND={names[1]}", code=code)
    new = make(tmp_path, "new", f"FIRST={names[1]}", f"SECOND={names[0]}", code=code)
    assert run("objdump", "-dr", old).count("R_X86_64") == 0
    found = compare(old, new)
    assert verdicts(found, "functions") == {"xen_extra_version": "changed"}
    why = found["functions"][0]["why"]
    assert (why["what"], why["old"], why["new"]) == ("target", "x86_emulate.c#one", "x86_emulate.c#two")


def test_tangled_data_is_never_equal(tmp_path: Path) -> None:
    """Thousands of constants on top of each other: what is too much to read counts as changed."""
    relocations = rela(".rodata", [(8 * at, 1 + at, 1, 0) for at in range(2000)])
    sections = [TEXT, Sec(".rodata", bytes(60_000)), relocations, HOOK, build_id_section(b"\x01" * 20)]
    symbols = [Sym(b"c%d" % at, ".rodata", type=1, size=60_000) for at in range(2000)]
    path = tmp_path / "p.livepatch"
    path.write_bytes(build(sections, symbols).data)
    found = compare(path, path)
    assert "changed" in verdicts(found, "constants").values()
    assert {one["why"]["what"] for one in found["constants"] if one["why"]} <= {"unknown", "target"}

"""What takes the hypervisor down, and what it says then."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from commands import lpmangle
from livepatch import Source, build_id
from toolchain import run as tool

from lab.boot import Result, boot
from lab.labs import Lab
from lab.scenario import ROOT, Scenario, Shared, scenario, scenarios_of, x86_only
from lab.stack import NOT_ON_ARM, Stack

pytestmark = pytest.mark.xen

PAYLOADS = Path(__file__).parent / "payloads"
DATA = ROOT / "tests" / "data" / "crash"


def gdb(lab: Lab, core: Path, payload: Path, text: int, address: int) -> str:
    """What gdb says to an address in the dead hypervisor's memory, with the payload's .text at `text`."""
    commands = [f"add-symbol-file {payload} {text:#x}", f"info symbol {address:#x}", f"x/i {address:#x}"]
    words = [word for command in commands for word in ("-ex", command)]
    return tool("gdb", "-nx", "-batch", *words, str(lab.xen_syms), str(core), cwd=core.parent)


@pytest.mark.one_lab
def test_crash(lab: Lab, tmp_path: Path) -> None:
    """Xen's register dump and call trace name the mangled symbols, whole; so does gdb, in the machine's memory.

    It has a boot of its own, whose memory becomes a core file.
    With LPMANGLE_GOLDEN=1 console log, payload and manifest become the committed tests/data/crash/.
    """
    xen = Scenario("crash", lab, tmp_path)
    source = Source((PAYLOADS / "crash.c").read_text(), plain=("lp_helper",))
    payload = xen.mangle(xen.build("crash", source))
    xen.load(payload)
    xen.run("cat /sys/hypervisor/version/extra")
    core = tmp_path / "core"
    run = boot(lab, [xen.job()], core=core if lab.machine.x86 else None)

    load, fault, _ = run.results["crash"]
    assert load.code == 0, run.console
    assert fault.code == -1, run.console  # dom0 did not live to see it
    suffix = build_id(payload).hex()
    trace = [line for line in fault.console.splitlines() if "[crash]" in line]
    program_counter = "RIP:    e008:[<" if lab.machine.x86 else "PC:     "
    assert any(program_counter in line and f"x86_emulate.c#_get_fpu_{suffix}+0x" in line for line in trace), fault
    assert any(f"] S lp_helper_{suffix}+0x" in line or f" lp_helper_{suffix}+0x" in line for line in trace), fault
    assert "Panic on CPU 0:" in fault.console
    if lab.machine.x86:  # the other machines' gdb is not this one's
        _check_with_gdb(lab, core, payload, fault)
        core.unlink()

    if os.environ.get("LPMANGLE_GOLDEN") == "1":
        (DATA / "crash.log").write_text(fault.console.rstrip() + "\n")
        (DATA / "crash.livepatch").write_bytes(payload.read_bytes())
        manifest = Path(f"{payload}.manifest.json")
        (DATA / "crash.livepatch.manifest.json").write_bytes(manifest.read_bytes())


def _check_with_gdb(lab: Lab, core: Path, payload: Path, fault: Result) -> None:
    """gdb names the function, mangled, and by the original names where the payload's copy has them."""
    suffix, folder = build_id(payload).hex(), core.parent
    rip = re.search(r"RIP: .*<(\w+)>\] \S+\+0x(\w+)/", fault.console)
    assert rip
    address, offset = int(rip[1], 16), int(rip[2], 16)
    said = gdb(lab, core, payload, address - offset, address)
    assert f"x86_emulate.c#_get_fpu_{suffix} + {offset} in section .text" in said
    assert re.search(rf"{address:#x} <x86_emulate.c#_get_fpu_{suffix}\+{offset}>:\s+ud2", said)
    (folder / "names").write_text(lpmangle("query", "*", "-m", payload, "--format", "objcopy").stdout)
    tool("objcopy", "@names", payload, "debug.livepatch", cwd=folder)
    said = gdb(lab, core, folder / "debug.livepatch", address - offset, address)
    assert f"x86_emulate.c#_get_fpu + {offset} in section .text" in said


@scenario
def crash_in_a_stack(xen: Scenario) -> None:
    """The trace leads from the upper payload into the lower one; with both manifests it has the original names."""
    lower = xen.build("lower", Source((PAYLOADS / "crash.c").read_text(), plain=("lp_helper",)))
    upper = xen.build("upper", Source((PAYLOADS / "crash-above.c").read_text(), new_file=True), depends=build_id(lower))
    below = xen.mangle(lower)
    above = xen.mangle(upper, "--against", below)
    xen.load(below)
    xen.load(above)
    names = [
        (f"x86_emulate.c#_get_fpu_{build_id(lower).hex()}+0x", "x86_emulate.c#_get_fpu+0x", "[lower]"),
        (f"lp_helper_{build_id(lower).hex()}+0x", "lp_helper+0x", "[lower]"),
        (f"lp_above_{build_id(upper).hex()}+0x", "lp_above+0x", "[upper]"),
    ]
    if xen.lab.machine.name == "arm32":  # its trace is the program counter and the link register
        names.pop()

    def check(console: str) -> str:
        retraced = xen.retrace(console, below, above)
        for new, original, payload in names:
            if not any(new in line and payload in line for line in console.splitlines()):
                return f"no line has {new} and {payload}"
            if not any(f" {original}" in line and payload in line for line in retraced.splitlines()):
                return f"retrace does not give {original}: {retraced}"
        return next((f"retrace leaves {new}" for new, _, _ in names if new in retraced), "")

    xen.dies("cat /sys/hypervisor/version/extra", check)


@scenario
def init_memory(xen: Scenario) -> None:
    """What `check` warns of: after boot init memory is gone, and who touches it dies."""
    payload = xen.build("init", Source((PAYLOADS / "init.c").read_text(), file="init-memory.c"))
    said = xen.lpmangle("check", "--xen", xen.xen_syms, payload, says="[init-symbol]")
    assert "_sinittext" in said
    # 4.14 has no names yet for a payload whose hook runs before its functions are applied.
    words = ["Panic on CPU 0:"] if xen.lab.xen == "4.14" else ["Panic on CPU 0:", "init-memory.c#look"]
    xen.dies(f"xen-livepatch load {xen.send(payload)}", lambda console: _lacks(console, words))


def _lacks(console: str, words: list[str]) -> str:
    return next((f"Xen did not say {word!r}" for word in words if word not in console), "")


@x86_only(NOT_ON_ARM)
def lower_payload_unloaded_first(xen: Scenario) -> None:
    """Why docs/stacked.md says to unload from the top: the upper payload writes to where the lower one was."""
    stack = Stack(xen)
    a = stack.build("a")
    lower = xen.mangle(a)
    upper = xen.mangle(stack.build("upper", on=a, file="by-name"), "--against", lower)
    xen.load(lower)
    xen.upload(upper)
    xen.tool("revert a")
    xen.tool("unload a")
    xen.upload(xen.mangle(stack.build("other", file="a"), "--scope", "new"))  # it gets the memory that a had
    xen.load(lower)
    xen.tool("apply upper")
    stack.shows("-a by a", "a")  # it overrides nothing
    xen.tool("unload other")
    xen.dies("xen-livepatch revert upper", lambda console: _lacks(console, ["FATAL PAGE FAULT"]))


@pytest.mark.parametrize("name", scenarios_of(__name__))
def test_scenario(shared: Shared, name: str) -> None:
    shared.check(name)

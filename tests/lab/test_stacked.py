"""Payloads that are put on others and refer to their symbols: the answers of a real Xen, and of `lpmangle check`
before.

Each scenario writes down its steps; all run in one boot (see conftest.py).
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from livepatch import Source, build_id

from lab.scenario import ROOT, Scenario, Shared, scenario, scenarios_of, x86_only
from lab.stack import NOT_ON_ARM, Stack

pytestmark = pytest.mark.xen


@scenario
def stack_as_built(xen: Scenario) -> None:
    """Without lpmangle, each finds what it needs in those below: the control."""
    a, b, *others = four(Stack(xen))
    up_and_down(Stack(xen), [a, b, *others])
    stack = Stack(xen)  # b's own names may be others
    stack.load(a, xen.mangle(b))
    stack.shows("-b by a", "b1")


def four(stack: Stack) -> list[Path]:
    """a to d, each built on the one before."""
    payloads = [stack.build("a")]
    for name in "bcd":
        payloads.append(stack.build(name, on=payloads[-1]))
    return payloads


def up_and_down(stack: Stack, payloads: list[Path]) -> None:
    """Loads one on top of the other, removes them again, and checks at each step whose code runs."""
    effects = [("-a by a", "a"), ("-b by a", "b1"), ("-c by a", "cb"), ("-d by a", "dD")]
    for payload, effect in zip(payloads, effects, strict=True):
        stack.load(payload)
        stack.shows(*effect)
    stack.literals()
    stack.xen.listed("a", "b", "c", "d")
    for name in "abc":
        stack.xen.tool(f"revert {name}", error=errno.EBUSY)
    for payload, effect in zip(payloads[:0:-1], effects[-2::-1], strict=True):
        stack.unload(payload)
        stack.shows(*effect)
    stack.unload(payloads[0])


@scenario
def stack_not_against(xen: Scenario) -> None:
    """After a is mangled, Xen refuses payloads that refer to it: by an undefined symbol, by a function's name."""
    stack = Stack(xen)
    a = stack.build("a")
    b, by_name = stack.build("b", on=a), stack.build("by-name", on=a)
    stack.load(xen.mangle(a))
    unknown = "Unknown symbol: x86_emulate.c#tell"
    stack.upload(b, error=errno.ENOENT, says=unknown)
    stack.upload(xen.mangle(b), error=errno.ENOENT, says=unknown)
    stack.upload(by_name, error=errno.ENOENT, says="Could not resolve old address of x86_emulate.c#who")
    xen.listed("a")


def two(xen: Scenario, *defines: str, scope: str = "local") -> None:
    """a and b, both mangled, b against a; up and down."""
    stack = Stack(xen)
    a = stack.build("a")
    b = stack.build("b", *defines, on=a)
    lower = xen.mangle(a, "--scope", scope)
    upper = xen.mangle(b, "--against", lower)
    stack.restores(upper, b)
    stack.load(lower, upper)
    stack.shows("-b by a", "b1")
    stack.literals()
    xen.listed("a", "b")
    xen.tool("revert a", error=errno.EBUSY)
    stack.unload(upper)
    stack.shows("-a by a", "a")
    stack.load(upper)
    stack.shows("-b by a", "b1")
    stack.unload(upper, lower)
    xen.listed()


@scenario
def stack_of_two(xen: Scenario) -> None:
    """The name is a literal in a section of merged strings, shared with other users."""
    two(xen)


@scenario
def stack_of_two_strings(xen: Scenario) -> None:
    """The name is in .livepatch.strings, at the end of another string."""
    two(xen, "STRINGS")


@scenario
def stack_of_two_globals(xen: Scenario) -> None:
    """a's new GLOBAL is renamed, too."""
    two(xen, scope="new")


@x86_only(NOT_ON_ARM)
def stack_by_name_alone(xen: Scenario) -> None:
    """b has no undefined symbol: only a function to override."""
    stack = Stack(xen)
    a = stack.build("a")
    by_name = stack.build("by-name", on=a)
    lower = xen.mangle(a, "--suffix", "name")
    upper = xen.mangle(by_name, "--against", lower)
    assert b"x86_emulate.c#who_a\0" in upper.read_bytes()
    stack.restores(upper, by_name)
    stack.load(lower, upper)
    stack.shows("-n by a", "n")
    stack.unload(upper)
    stack.shows("-a by a", "a")


@scenario
def stack_of_four(xen: Scenario) -> None:
    """Each overrides what the one below did; d uses names of a, b and c, each renamed by its own payload."""
    stack = Stack(xen)
    mangled: list[Path] = []
    for payload in four(stack):
        against = [word for below in mangled for word in ("--against", below)]
        mangled.append(xen.mangle(payload, "--scope", "new", *against))
        stack.restores(mangled[-1], payload)
    up_and_down(stack, mangled)


@scenario
def stack_from_a_catalog(xen: Scenario) -> None:
    """In a catalog and in a folder, the chain of depends is followed down, with the same bytes as a result."""
    stack = Stack(xen)
    catalog = xen.folder / "shipped.db"
    first, *others = four(stack)
    mangled = [xen.mangle(first)]
    for payload in others:
        xen.lpmangle("catalog", "add", catalog, mangled[-1])
        by_hand = [word for path in mangled for word in ("--against", path)]
        wanted = xen.mangle(payload, *by_hand, to="by-hand").read_bytes()
        assert xen.mangle(payload, "--against", mangled[0].parent, to="by-folder").read_bytes() == wanted
        mangled.append(xen.mangle(payload, "--against", catalog))
        assert mangled[-1].read_bytes() == wanted
    stack.load(*mangled)
    stack.shows("-d by a", "dD")


@scenario
def stack_replaced(xen: Scenario) -> None:
    """The stack goes, and one cumulative payload with the same names comes, in one step."""
    stack = Stack(xen)
    a = stack.build("a")
    b = stack.build("b", on=a)
    together = stack.build("all", file="a")
    lower = xen.mangle(a)
    upper = xen.mangle(b, "--against", lower)
    stack.load(lower, upper)
    stack.shows("-b by a", "b1")
    duplicate = "duplicate new symbol: "
    stack.upload(together, error=errno.EEXIST, says=f"{duplicate}lp_level")
    stack.upload(xen.mangle(together, to="local"), error=errno.EEXIST, says=f"{duplicate}lp_level")
    stack.replace(xen.mangle(together, "--scope", "new"))
    stack.shows("-a by all", "all")
    xen.listed("a CHECKED", "b CHECKED", "all")
    xen.tool("unload b")
    xen.tool("unload a")
    stack.shows("-a by all", "all")


@x86_only(NOT_ON_ARM)
def stack_of_the_examples(xen: Scenario) -> None:
    """The example of docs/stacked.md: 8d4a1c7 on 617712b, then fbab204 replaces both."""
    stack = Stack(xen)

    def example(name: str, *foreign: str, on: Path | None = None) -> Path:
        code = (ROOT / "examples" / f"{name}.c").read_text()
        made = Source(code, plain=("lp_helper",), foreign=foreign)
        return xen.build(Path(name).name, made, depends=build_id(on) if on else None)

    first = example("617712b")
    second = example("stacked/8d4a1c7", "x86_emulate.c#get_fpu_calls", on=first)
    lower = xen.mangle(first)
    upper = xen.mangle(second, "--against", lower)
    stack.restores(upper, second)
    stack.load(lower)
    xen.extra("-617712b.1")
    stack.upload(second, error=errno.ENOENT, says="Unknown symbol: x86_emulate.c#get_fpu_calls")
    stack.load(upper)
    for count in "24":
        xen.extra(f"-8d4a1c7.{count}")
    stack.unload(upper)
    xen.extra("-617712b.6")
    stack.load(upper)
    stack.replace(xen.mangle(example("fbab204")))
    xen.extra("-fbab204.2")
    xen.listed("617712b CHECKED", "8d4a1c7 CHECKED", "fbab204")


@scenario
def stack_embedded(xen: Scenario) -> None:
    """Manifests inside the payloads are enough, for payloads on top and for restoring."""
    stack = Stack(xen)
    a = stack.build("a")
    b = stack.build("b", on=a)
    lower = xen.mangle(a, "--embed")
    Path(f"{lower}.manifest.json").unlink()
    upper = xen.mangle(b, "--embed", "--against", lower)
    Path(f"{upper}.manifest.json").unlink()
    stack.restores(upper, b)
    stack.load(lower, upper)
    stack.shows("-b by a", "b1")
    stack.literals()


@scenario
def stack_and_the_hypervisor(xen: Scenario) -> None:
    """The loader looks into the hypervisor first: its names stay with --xen, without it the manifest decides."""
    stack = Stack(xen)
    own = stack.build("own", file="own-version")
    user = stack.build("user", file="version", on=own)
    stack.upload(own, error=errno.EEXIST, says="duplicate new symbol: xen_major_version")
    lower = xen.mangle(own, "--scope", "new")
    known = xen.mangle(user, "--against", lower, "--xen", xen.xen_syms, to="known")
    guessed = xen.mangle(user, "--against", lower, to="guessed")
    stack.restores(known, user)
    stack.restores(guessed, user)
    stack.load(lower)
    xen.run("cat /sys/hypervisor/version/minor >minor")
    xen.extra("-own 9.9")
    stack.load(known)
    stack.shows("-own 9.9", "4")
    xen.run("cat /sys/hypervisor/version/minor", output="7\n")
    stack.unload(known)
    if xen.lab.machine.x86:  # it overrides own's
        stack.load(guessed)
        stack.shows("-own 9.7", "9")
    xen.run("cmp minor /sys/hypervisor/version/minor")


@scenario
def stack_rebuilt(xen: Scenario) -> None:
    """Another build of a has another build-id: what was built for the first one is refused, in every form."""
    stack = Stack(xen)
    first, second = stack.build("first", file="a"), stack.build("second", file="a")
    b = stack.build("b", on=first)
    upper = xen.mangle(b, "--against", xen.mangle(first))
    below = xen.mangle(second)
    xen.lpmangle("--against", below, "-o", "never", b, code=3, says=build_id(first).hex())
    xen.lpmangle("--against", below, "-o", "never", b, code=3, says=build_id(second).hex())
    assert not (xen.folder / "never").exists()
    stack.load(below)
    wanted = f"Unknown symbol: x86_emulate.c#tell_{build_id(first).hex()}"
    stack.upload(upper, error=errno.ENOENT, says=wanted)
    stack.retraced("Unknown symbol: x86_emulate.c#tell\n", upper)
    stack.unload(below)

    # With equal suffixes the names are found, and the build-ids are compared.
    below, lower = (xen.mangle(payload, "--suffix", "text:v1", to="v1") for payload in (second, first))
    upper = xen.mangle(b, "--suffix", "text:v1", "--against", lower, to="v1")
    stack.load(below)
    stack.not_applied(upper, error=errno.EINVAL, says="check against second build-id failed")


@x86_only(NOT_ON_ARM)
def stack_out_of_order(xen: Scenario) -> None:
    """b needs a to be loaded at its upload, and to be the last one applied when b is applied."""
    stack = Stack(xen)
    a = stack.build("a")
    b, also_on_a = stack.build("b", on=a), stack.build("other", on=a, file="by-name")
    lower = xen.mangle(a)
    upper, other = (xen.mangle(payload, "--against", lower) for payload in (b, also_on_a))
    stack.upload(upper, error=errno.ENOENT, says=f"Unknown symbol: x86_emulate.c#tell_{build_id(a).hex()}")
    stack.load(lower, upper)
    stack.not_applied(other, error=errno.EINVAL, says="check against b build-id failed")

    # A payload with data is applied only once: after revert, it must be unloaded.
    xen.tool("revert b")
    again = "(XEN) livepatch: b: can't revert as payload has .data. Please unload\n"
    xen.tool("apply b", error=errno.EINVAL, console=again)
    xen.tool("unload b")
    stack.loaded.pop()

    # A stacked payload cannot replace. Xen unloads a although `other`, which refers to it, is loaded.
    wrong = "(XEN) livepatch: other: check against hypervisor build-id failed\n"
    stack.upload(other)
    xen.tool("replace other", error=errno.EINVAL, console=wrong)
    stack.shows("-a by a", "a")
    xen.tool("apply other")
    xen.tool("revert other")
    xen.tool("revert a")
    xen.tool("apply other", error=errno.EINVAL, console=wrong)
    xen.tool("unload a")
    xen.tool("apply other", error=errno.EINVAL, console=wrong)
    xen.listed("other CHECKED")


@scenario
def stack_renamed_twice(xen: Scenario) -> None:
    """A name that two payloads below have renamed is that of the one loaded first, as without lpmangle; it is said."""
    stack = Stack(xen)
    a = stack.build("a")
    again = stack.build("t", on=a, file="a")
    b = stack.build("b", on=again)
    lower, middle = (xen.mangle(payload, "--scope", "new") for payload in (a, again))
    against = ("--against", lower, "--against", middle)
    upper = xen.mangle(b, *against, says="x86_emulate.c#tell")
    stack.load(lower)
    stack.upload(again, error=0)
    xen.tool("unload t")
    stack.load(middle)
    stack.shows("-t by t", "t")
    stack.load(upper)
    stack.shows("-b by a", "t")


@pytest.mark.parametrize("name", scenarios_of(__name__))
def test_scenario(shared: Shared, name: str) -> None:
    shared.check(name)

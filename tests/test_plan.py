"""plan.py: every symbol's new name or reason; clashes."""

import struct
from dataclasses import dataclass

import pytest
from corpus import Item
from elfbuild import ABS, GLOBAL, TEXT, WEAK, Sec, Sym, build, build_id, plain

from lpmangle import elf
from lpmangle.errors import PlanError
from lpmangle.mangle import mark
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.plan import REASONS, Options, Outcome, Plan
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind

SUF = Options(suffix="text:SUF")


def plan_of(symbols: list[Sym], options: Options = SUF, sections: tuple[Sec, ...] = (TEXT,)) -> Plan:
    return make_plan(Payload(elf.parse(build(list(sections), symbols).data)), options, "stem")


def news(plan: Plan) -> dict[int, str]:
    return {index: name.decode() for index, name in plan.renames.items()}


def test_each_symbol_has_an_outcome_with_words() -> None:
    view = elf.parse(plain().data)
    plan = make_plan(Payload(view), Options(suffix="text:SUF"), "stem")
    assert list(plan.outcomes) == [
        Kind.NULL, Kind.ABSOLUTE, Kind.UNNAMED, Outcome.RENAMED, Kind.OVERRIDING, Kind.UNDEFINED, Outcome.RENAMED,
        Outcome.GLOBAL,
    ]  # fmt: skip
    assert news(plan) == {3: "x86_emulate.c#_get_fpu_SUF", 6: "lp_helper_SUF"}
    every = {*Kind, *Outcome} - {Kind.NEW, Outcome.RENAMED, Outcome.REFERENCE}
    assert set(REASONS) == every
    assert len(set(REASONS.values())) == len(every)


def test_scope() -> None:
    symbols = [Sym(b"local"), Sym(b"global", bind=GLOBAL), Sym(b"weak", bind=WEAK)]
    assert news(plan_of(symbols)) == {1: "local_SUF"}
    assert plan_of(symbols).indices(Outcome.GLOBAL) == [2, 3]
    assert news(plan_of(symbols, SUF._replace(scope="new"))) == {1: "local_SUF", 2: "global_SUF", 3: "weak_SUF"}


@pytest.mark.parametrize(
    ("only", "keep", "renamed"),
    [
        ((), (), [1, 2, 3]),
        (("_get*",), (), [1]),
        (("x.c#*",), (), [1, 2]),
        ((), ("x.c#_get_fpu",), [2, 3]),
        ((), ("_put_fpu", "lp_*"), [1]),
        (("*fpu",), ("_put*",), [1]),
        (("_GET*",), (), []),
        (("*.c*_get_fpu",), (), [1]),
    ],
)
def test_only_and_keep(only: tuple[str, ...], keep: tuple[str, ...], renamed: list[int]) -> None:
    plan = plan_of([Sym(b"x.c#_get_fpu"), Sym(b"x.c#_put_fpu"), Sym(b"lp_x")], SUF._replace(only=only, keep=keep))
    assert list(plan.renames) == renamed
    assert plan.outcomes.count(Outcome.EXCLUDED) == 3 - len(renamed)


def test_globs_that_fit_nothing_are_known() -> None:
    plan = plan_of([Sym(b"a"), Sym(b"undefined", 0)], SUF._replace(only=("a", "b*"), keep=("undefined",)))
    assert plan.unmatched == ["b*", "undefined"]


def test_group_signature_keeps_its_name() -> None:
    group = Sec(".group", struct.pack("<II", 1, 1), flags=0, type=17, link=".symtab", info=2, entsize=4)
    plan = plan_of([Sym(b"a"), Sym(b"signature"), Sym(b"b")], sections=(TEXT, group))
    assert list(plan.renames) == [1, 3]
    assert plan.indices(Outcome.GROUP_SIGNATURE) == [2]


@pytest.mark.parametrize(
    "other",
    [
        Sym(b"f_SUF", 0),
        Sym(b"f_SUF", ABS),
        Sym(b"f_SUF", bind=GLOBAL),
        Sym(b"f_SUF", ".comment"),
    ],
    ids=["undefined", "absolute", "global", "not loaded"],
)
def test_clash_with_a_symbol_that_keeps_its_name(other: Sym) -> None:
    comment = Sec(".comment", flags=0)
    with pytest.raises(PlanError, match=r"symbols 1 \(f\) and 2 \(f_SUF\) would both be called f_SUF"):
        plan_of([Sym(b"f"), other], sections=(TEXT, comment))


def test_clash_after_126_bytes() -> None:
    """Xen cuts the kept name; what is left is the new name of another symbol."""
    long = b"f" * 122 + b"_SUF"
    kept = Sym(long + b"_and_more", bind=GLOBAL)
    with pytest.raises(PlanError, match="would both be called"):
        plan_of([Sym(b"f" * 122), kept])
    plan_of([Sym(b"f" * 121), kept])


def test_clash_of_two_renamed() -> None:
    symbols = [Sym(b"a.c#fix_check.constprop.0"), Sym(b"b.c#fix_check.constprop.0")]
    assert len(plan_of(symbols).renames) == 2
    with pytest.raises(
        PlanError, match=r"symbols 1 .* and 2 .* would both be called fix_check.constprop.0_SUF"
    ) as caught:
        plan_of(symbols, SUF._replace(template="{name}_{suffix}"))
    assert "default template" in caught.value.hint


def test_equal_originals_stay_equal() -> None:
    """Two files that are new in the patch may both have a static `calls.3`; Xen does not mind, and nor do we."""
    assert news(plan_of([Sym(b"calls.3"), Sym(b"calls.3", value=8)])) == {1: "calls.3_SUF", 2: "calls.3_SUF"}


def test_name_that_is_not_text() -> None:
    symbols = [Sym("grün".encode()), Sym(b"a\xff")]
    with pytest.raises(PlanError, match="symbol 2: its name is not UTF-8"):
        plan_of(symbols)
    assert news(plan_of(symbols, SUF._replace(only=("gr*",)))) == {1: "grün_SUF"}


def test_mangled_in_the_same_way() -> None:
    view = elf.parse(plain().data)
    for options in (SUF, SUF._replace(template="{name}_{suffix}"), SUF._replace(only=("*_get_fpu",), scope="new")):
        done = elf.parse(bytes(apply(view, make_plan(Payload(view), options, "stem"))))
        again = make_plan(Payload(done), options, "stem")
        assert again.already
        assert not again.renames
        assert mark.find(done) == again.mark
    assert mark.find(view) is None


@pytest.mark.parametrize(
    "options",
    [
        Options("text:OTHER"),
        SUF._replace(scope="new"),
        SUF._replace(template="{name}_{suffix}"),
        SUF._replace(only=("*",)),
    ],
)
def test_mangled_in_another_way(options: Options) -> None:
    view = elf.parse(plain().data)
    done = elf.parse(bytes(apply(view, make_plan(Payload(view), SUF, "stem"))))
    with pytest.raises(PlanError, match=r"is mangled already, with --suffix text:SUF --template") as caught:
        make_plan(Payload(done), options, "stem")
    assert "restore" in caught.value.hint


def test_order_and_repetition_of_globs_are_one_way() -> None:
    first = plan_of([Sym(b"a")], SUF._replace(only=("a*", "b*", "a*")))
    assert first.mark == plan_of([Sym(b"a")], SUF._replace(only=("b*", "a*"))).mark


def test_suffix_forms_that_come_to_the_same_are_one_way() -> None:
    view = elf.parse(plain().data)
    plans = [make_plan(Payload(view), Options(suffix), "ab" * 20) for suffix in ("buildid", "buildid:40", "name")]
    assert all(plan.mark.same_way(plans[0].mark) for plan in plans)


def test_names_carry_the_suffix_but_the_mark_is_gone() -> None:
    """objcopy writes a string table of its own, without the mark."""
    sections, own = (TEXT, build_id()), b"ab" * 20
    for options, suffix in ((Options(), own), (Options("buildid:12"), own[:12])):
        plan = plan_of([Sym(b"a.c#f_" + suffix), Sym(b"g_" + suffix)], options, sections)
        assert (plan.already, dict(plan.renames)) == (True, {})
        with pytest.raises(PlanError, match=r"1 of its new symbols carry the suffix ab.* already, 1 do not"):
            plan_of([Sym(b"a.c#f_" + suffix), Sym(b"g")], options, sections)
    for options in (SUF, Options("buildid:12"), Options(template="{name}.{suffix}")):
        with pytest.raises(PlanError, match="is mangled already: names hold its build-id"):
            plan_of([Sym(b"a.c#f_" + own), Sym(b"g_" + own)], options, sections)


@pytest.mark.parametrize("others", [[], [Sym(b"g")]])
def test_names_that_carry_a_suffix_by_hand(others: list[Sym]) -> None:
    """A suffix that is not the build-id may have been given by hand: not ours to say that lpmangle was there."""
    with pytest.raises(PlanError, match="1 of its new symbols carry the suffix SUF already") as caught:
        plan_of([Sym(b"a.c#f_SUF"), *others])
    assert "--keep '*SUF'" in caught.value.hint
    assert plan_of([Sym(b"a.c#f_SUF"), *others], SUF._replace(keep=("*SUF",))).already is False


def test_many_globs_fit_into_the_mark() -> None:
    view = elf.parse(plain().data)
    options = SUF._replace(keep=tuple(f"no_such_symbol_{number:050}" for number in range(200)))
    done = elf.parse(bytes(apply(view, make_plan(Payload(view), options, "stem"))))
    assert make_plan(Payload(done), options, "stem").already
    with pytest.raises(PlanError, match="and 200 globs, sha256"):
        make_plan(Payload(done), options._replace(keep=options.keep[1:]), "stem")


def test_clash_of_names_that_are_no_text() -> None:
    with pytest.raises(PlanError, match=r"would both be called f\\xff_SUF"):
        plan_of([Sym(b"a.c#f\xff"), Sym(b"b.c#f\xff")], SUF._replace(template="{name}_{suffix}"))


@dataclass
class _Count:
    renamed: int = 0


def test_invariants_on_the_corpus(corpus: dict[str, Item]) -> None:
    """Unique unless the originals were equal, at most 126 bytes, the suffix whole, nothing else renamed."""
    count = _Count()
    for item in corpus.values():
        view = elf.parse(item.path.read_bytes())
        payload = Payload(view)
        for scope in ("local", "new"):
            plan = make_plan(payload, Options(scope=scope, suffix="text:" + "5" * 40), "stem")
            originals: dict[bytes, set[bytes]] = {}
            for index, new in plan.renames.items():
                assert payload.kinds[index] == Kind.NEW
                assert len(new) <= 126
                assert new.endswith(b"_" + b"5" * 40)
                originals.setdefault(new, set()).add(view.string(view.symbol(index).st_name))
            assert all(len(names) == 1 for names in originals.values())
            assert Kind.NEW not in plan.outcomes
            count.renamed += len(plan.renames)
    assert count.renamed > 500


def test_buildid_is_the_default() -> None:
    plan = plan_of([Sym(b"f")], Options(), sections=(TEXT, build_id()))
    assert news(plan) == {1: "f_" + "ab" * 20}

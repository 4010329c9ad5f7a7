"""Decisions: every symbol's new name, or why it keeps its name; clashes."""

import struct
from dataclasses import dataclass

import pytest
from corpus import Item
from elfbuild import ABS, ALLOC, GLOBAL, MERGE, TEXT, WEAK, Sec, Sym, build, build_id, plain
from stacked import AARCH64, ARM, X86_64

from lpmangle import elf
from lpmangle.errors import PayloadError, PlanError
from lpmangle.mangle import mark
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import REASONS, Outcome, Plan
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
    constants = [*vars(Kind).items(), *vars(Outcome).items()]
    every = {value for name, value in constants if name.isupper()} - {Kind.NEW, Outcome.RENAMED, Outcome.REFERENCE}
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
    """Xen cuts the kept name; the rest is the new name of another symbol."""
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


def test_clash_with_a_shortened_name() -> None:
    """A name that equals the shortened form of another."""
    (shortened,) = news(plan_of([Sym(b"f" * 200)])).values()
    with pytest.raises(PlanError, match=r"symbols 1 .* and 2 .* would both be called f"):
        plan_of([Sym(b"f" * 200), Sym(shortened.removesuffix("_SUF").encode())])


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
        done = elf.parse(bytes(apply(Payload(view), make_plan(Payload(view), options, "stem"))))
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
    done = elf.parse(bytes(apply(Payload(view), make_plan(Payload(view), SUF, "stem"))))
    with pytest.raises(PlanError, match=r"is already mangled, with --suffix text:SUF --template") as caught:
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
    """objcopy writes a new string table, without the mark."""
    sections, own = (TEXT, build_id()), b"ab" * 20
    for options, suffix in ((Options(), own), (Options("buildid:12"), own[:12])):
        plan = plan_of([Sym(b"a.c#f_" + suffix), Sym(b"g_" + suffix)], options, sections)
        assert (plan.already, dict(plan.renames)) == (True, {})
        with pytest.raises(PlanError, match=r"1 of its 2 new symbols carries the suffix ab.* already, others do not"):
            plan_of([Sym(b"a.c#f_" + suffix), Sym(b"g")], options, sections)
    for options in (SUF, Options("buildid:12"), Options(template="{name}.{suffix}")):
        with pytest.raises(PlanError, match="is already mangled: names hold its build-id"):
            plan_of([Sym(b"a.c#f_" + own), Sym(b"g_" + own)], options, sections)


@pytest.mark.parametrize("others", [[], [Sym(b"g")]])
def test_names_that_end_in_the_suffix_by_chance(others: list[Sym]) -> None:
    """Only a mark, or the build-id, says that lpmangle was there: such a name is renamed like any other."""
    plan = plan_of([Sym(b"a.c#f_SUF"), *others])
    assert not plan.already
    assert plan.renames[1] == b"a.c#f_SUF_SUF"
    assert len(plan.renames) == 1 + len(others)


def test_equal_names_stay_equal() -> None:
    """By name, Xen finds the first of them: if only that were renamed, look-ups would find another one."""
    plan = plan_of([Sym(b"f"), Sym(b"g"), Sym(b"f", bind=GLOBAL), Sym(b"f"), Sym(b"f", 0, bind=GLOBAL)])
    assert dict(plan.renames) == {2: b"g_SUF"}
    assert [plan.outcomes[n] for n in (1, 3, 4)] == [Outcome.TWIN, Outcome.GLOBAL, Outcome.TWIN]
    plan = plan_of([Sym(b"f"), Sym(b"f", bind=GLOBAL)], SUF._replace(scope="new"))
    assert dict(plan.renames) == {1: b"f_SUF", 2: b"f_SUF"}


def test_a_group_signature_keeps_its_twins() -> None:
    group = Sec(".group", struct.pack("<II", 1, 1), flags=0, type=17, link=".symtab", info=1, entsize=4)
    plan = plan_of([Sym(b"f"), Sym(b"f"), Sym(b"g")], sections=(TEXT, group))
    assert plan.outcomes[1:3] == bytes([Outcome.GROUP_SIGNATURE, Outcome.TWIN])
    assert dict(plan.renames) == {3: b"g_SUF"}


def test_names_are_equal_if_their_first_126_bytes_are() -> None:
    long = b"n" * 126
    plan = plan_of([Sym(long + b"1"), Sym(long + b"2", bind=GLOBAL), Sym(long[1:])])
    assert plan.outcomes[1] == Outcome.TWIN
    assert list(plan.renames) == [3]


@pytest.mark.parametrize(
    ("machine", "template", "name"),
    [
        (X86_64, ".L{symbol}_{suffix}", b"s"),
        (X86_64, "{name}_{suffix}", b"a.c#.Lstring"),
        (AARCH64, "$d.{symbol}_{suffix}", b"f"),
        (AARCH64, "$x.{symbol}.{suffix}", b"f"),
        (ARM, "$t.{symbol}.{suffix}", b"f"),
    ],
)
def test_a_new_name_must_be_to_the_loader_what_the_old_one_was(machine: int, template: str, name: bytes) -> None:
    strings = Sec(".rodata.str1.1", b"x\0", ALLOC | MERGE)
    built = build([TEXT, strings], [Sym(name, strings.name)], machine=machine, is_64=machine != ARM)
    options = SUF._replace(template=template)
    with pytest.raises(PlanError, match="which Xen does not register as a symbol"):
        make_plan(Payload(elf.parse(built.data)), options, "stem")
    plain_data = Sec(".rodata", b"x\0", ALLOC)
    kept = build([TEXT, plain_data], [Sym(name, plain_data.name)], machine=X86_64)
    assert make_plan(Payload(elf.parse(kept.data)), options, "stem").renames


def test_relocations_that_xen_ignores() -> None:
    """SHT_CREL: it would not be known which symbols override."""
    crel = Sec(".crel.livepatch.funcs", b"\0" * 8, flags=0, type=0x40000014, link=".symtab")
    with pytest.raises(PayloadError, match=r"section 2 \(\.crel\.livepatch\.funcs\) has relocations of type SHT_CREL"):
        plan_of([Sym(b"f")], sections=(TEXT, crel))


def test_many_globs_fit_into_the_mark() -> None:
    view = elf.parse(plain().data)
    options = SUF._replace(keep=tuple(f"no_such_symbol_{number:050}" for number in range(200)))
    done = elf.parse(bytes(apply(Payload(view), make_plan(Payload(view), options, "stem"))))
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

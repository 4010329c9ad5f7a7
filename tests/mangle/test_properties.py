"""Random symbol tables, and random damage to real payloads, mangled and restored."""

import os
import random
import re
import time

import pytest
from corpus import fixtures
from elfbuild import ABS, ALLOC, COMMON, EXEC, GLOBAL, MERGE, TEXT, WEAK, WRITE, Sec, Sym, build, build_id, funcs, rela
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import limited

from lpmangle import elf
from lpmangle.errors import LpmangleError, PlanError
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.manifest import read as manifest
from lpmangle.manifest.undo import undo
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind

SECTIONS = [
    TEXT,
    build_id(),
    Sec(".rodata.str1.1", flags=ALLOC | MERGE),
    Sec(".data", flags=ALLOC | WRITE),
    Sec(".comment", flags=0),
    Sec(".text.unlikely", flags=ALLOC | EXEC),
]
NAMES = st.one_of(
    st.sampled_from([b"", b".LC0", b"$x", b"x.c#f", b"f", b"f_SUF", b"x.c#f_SUF", b"calls.3"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=150).map(str.encode),
    st.binary(max_size=10).map(lambda name: name.replace(b"\0", b"")),
)
SYMBOLS = st.builds(
    Sym,
    NAMES,
    st.sampled_from([*(section.name for section in SECTIONS), 0, ABS, COMMON]),
    st.sampled_from([0, 0, 0, GLOBAL, WEAK]),
    st.integers(0, 4),
    st.integers(0, 64),
    st.integers(0, 64),
)
OPTIONS = st.builds(
    Options,
    st.sampled_from(["text:SUF", "buildid", "name", "text:" + "s" * 60]),
    st.sampled_from(["{symbol}_{suffix}", "{name}_{suffix}", "{suffix}.{symbol}", "{file}#{name}.{suffix}"]),
    st.sampled_from([(), ("f*",), ("*.c#*", "lp*")]),
    st.sampled_from([(), ("calls*",)]),
    st.sampled_from(["local", "new"]),
)


def round_trip(data: bytes, options: Options) -> tuple[elf.Object, dict[int, bytes]]:
    """Mangle with all proofs, and back; raises LpmangleError if the payload is refused."""
    view = elf.parse(data)
    payload = Payload(view)
    plan = make_plan(payload, options, "stem")
    after = bytes(apply(payload, plan))
    prove(payload, after, plan.renames)
    text = b"".join(encode(payload, plan, after, "stem"))
    done = elf.parse(after)
    assert undo(done, manifest.decode(text)) == data
    again = make_plan(Payload(done), options, "stem")
    assert not again.renames
    assert again.already or not plan.renames
    return done, plan.renames


@settings(max_examples=400, deadline=None)
@given(st.lists(SYMBOLS, max_size=12), OPTIONS, st.booleans(), st.booleans(), st.integers(0, 11))
def test_random_symbol_tables(symbols: list[Sym], options: Options, is_64: bool, big: bool, patched: int) -> None:
    sections = list(SECTIONS)
    if is_64 and patched < len(symbols):
        sections += [funcs(1), rela(".livepatch.funcs", [(8, patched + 1, 1, 0)], ">" if big else "<")]
    sections[1] = build_id(order=">" if big else "<")
    data = build(sections, symbols, is_64=is_64, big=big).data
    view = elf.parse(data)
    before = list(view.symbols())
    try:
        done, renames = round_trip(data, options)
    except PlanError as refusal:
        if re.search("would both be called|is not UTF-8 text|carr(y|ies) the suffix", refusal.message):
            return
        raise
    kinds = Payload(view).kinds
    names: dict[bytes, bytes] = {}
    for index, symbol in enumerate(done.symbols()):
        old, new = view.string(before[index].st_name), done.string(symbol.st_name)
        assert symbol._replace(st_name=0) == before[index]._replace(st_name=0)
        if index not in renames:
            assert new == old
            continue
        assert kinds[index] == Kind.NEW
        assert options.scope == "new" or symbol.binding == 0
        assert len(new) <= 126
        assert names.setdefault(new, old) == old


MUTATIONS = 24_000


@pytest.mark.parametrize("part", range(4))
def test_random_damage(part: int) -> None:
    """Each damaged payload is refused cleanly, or mangled with a valid proof; fast, and in little memory."""
    seed = int(os.environ.get("LPMANGLE_SEED", "20")) * 4 + part
    print(f"seed: LPMANGLE_SEED={seed // 4}, part {part}")
    rng = random.Random(seed)
    originals = [item.path.read_bytes() for _, item in sorted(fixtures().items())]
    refused = handled = 0
    for number in range(MUTATIONS // 4):
        data = bytearray(rng.choice(originals))
        _damage(data, rng)
        options = Options(rng.choice(["buildid", "text:SUF"]), scope=rng.choice(["local", "new"]))
        started = time.process_time()
        try:
            with limited(32 << 20):
                round_trip(bytes(data), options)
            handled += 1
        except LpmangleError:
            refused += 1
        except BaseException:
            print(f"mutation {number}")
            raise
        assert time.process_time() - started < 10, number  # milliseconds are usual
    assert min(refused, handled) > MUTATIONS // 40, (refused, handled)


def _damage(data: bytearray, rng: random.Random) -> None:
    """A few random edits: bytes, words of likely values, cuts, moved pieces; most in the tables at both ends."""
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.choice([rng.randrange(64), rng.randrange(len(data)), max(0, len(data) - 1 - rng.randrange(1200))])
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind in (2, 3):
            size = rng.choice([2, 4, 8])
            value = rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 8, len(data), len(data) - 1, 0xFFF1])
            data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(["little", "big"]))
        elif kind == 4 and rng.random() < 0.2:
            del data[at or 64 :]
        elif kind == 5:
            other = rng.randrange(len(data))
            data[at : at + 24] = data[other : other + 24]
        if len(data) < 64:
            data += bytes(64)

"""One payload against many stacks of deployed ones."""

from __future__ import annotations

from random import Random

import pytest
from hypervisor import BUILD_ID, base, identity, payload, state
from lab.defects import LOCALS
from lab.editor import Editor

from lpmangle.errors import PayloadError
from lpmangle.loader import State, Upload, check_sequence, take
from lpmangle.loader.fleet import Host, Matrix, read_hosts


@pytest.mark.parametrize("symbols", [True, False], ids=["hypervisor known", "not known"])
def test_matrix_says_what_single_checks_say(symbols: bool) -> None:
    random = Random(7)
    names = [{"lp_data": f"s{n}", "upload.c#calls": f"s{n + 1}"} for n in range(4)]
    pool = [payload(f"p{n}", names=random.choice(names), depends=random.choice((BUILD_ID, identity(f"p{n - 1}"))))
            for n in range(12)]  # fmt: skip
    user = Editor(payload("user", names={"lp_data": "s1"}).data).edit_symbol("s1", shndx=0)
    again, top = Upload("again", pool[4].data), payload("top", depends=identity("p5"))
    uploads = [payload("new", names=names[1]), pool[3], Upload("user", bytes(user.data)), again, top]
    known = state() if symbols else State(version=state().version)
    matrix = Matrix(uploads, known)
    deployed = [take(one, matrix.state) for one in pool]
    seen = set()
    for _ in range(300):
        stack = random.sample(deployed, random.randrange(6))
        alone = known.copy()
        alone.loaded, alone.applied = list(stack), list(stack)
        wanted = [
            (v.words, v.first and (v.first.rule, v.first.message, v.first.detail), v.good, v.action)
            for v in check_sequence(uploads, alone)
        ]
        cells = matrix.check(stack)
        assert [
            (c.words, c.first and (c.first.rule, c.first.message, c.first.detail), c.good, c.attempt if c.good else "")
            for c in cells
        ] == wanted
        seen |= {(status, first and first[0], action) for status, first, _, action in wanted}
    assert len(seen) >= (7 if symbols else 5)


def test_take_reads_what_an_upload_leaves() -> None:
    one = payload("one")
    (verdict,) = check_sequence([one], state())
    assert verdict.loaded
    taken = take(one, state())
    assert (taken.name, taken.build_id, taken.depends) == ("one", identity("one"), BUILD_ID)
    assert taken.symbols == verdict.loaded.symbols
    assert sorted(taken.symbols) == sorted(f"{local}_one".encode() for local in LOCALS)
    for data in (b"", b"\x7fELF", base()[:500], bytes(Editor(base()).edit(".livepatch.depends", size=0).data)):
        with pytest.raises(PayloadError):
            take(Upload("x", data), state())


def test_stack_files() -> None:
    wanted = [Host("web", ("/d/a", "/d/b")), Host("stack 2", ("/d/c",)), Host("empty", ())]
    assert read_hosts("# web\na\n b \n\n\nc\n\n# empty\n", "/d") == wanted
    assert read_hosts('[["a", "b"], ["c"]]', "/d")[1] == Host("stack 2", ("/d/c",))
    assert read_hosts('{"web": ["a", "/b"], "empty": []}', "/d") == [Host("web", ("/d/a", "/b")), Host("empty", ())]
    for wrong in ("", "\n\n", "[1]", '{"a": "b"}', "[", '[["a", 1]]'):
        with pytest.raises(PayloadError):
            read_hosts(wrong, "/d")

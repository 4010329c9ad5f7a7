"""How a catalog finds manifests: the same answers as by reading all of them, borrowed names, older catalogs."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLES, lpmangle
from manifests import manifest, plain, write
from older_catalog import write_older

from lpmangle.jobs.query import query
from lpmangle.manifest.search import cut, wanted
from lpmangle.store import catalog_names
from lpmangle.store.catalog import Catalog
from lpmangle.store.catalog_file import CatalogFile
from lpmangle.store.catalog_writing import add
from lpmangle.store.source import Found

SEED = int(os.environ.get("LPMANGLE_SEED", "21"))
PATTERNS = 500
PARTS = (
    "a", "b", "A", "_", "__", "#", ".c#", "x86.c#", "get", "fpu", "[", "]", "!", "^", "-", "?", "*", "é", "%", "'",
    "\U0010ffff", "\0", "\n", " ", "\\",
)  # fmt: skip
WILD = ("*", "*", "**", "?", "??", "[a-f]", "[!a]", "[^a]", "[]a]", "[]", "[!]", "[", "[b-a]", "[*]", "_*", "*#")


def random_name(rng: random.Random) -> str:
    name = "".join(rng.choices(PARTS, k=rng.randrange(1, 7)))
    return name + "é" * 63 * (rng.random() < 0.1)  # longer than Xen keeps


def random_manifests(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Names of all kinds, shared or not; new ones as by default, or of any other form; borrowed ones."""
    shared = [random_name(rng) for _ in range(40)]
    for number in range(60):
        build_id = f"{rng.getrandbits(160):040x}"
        suffix = rng.choice((build_id, build_id, build_id[:7], "v1", "v1_2", "_", "fpu", "a#b", "\0", "f" * 50))
        names = {}
        for original in [*rng.sample(shared, 8), random_name(rng)]:
            names[original] = rng.choice((f"{original}_{suffix}",) * 3 + (f"{suffix}.{original}", random_name(rng)))
        lent = [{"original": rng.choice(shared), "name": random_name(rng), "build_id": "ab" * 20} for _ in range(2)]
        yield manifest(
            f"p{number}", names, suffix=suffix, build_id=build_id,
            references=[{"index": 1, "st_name": 1, **lent[0]}], functions=[{"entry": 0, "addend": 0, **lent[1]}],
        )  # fmt: skip


def random_pattern(rng: random.Random, names: list[str]) -> str:
    """A name, or a part of one, partly replaced by wildcards."""
    name = rng.choice(names)
    if rng.random() < 0.3:
        name = name.rpartition("#")[2]
    for _ in range(rng.randrange(4)):
        low, high = sorted(rng.choices(range(len(name) + 1), k=2))
        name = name[:low] + rng.choice(WILD) + name[rng.choice((low, high)) :]
    return name


def is_named(pattern: str, entry: dict[str, Any]) -> bool:
    """By the old or new name, whole or as Xen cuts it, or by its part behind the last '#'; exactly or as a pattern."""
    names = {entry["original"], entry["name"], cut(entry["original"])}
    names |= {name.rpartition("#")[2] for name in names}
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def test_random_patterns(tmp_path: Path) -> None:
    """Each finds the same as if all manifests were read; not too many manifests are read for it."""
    print(f"LPMANGLE_SEED={SEED}")
    rng = random.Random(SEED)
    several = list(random_manifests(rng))
    path = str(tmp_path / "c.db")
    list(add(path, [Found("", json.dumps(one).encode()) for one in several]))
    names = [entry[kind] for one in several for entry in one["symbols"] for kind in ("original", "name")]
    names += [entry["name"] for one in several for entry in one["references"] + one["functions"]]
    names += [cut(name) for name in names if cut(name) != name] * 3
    catalog = Catalog(path)
    found = right = 0
    for _ in range(PATTERNS):
        word = random_pattern(rng, names)
        pattern = wanted(word).pattern
        introduced = [
            (symbol["original"], symbol["name"], one["payload"], one["build_id"])
            for one in several
            for symbol in sorted(one["symbols"], key=lambda symbol: (symbol["original"], symbol["name"]))
            if is_named(pattern, symbol)
        ]
        assert list(catalog.find(word)) == introduced, repr(word)
        known = [
            one["payload"]
            for one in several
            if any(is_named(pattern, entry) for entry in one["symbols"] + one["references"] + one["functions"])
        ]
        read = [one.manifest.payload for one in catalog.candidates(word)]
        assert set(read) >= set(known), repr(word)
        found += len(read)
        right += len(known)
    assert right > PATTERNS
    assert found < right * 2


@pytest.mark.parametrize(
    "word",
    ["x86_emulate.c#*", "x86_emulate.c#_get_f[op]u", "_get_*", "*_get_fpu", "?get_fpu", "*.c#_get_fpu", "lp_help?r"],
)
def test_index_is_used(tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a pattern begins or ends with fixed text, not all names are read."""
    one = plain("one", "x86_emulate.c#_get_fpu", "lp_helper", "traps.c#_get_fpu")
    list(add(str(tmp_path / "c.db"), [Found("", json.dumps(one).encode())]))
    plans: list[str] = []
    select = CatalogFile.select

    def explained(file: CatalogFile, types: Any, asked: str, values: Any) -> Any:
        plans.extend(row[3] for row in file.db.execute(f"EXPLAIN QUERY PLAN {asked}", values))
        return select(file, types, asked, values)

    monkeypatch.setattr(CatalogFile, "select", explained)
    assert list(Catalog(str(tmp_path / "c.db")).find(word))
    assert any("SEARCH name" in step for step in plans)
    assert not [step for step in plans if "SCAN name" in step or "SCAN ending" in step]


def test_odd_words(tmp_path: Path) -> None:
    """Bytes that are not text, and SQL syntax, find nothing and do no harm."""
    lpmangle("catalog", "add", tmp_path / "c.db", write(tmp_path / "m", plain("p", "f")))
    for word in ("\udcff", "\udcff*", "*\udcff", "[\udcff]x", "' OR 1 --", "%", "_", "f_", "_f"):
        for command in (("query", word, "-m", tmp_path / "c.db"), ("catalog", "find", tmp_path / "c.db", word)):
            assert lpmangle(*command, code=1).stdout == ""


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A payload that has names of the payload below, and that one, with their manifests."""
    for name in ("617712b", "stacked/8d4a1c7"):
        shutil.copy(EXAMPLES / f"{name}.livepatch", tmp_path)
    lpmangle("617712b.livepatch", cwd=tmp_path)
    lpmangle("--against", "617712b.livepatch", "8d4a1c7.livepatch", cwd=tmp_path)
    return tmp_path


def test_borrowed_names_are_found(stack: Path) -> None:
    """By the manifest that has them; until that is removed."""
    upper, catalog, log = stack / "8d4a1c7.livepatch", stack / "c.db", stack / "log"
    lpmangle("catalog", "add", catalog, upper)
    borrowed = json.loads((stack / "8d4a1c7.livepatch.manifest.json").read_text())["references"]
    for entry in borrowed:
        for word in (entry["original"], entry["name"], f"*{entry['name'][-50:]}", entry["original"][:-3] + "*"):
            answer = lpmangle("query", word, "-m", catalog).stdout
            assert answer == lpmangle("query", word, "-m", upper).stdout
            assert "  borrowed  from 617712b" in answer
    log.write_text("".join(f"(XEN) Unknown symbol: {entry['name']}\n" for entry in borrowed))
    assert lpmangle("retrace", "-m", catalog, log).stdout == "".join(
        f"(XEN) Unknown symbol: {entry['original']}\n" for entry in borrowed
    )
    # It has not introduced them.
    lpmangle("catalog", "find", catalog, borrowed[0]["original"], code=1)
    lpmangle("catalog", "add", catalog, stack / "617712b.livepatch")
    lpmangle("catalog", "remove", catalog, "8d4a1c7")
    db = sqlite3.connect(catalog)
    assert db.execute("SELECT count(*) FROM below").fetchone() == (0,)
    for word in ("name", "ending"):
        assert db.execute(f"SELECT count(*) FROM {word}").fetchone() == (4,)
    db.close()


ORIGINALS = ("x86_emulate.c#_get_fpu", "lp_helper", "traps.c#do_trap")
WORDS = ("_get_fpu", "lp_helper", "*trap", "x86*", "*_get_fpu", "lp_helper+0x1/0x2", "*", "no_such", "get_fpu")


@pytest.fixture
def older(tmp_path: Path, stack: Path) -> Path:
    """A catalog of version 1."""
    folder = write(tmp_path / "m", *(plain(f"p{n}", *ORIGINALS[: 1 + n % 3]) for n in range(12)))
    texts = [path.read_bytes() for path in sorted(folder.iterdir())]
    write_older(tmp_path / "older.db", [*texts, (stack / "8d4a1c7.livepatch.manifest.json").read_bytes()])
    return tmp_path / "older.db"


def answers(*sources: Path) -> list[object]:
    return [query([word], list(map(str, sources))) for word in WORDS]


def version(catalog: Path) -> int:
    with sqlite3.connect(catalog) as db:
        (number,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(number)


def test_an_older_catalog_is_read(older: Path, tmp_path: Path) -> None:
    """It does not change; all commands that read a catalog give the same answers as with a new one."""
    before = older.read_bytes()
    new = tmp_path / "new.db"
    lpmangle("catalog", "add", new, older)
    assert (version(older), version(new)) == (1, 2)
    assert answers(older) == answers(new)
    for command in (("list",), ("show", "p1", "8d4a1c7"), ("find", *WORDS[:6])):
        assert [
            lpmangle("catalog", command[0], each, *command[1:]).stdout for each in (older, new)
        ].count(lpmangle("catalog", command[0], new, *command[1:]).stdout) == 2  # fmt: skip
    log = tmp_path / "log"
    log.write_text("".join(f"{one['name']}\n" for one in plain("p2", *ORIGINALS)["symbols"]))
    assert lpmangle("retrace", "-m", older, log).stdout == "".join(f"{name}\n" for name in ORIGINALS)
    for each in (older, new):
        lpmangle("catalog", "export", each, "-o", tmp_path / f"of-{each.name}")
    exported = [sorted(path.read_bytes() for path in (tmp_path / f"of-{n}.db").iterdir()) for n in ("older", "new")]
    assert exported[0] == exported[1]
    assert older.read_bytes() == before


@pytest.mark.parametrize("how", ["add", "merge", "remove", "build"])
def test_an_older_catalog_gets_the_index_when_it_is_written_to(older: Path, tmp_path: Path, how: str) -> None:
    """In the same step, with any command that writes; then it has everything that a new one would have."""
    before = answers(older)
    more = write(tmp_path / "more", plain("more", "other"))
    if how == "add":
        said = lpmangle("catalog", "add", older, more).stdout
        assert said == f"{older}: 1 manifest added, 0 were there already\n"
    elif how == "merge":
        lpmangle("catalog", "add", tmp_path / "more.db", more)
        lpmangle("catalog", "merge", older, tmp_path / "more.db")
    elif how == "remove":
        lpmangle("catalog", "remove", older, "p0")
        lpmangle("catalog", "add", older, tmp_path / "m")
    else:
        payload = shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path / "built.livepatch")
        lpmangle("build", "--result", payload, "--catalog", older, "--", "true")
    assert version(older) == 2
    assert lpmangle("query", "lp_helper", "-m", older).stdout.count("borrowed") == 1
    if how == "remove":  # it was added again, so it is last
        assert sorted(map(str, before)) != sorted(map(str, answers(older)))
    new = tmp_path / "new.db"
    lpmangle("catalog", "add", new, older)
    assert dump(older) == dump(new)


def dump(catalog: Path) -> list[str]:
    """Its contents, whatever its numbers are."""
    db = sqlite3.connect(catalog)
    tables = (
        "SELECT name, digest FROM name JOIN manifest ON id = manifest",
        "SELECT name FROM ending",
        "SELECT prefix FROM file",
        "SELECT b.suffix, b.template, digest FROM below AS b JOIN manifest ON id = manifest",
    )
    rows = [row for table in tables for row in sorted(map(str, db.execute(table)))]
    schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master ORDER BY name")]
    db.close()
    return [*rows, *map(str, schema)]


def test_a_damaged_older_catalog_stays_as_it_is(older: Path, tmp_path: Path) -> None:
    """It cannot get the index; what is damaged can be removed."""
    with sqlite3.connect(older) as db:
        db.execute("UPDATE manifest SET text = x'00' WHERE payload = 'p3'")
    db.close()
    before = older.read_bytes()
    said = lpmangle("catalog", "add", older, write(tmp_path / "more", plain("more", "other")), code=3).stderr
    assert said.startswith(f"lpmangle: {older}: the manifest in the catalog is damaged")
    assert said.endswith("  hint: that is the one of p3: lpmangle catalog remove\n")
    assert older.read_bytes() == before
    lpmangle("catalog", "remove", older, "p3")
    assert version(older) == 2
    lpmangle("catalog", "add", older, tmp_path / "more")


def test_reading_while_it_gets_the_index(older: Path, tmp_path: Path) -> None:
    """A process that has opened it before, such as retrace on a console, continues."""
    opened = Catalog(str(older))
    before = [found.text for found in opened.candidates("lp_helper")]
    lpmangle("catalog", "add", older, write(tmp_path / "more", plain("more", "other")))
    assert [found.text for found in opened.candidates("other")] != []
    assert {found.text for found in opened.candidates("lp_helper")} < set(before)
    assert catalog_names.manifests_with(opened.file, "no_such") == []

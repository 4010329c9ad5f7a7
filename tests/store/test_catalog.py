"""The catalog: many payloads, several writers, crashes, and files that are not catalogs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from fuzz.seeds import catalogs
from manifests import manifest, plain, write

from lpmangle.manifest.search import find
from lpmangle.store.catalog import Catalog
from lpmangle.store.open import open_sources
from lpmangle.store.source import Sources

ORIGINALS = ["x86_emulate.c#_get_fpu", "arch/x86/traps.c#do_trap", "lp_helper", "common/a.c#f[1]"]
CRASH = Path(__file__).parents[1] / "data" / "crash"


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """Manifests of 30 payloads; each introduces some of ORIGINALS."""
    several = [plain(f"hotfix{n}", *ORIGINALS[: 1 + n % len(ORIGINALS)]) for n in range(30)]
    return write(tmp_path / "shipped", *several)


@pytest.fixture
def catalog(tmp_path: Path, shipped: Path) -> Path:
    path = tmp_path / "shipped.db"
    assert lpmangle("catalog", "add", path, shipped).stdout == f"{path}: 30 manifests added, 0 were there already\n"
    return path


def test_add_is_idempotent(catalog: Path, shipped: Path) -> None:
    before = catalog.read_bytes()
    done = lpmangle("catalog", "add", catalog, shipped, CRASH / "crash.livepatch", "--json")
    assert json.loads(done.stdout) == {"catalog": str(catalog), "added": 1, "already_there": 30}
    after = catalog.read_bytes()
    assert after != before
    lpmangle("catalog", "add", catalog, shipped, CRASH)
    assert catalog.read_bytes() == after
    assert [path.name for path in catalog.parent.glob("shipped.db*")] == ["shipped.db"]  # no journal is left


def test_list_find_remove(catalog: Path) -> None:
    rows = lpmangle("catalog", "list", catalog).stdout.splitlines()
    assert rows[0].split() == ["PAYLOAD", "BUILD-ID", "DEPENDS", "SYMBOLS", "SUFFIX"]
    assert len(rows) == 31
    entries = json.loads(lpmangle("catalog", "list", "--json", catalog).stdout)
    assert [entry["payload"] for entry in entries] == [f"hotfix{n}" for n in sorted(range(30), key=str)]

    found = json.loads(lpmangle("catalog", "find", catalog, "do_trap", "--json").stdout)["matches"]
    assert {match["payload"] for match in found} == {f"hotfix{n}" for n in range(30) if n % 4 >= 1}
    assert len(lpmangle("catalog", "find", catalog, "do_trap").stdout.splitlines()) == len(found) + 1
    missing = lpmangle("catalog", "find", catalog, "no_such", code=1)
    assert missing.stderr == f"lpmangle: {catalog}: no payload introduced no_such\n"

    build_id = entries[0]["build_id"]
    assert f"removed {entries[0]['payload']}," in lpmangle("catalog", "remove", catalog, build_id[:7]).stdout
    assert "has no payload" in lpmangle("catalog", "remove", catalog, build_id[:6], code=1).stderr
    lpmangle("catalog", "remove", catalog, "hotfix1")
    left = {entry["payload"] for entry in json.loads(lpmangle("catalog", "list", "--json", catalog).stdout)}
    assert left == {f"hotfix{n}" for n in range(30)} - {entries[0]["payload"], "hotfix1"}
    found = json.loads(lpmangle("catalog", "find", catalog, "do_trap", "--json").stdout)["matches"]
    assert {match["payload"] for match in found} <= left
    with sqlite3.connect(catalog) as db:
        orphans = "SELECT count(*) FROM name WHERE manifest NOT IN (SELECT id FROM manifest)"
        assert db.execute(orphans).fetchone() == (0,)
    db.close()


def test_a_failed_add_leaves_nothing(tmp_path: Path, shipped: Path) -> None:
    """No new file, no temporary one; an existing file does not change, not even an empty one."""
    (tmp_path / "nothing").mkdir()
    (tmp_path / "broken.livepatch.manifest.json").write_text("{}")
    (tmp_path / "empty").touch()
    link = tmp_path / "link.db"
    link.symlink_to("nowhere.db")
    before = sorted(os.listdir(tmp_path))
    limit = f'ulimit -f 8; exec {sys.executable} -m lpmangle catalog add "$0" {shipped}'  # KiB in a file
    for catalog in (tmp_path / "new.db", tmp_path / "empty", link):
        for source, code, words in (
            (tmp_path / "nothing", 3, f"lpmangle: {tmp_path / 'nothing'}: there is no manifest in this folder"),
            (tmp_path / "broken.livepatch.manifest.json", 3, "not a manifest of lpmangle"),
            (tmp_path / "gone", 4, "cannot read"),
        ):
            assert words in lpmangle("catalog", "add", catalog, shipped, source, code=code).stderr
        done = subprocess.run(["bash", "-c", limit, catalog], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (4, "")
        assert f"lpmangle: {catalog}: cannot be used as a catalog: " in done.stderr
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "empty").read_bytes() == b""
    lpmangle("catalog", "add", link, shipped)
    assert link.is_symlink()
    assert len(Catalog(str(tmp_path / "nowhere.db")).entries()) == 30


def test_folders_without_a_manifest(tmp_path: Path, shipped: Path) -> None:
    """Even if everything in it is broken."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.livepatch.manifest.json").write_text("{}")
    (folder / "b.livepatch").write_bytes((CRASH / "crash.livepatch").read_bytes())
    said = lpmangle("catalog", "add", tmp_path / "c.db", shipped, folder, code=3).stderr.splitlines()
    assert said[0].startswith(f"lpmangle: {folder / 'a.livepatch.manifest.json'}: warning: left out: not a manifest")
    assert said[1] == f"lpmangle: {folder}: there is no manifest in this folder, and no payload with one inside"
    assert not (tmp_path / "c.db").exists()


def test_a_manifest_counts_once(tmp_path: Path) -> None:
    """Embedded and beside the payload, named and in a folder, through a link: it counts once."""
    folder = tmp_path / "m"
    folder.mkdir()
    payload = folder / "fbab204.livepatch"
    payload.write_bytes((EXAMPLES / payload.name).read_bytes())
    lpmangle("--embed", payload)
    (folder / "link.livepatch").symlink_to(payload.name)
    for sources in ([folder], [payload], [payload, f"{payload}.manifest.json", folder, folder]):
        (tmp_path / "c.db").unlink(missing_ok=True)
        done = lpmangle("catalog", "add", tmp_path / "c.db", *sources)
        assert done.stdout == f"{tmp_path / 'c.db'}: 1 manifest added, 0 were there already\n"
    done = lpmangle("catalog", "add", tmp_path / "c.db", folder, "--json")
    assert json.loads(done.stdout) == {"catalog": str(tmp_path / "c.db"), "added": 0, "already_there": 1}


def test_remove_is_not_guesswork(tmp_path: Path) -> None:
    """A name that several payloads have removes none without --all; nor does a list with an unknown word."""
    catalog = tmp_path / "c.db"
    several = [manifest("prod", {"f": f"f_{n}"}, suffix=str(n), build_id=f"{n}{'ab' * 10}{n}" * 2) for n in range(3)]
    several += [manifest("fix", {"f": f"f_{n}"}, suffix=n, build_id=None) for n in ("x", "y")]
    several += [manifest("one", {"f": f"f_{n}"}, suffix=n) for n in ("v1", "v2")]  # one payload, mangled in two ways
    (tmp_path / "m").mkdir()
    for number, one in enumerate(several):
        (tmp_path / "m" / f"{number}.livepatch.manifest.json").write_text(json.dumps(one))
    lpmangle("catalog", "add", catalog, tmp_path / "m")
    before = catalog.read_bytes()
    done = lpmangle("catalog", "remove", catalog, "prod", code=3)
    assert done.stdout == ""
    done_json = lpmangle("catalog", "remove", "--json", catalog, "prod", code=3)
    assert (json.loads(done_json.stdout)["removed"], done_json.stderr) == ([], done.stderr)
    lines = done.stderr.splitlines()
    assert lines[0] == f"lpmangle: {catalog}: has 3 payloads prod; nothing was removed:"
    assert lines[1].split() == ["PAYLOAD", "BUILD-ID", "SYMBOLS", "SUFFIX"]
    assert [line.split()[0] for line in lines[2:-1]] == ["prod"] * 3
    assert lines[-1] == "  hint: name one by its build-id, or remove them all with --all"
    lpmangle("catalog", "remove", catalog, "fix", code=3)
    lpmangle("catalog", "remove", catalog, "one", "prod", code=3)
    said = lpmangle("catalog", "remove", catalog, "one", "nobody", code=1).stderr
    assert said == f"lpmangle: {catalog}: has no payload nobody; nothing was removed\n"
    assert catalog.read_bytes() == before
    removed = lpmangle("catalog", "remove", catalog, "one", several[1]["build_id"][:7]).stdout.splitlines()
    assert [line.split()[2] for line in removed] == ["one,", "one,", "prod,"]
    report = json.loads(lpmangle("catalog", "remove", "--json", catalog, "prod", "fix", "--all").stdout)
    assert report["catalog"] == str(catalog)
    assert [one["payload"] for one in report["removed"]] == ["prod", "prod", "fix", "fix"]
    assert [one["build_id"] for one in report["removed"]][1:] == [several[2]["build_id"], None, None]
    assert json.loads(lpmangle("catalog", "list", catalog, "--json").stdout) == []


def test_connections_are_closed(tmp_path: Path, shipped: Path) -> None:
    """Python warns of one that is not, from 3.13 on."""
    catalog, payload = tmp_path / "c.db", tmp_path / "crash.livepatch"
    payload.write_bytes((CRASH / "crash.livepatch").read_bytes())
    (tmp_path / "text").write_text("none")
    (tmp_path / "types").write_bytes(catalogs()["types"])
    (tmp_path / "version-3").write_bytes(catalogs()["version-3"])
    stacked = EXAMPLES / "stacked" / "8d4a1c7.livepatch"
    lpmangle("--manifest", tmp_path / "lower.json", "-o", tmp_path / "lower", EXAMPLES / "617712b.livepatch")
    for code, *command in (
        (0, "catalog", "add", catalog, shipped, CRASH / "crash.livepatch", tmp_path / "lower.json"),
        (0, "catalog", "add", catalog, shipped),
        (0, "catalog", "list", catalog),
        (0, "catalog", "show", catalog, "hotfix1"),
        (1, "catalog", "show", catalog, "no_such"),
        (0, "catalog", "export", catalog, "-o", tmp_path / "exported"),
        (0, "catalog", "merge", tmp_path / "merged.db", catalog),
        (0, "catalog", "add", tmp_path / "merged.db", catalog),
        (3, "catalog", "merge", tmp_path / "merged.db", tmp_path / "types"),
        (0, "catalog", "find", catalog, "_get_fpu"),
        (1, "catalog", "find", catalog, "no_such"),
        (0, "catalog", "remove", catalog, "hotfix1"),
        (1, "catalog", "remove", catalog, "hotfix1"),
        (3, "catalog", "list", tmp_path / "types"),
        (3, "catalog", "list", tmp_path / "version-3"),
        (3, "catalog", "add", tmp_path / "version-3", shipped),
        (0, "query", "_get_fpu", "-m", catalog),
        (3, "query", "_get_fpu", "-m", catalog, "-m", tmp_path / "text"),
        (3, "query", "_get_fpu", "-m", tmp_path / "types"),
        (0, "retrace", CRASH / "crash.log", "-m", catalog),
        (3, "retrace", CRASH / "crash.log", "-m", catalog, "-m", tmp_path / "types"),
        (0, "verify", payload, "-m", catalog),
        (0, "restore", payload, "-m", catalog, "-o", tmp_path / "restored"),
        (0, "--against", catalog, "-o", tmp_path / "upper", stacked),
        (0, "-j", "2", "--against", catalog, "-o", tmp_path, stacked, EXAMPLES / "617712b.livepatch"),
    ):  # fmt: skip
        words = [sys.executable, "-W", "error", "-m", "lpmangle", *map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Warning" not in done.stderr
        assert (done.stderr == "") == (code == 0)


def answer(source: Sources, pattern: str) -> list[tuple[str, str]]:
    """Payloads and new names, as `query` finds them."""
    manifests = [found.manifest for found in source.candidates(pattern)]
    return sorted((manifest.payload, symbol.name) for manifest in manifests for symbol in find(manifest, pattern))


def test_same_answers_as_the_folder(catalog: Path, shipped: Path) -> None:
    """SQL finds the same as reading all manifests, for every form of a name."""
    one = json.loads(next(shipped.glob("hotfix3-*")).read_text())
    suffix = one["suffix"]
    patterns = [
        *ORIGINALS,
        "_get_fpu",
        "do_trap+0x1f/0x24",
        f"x86_emulate.c#_get_fpu_{suffix}",
        f"_get_fpu_{suffix}+0x3",
        f"get_fpu_{suffix}",
        "_get*",
        "*trap*",
        "arch/*",
        "lp_[!x]elper",
        "f[[]1]",
        "f[1]",
        f"*{suffix[:12]}*",
        "do_tra",
        "'",
        "%",
        "",
    ]
    folder, database = open_sources([str(shipped)]), open_sources([str(catalog)])
    answers = []
    for pattern in patterns:
        several = [
            sorted(
                (m.payload, s.name)
                for found in s_.candidates(pattern)
                for m in [found.manifest]
                for s in find(m, pattern)
            )
            for s_ in (folder, database)
        ]
        assert several[0] == several[1], pattern
        answers.append(bool(several[0]))
    assert answers.count(True) >= 12


def test_originals_that_xen_has_cut(tmp_path: Path) -> None:
    long = "a.c#" + "f" * 200
    folder = write(tmp_path / "m", plain("p", "x", long), plain("q", "y"))
    lpmangle("catalog", "add", tmp_path / "c", folder)
    for source in (folder, tmp_path / "c"):
        assert lpmangle("query", long[:126], "-m", source).stdout.startswith(long)
        lpmangle("query", long[:125], "-m", source, code=1)


def test_as_a_source_of_every_command(tmp_path: Path) -> None:
    catalog, payload = tmp_path / "c.db", tmp_path / "crash.livepatch"
    lpmangle("catalog", "add", catalog, CRASH)
    payload.write_bytes((CRASH / "crash.livepatch").read_bytes())
    assert "verified" in lpmangle("verify", payload, "-m", catalog).stdout
    log = (CRASH / "crash.log").read_text()
    out = lpmangle("retrace", "-m", catalog, CRASH / "crash.log").stdout
    assert out == lpmangle("retrace", "-m", CRASH, CRASH / "crash.log").stdout != log
    assert "crash" in lpmangle("query", "lp_helper", "-m", catalog).stdout
    lpmangle("restore", payload, "-m", catalog)
    other = EXAMPLES / "fbab204.livepatch"
    assert "no manifest with its build-id" in lpmangle("verify", other, "-m", catalog, code=3).stderr


def test_what_is_no_catalog(tmp_path: Path, shipped: Path) -> None:
    other, text, empty = tmp_path / "other.db", tmp_path / "text", tmp_path / "empty"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    text.write_text("no database\n" * 100)
    empty.touch()
    for path, code, words in (
        (other, 3, "is an SQLite file, but not a catalog"),
        (text, 3, "is not a catalog of lpmangle, nor an SQLite file"),
        (tmp_path, 2, "is a folder, not a regular file"),
        (tmp_path / "no" / "folder", 2, "there is no such folder"),
    ):
        before = path.read_bytes() if path.is_file() else None
        assert words in lpmangle("catalog", "add", path, shipped, code=code).stderr
        assert (path.read_bytes() if path.is_file() else None) == before
    for args in (["list"], ["find"], ["remove"]):
        symbols = [] if args == ["list"] else ["x"]
        assert "not a catalog" in lpmangle("catalog", *args, other, *symbols, code=3).stderr
        assert "does not exist" in lpmangle("catalog", *args, tmp_path / "none", *symbols, code=3).stderr
    assert not (tmp_path / "none").exists()
    assert "not a catalog" in lpmangle("query", "x", "-m", other, code=3).stderr
    lpmangle("catalog", "add", empty, shipped)
    with sqlite3.connect(empty) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    assert "is a catalog of version 3" in lpmangle("catalog", "list", empty, code=3).stderr


HOSTILE = {
    "text": "is not a catalog of lpmangle, nor an SQLite file",
    "foreign": "is an SQLite file, but not a catalog of lpmangle",
    "foreign-0": "is an SQLite file, but not a catalog of lpmangle",
    "foreign-wal": "is an SQLite file, but not a catalog of lpmangle",
    "wal": "uses a write-ahead log",
    "version-3": "is a catalog of version 3",
    "trigger": "its tables are not those of a catalog",
    "view": "its tables are not those of a catalog",
    "endless": "its tables are not those of a catalog",
    "no-table": "its tables are not those of a catalog",
    "types": "a value is of the wrong type",
    "no-utf8": "Could not decode to UTF-8",
    "endless-tree": "its manifests are not in order",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_catalogs(tmp_path: Path, what: str) -> None:
    """Refused with a reason by every command, never changed, and no file is left beside it."""
    path = tmp_path / "catalog.db"
    path.write_bytes(data := catalogs()[what])
    commands = [("list", path), *([("find", path, "*")] if what != "endless-tree" else [])]
    commands += [("add", path, CRASH)] if "tables" in HOSTILE[what] or "SQLite" in HOSTILE[what] else []
    for command in commands:
        assert HOSTILE[what] in lpmangle("catalog", *command, code=3).stderr
        assert path.read_bytes() == data
        assert os.listdir(tmp_path) == [path.name]


def test_a_search_has_an_end(tmp_path: Path) -> None:
    """A few pages can have more rows than anybody can read."""
    (tmp_path / "catalog.db").write_bytes(catalogs()["endless-tree"])
    assert "interrupted" in lpmangle("catalog", "show", tmp_path / "catalog.db", "x", code=3).stderr


def test_bomb_in_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(catalogs()["bomb"])
    said = lpmangle("query", "*", "-m", tmp_path / "catalog.db", code=3).stderr
    assert re.search(r"20\d{3} bytes become more than 20\d{6}", said)


def test_a_foreign_journal_is_left_alone(tmp_path: Path) -> None:
    """Opening it would undo another program's transaction."""
    path, journal = tmp_path / "other.db", tmp_path / "other.db-journal"
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000)); PRAGMA cache_size = 1; BEGIN;")
    other.execute("UPDATE t SET x = randomblob(100000)")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (path, journal):
        (copy / file.name).write_bytes(file.read_bytes())
    other.close()
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    assert len(before) == 2
    for command in (("list",), ("add",)):
        arguments = [copy / "other.db", *([CRASH] if command == ("add",) else [])]
        assert "not a catalog of lpmangle" in lpmangle("catalog", *command, *arguments, code=3).stderr
        assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_damaged_catalog(catalog: Path) -> None:
    data = bytearray(catalog.read_bytes())
    data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
    catalog.write_bytes(data)
    done = lpmangle("catalog", "find", catalog, "_get_fpu", code=3)
    assert "cannot be used as a catalog" in done.stderr


@pytest.mark.parametrize("content", ["x'00'", "'text'", "123"])
def test_damaged_manifest_in_a_catalog(catalog: Path, tmp_path: Path, content: str) -> None:
    with sqlite3.connect(catalog) as db:
        db.execute(f"UPDATE manifest SET text = {content}")
    db.close()
    said = lpmangle("query", "_get_fpu", "-m", catalog, code=3).stderr
    assert said.startswith(f"lpmangle: {catalog}: ")
    assert "is damaged: " in said
    name = plain("hotfix1", ORIGINALS[0])["symbols"][0]["name"]
    (tmp_path / "log").write_text(f"{name}\n")
    done = lpmangle("retrace", "-m", catalog, tmp_path / "log")
    assert done.stdout == f"{name}\n"
    assert re.search(rf"lpmangle: {catalog}: warning: .*is damaged: ", done.stderr)


def test_several_writers(tmp_path: Path) -> None:
    """Eight builds at once, without a catalog; all of them add, some of them the same."""
    catalog = tmp_path / "c.db"
    folders = [
        write(tmp_path / f"b{n}", *(plain(f"{n}-{i}", *ORIGINALS) for i in range(40)), plain("shared", "s"))
        for n in range(8)
    ]
    command = [sys.executable, "-m", "lpmangle", "catalog", "add", str(catalog)]
    writers = [subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True) for folder in folders]
    said = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 8, said
    assert sum("41 manifests added" in words for words in said) == 1
    assert sum("40 manifests added, 1 was there already" in words for words in said) == 7
    assert len(Catalog(str(catalog)).entries()) == 321


def test_killed_writer(tmp_path: Path) -> None:
    """Killed at any moment: the next command finds complete manifests, and adds the rest."""
    catalog = tmp_path / "c.db"
    folder = write(tmp_path / "m", *(plain(f"p{i}", *(f"a.c#f{n}" for n in range(60))) for i in range(900)))
    command = [sys.executable, "-m", "lpmangle", "catalog", "add", str(catalog), str(folder)]
    for delay in (0.25, 0.35, 0.45, 0.55, 0.65):
        writer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        if catalog.exists() and catalog.stat().st_size:
            db = sqlite3.connect(catalog)
            torn = "SELECT count(*) FROM manifest m WHERE symbols != (SELECT count(*) FROM name WHERE manifest = m.id)"
            assert not _tables(db) or db.execute(torn).fetchone() == (0,)
            db.close()
    lpmangle("catalog", "add", catalog, folder)
    assert len(Catalog(str(catalog)).entries()) == 900


def _tables(db: sqlite3.Connection) -> int:
    count: int = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return count


def test_broken_manifests(tmp_path: Path) -> None:
    """In a folder they are left out with a warning; if named, they are an error, and nothing is added."""
    folder = write(tmp_path / "m", plain("good", "x"))
    broken = folder / "broken.livepatch.manifest.json"
    broken.write_text('{"format": "lpmangle-manifest", "version": "1.0"}')
    done = lpmangle("catalog", "add", tmp_path / "c", folder)
    assert f"{broken}: warning: left out: not a manifest of lpmangle" in done.stderr
    assert "1 manifest added" in done.stdout
    assert "not a manifest" in lpmangle("catalog", "add", tmp_path / "d", broken, code=3).stderr


def test_progress_bar_only_on_a_terminal(tmp_path: Path, shipped: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lpmangle", "catalog", "add", str(tmp_path / "c"), str(shipped)]
    done = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, check=True)
    os.close(theirs)
    assert b"30 manifests added" in done.stdout
    assert b"adding" in os.read(ours, 1 << 16)
    os.close(ours)
    assert lpmangle("catalog", "add", tmp_path / "c2", shipped).stderr == ""


def test_suffixes_that_several_payloads_share(tmp_path: Path) -> None:
    one, two = (manifest(p, {f"{p}.c#f": "f_v1"}, suffix="v1") for p in ("one", "two"))
    lpmangle("catalog", "add", tmp_path / "c", write(tmp_path / "m", one, two))
    (tmp_path / "log").write_text("f_v1+0x1/0x2 [two]\n")
    assert lpmangle("retrace", "-m", tmp_path / "c", tmp_path / "log").stdout == "two.c#f+0x1/0x2 [two]\n"


def test_shapes_of_a_large_catalog(tmp_path: Path) -> None:
    """Full build-ids need no list; every other suffix and template is in the list."""
    options = dict(plain("p")["options"], template="{suffix}.{symbol}")
    several = [plain(f"p{n}", "x") for n in range(50)]
    several += [manifest(f"q{n}", {"x": f"x_v{n}"}, suffix=f"v{n}") for n in range(3)]
    several += [manifest("r", {"x": "x_abcdef0"}, suffix="abcdef0", build_id="abcdef0123")]
    several += [manifest("s", {"x": "x_abcdef0123"}, suffix="abcdef0123", build_id="abcdef0123")]
    several += [manifest(f"t{n}", {"x": "y"}, options=options) for n in range(2)]
    lpmangle("catalog", "add", tmp_path / "c", write(tmp_path / "m", *several))
    shapes = sorted(Catalog(str(tmp_path / "c")).shapes())
    assert [(t, s) for t, s in shapes if len(s) < 40] == [
        ("{symbol}_{suffix}", s) for s in ("abcdef0", "abcdef0123", "v0", "v1", "v2")
    ]
    assert sorted(t for t, s in shapes if len(s) == 40) == ["{suffix}.{symbol}", "{symbol}_{suffix}"]

"""From a catalog, and into another one: list, show, export, merge, add from a catalog or a server."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from manifests import manifest, plain, write

from lpmangle.manifest import embed
from lpmangle.store.catalog import Catalog

ID = "d967c17f6518371e26e591728fd30fa3f292977c"  # of examples/fbab204.livepatch
XEN = "ab" * 20


@pytest.fixture
def payloads(tmp_path: Path) -> Path:
    """Two payloads and one that is put on the first, mangled; manifests as lpmangle writes them."""
    folder = tmp_path / "payloads"
    folder.mkdir()
    for name in ("617712b", "fbab204", "stacked/8d4a1c7"):
        shutil.copy(EXAMPLES / f"{name}.livepatch", folder)
    lpmangle("617712b.livepatch", "fbab204.livepatch", cwd=folder)
    lpmangle("--against", "617712b.livepatch", "--suffix", "name", "8d4a1c7.livepatch", cwd=folder)
    return folder


@pytest.fixture
def catalog(tmp_path: Path, payloads: Path) -> Path:
    lpmangle("catalog", "add", tmp_path / "c.db", payloads)
    return tmp_path / "c.db"


def texts(folder: Path) -> list[bytes]:
    """The manifests in a folder, in any order."""
    return sorted(path.read_bytes() for path in folder.glob("*.manifest.json"))


def names(catalog: Path) -> list[str]:
    return [entry.payload for entry in Catalog(str(catalog)).entries()]


def test_list_says_what_a_payload_is_put_on(catalog: Path) -> None:
    listed = json.loads(lpmangle("catalog", "list", catalog, "--json").stdout)
    assert [list(entry) for entry in listed] == [["payload", "build_id", "depends", "suffix", "symbols"]] * 3
    by_name = {entry["payload"]: entry for entry in listed}
    assert by_name["8d4a1c7"]["depends"] == by_name["617712b"]["build_id"]
    assert by_name["fbab204"]["depends"] == by_name["617712b"]["depends"] != by_name["617712b"]["build_id"]
    rows = [line.split() for line in lpmangle("catalog", "list", catalog).stdout.splitlines()]
    assert rows[0] == ["PAYLOAD", "BUILD-ID", "DEPENDS", "SYMBOLS", "SUFFIX"]
    assert rows[1][:3] == ["617712b", by_name["617712b"]["build_id"], by_name["617712b"]["depends"]]


def test_list_is_in_the_order_of_adding(tmp_path: Path) -> None:
    """Also after one that was removed, the last."""
    catalog, order = tmp_path / "c.db", ["zebra", "ape", "mole"]
    for name in order:
        lpmangle("catalog", "add", catalog, write(tmp_path / name, plain(name, "f")))
    assert names(catalog) == order
    lpmangle("catalog", "remove", catalog, "mole")
    for name in ("mole", "bat"):
        lpmangle("catalog", "add", catalog, write(tmp_path / name, plain(name, "f")))
    assert names(catalog) == [*order, "bat"]


@pytest.mark.parametrize("last", ["symbols", "depends"])
def test_list_reads_manifests_of_other_writers(tmp_path: Path, last: str) -> None:
    """Wherever the head is: after the symbols, or after many globs."""
    one = manifest("p", {f"f{n}": f"f{n}_x" for n in range(500)}, suffix="x", depends=XEN)
    one["options"]["keep"] = [f"{n * n:032x}" for n in range(3000)]
    one = {**{key: value for key, value in one.items() if key != last}, last: one[last]}
    lpmangle("catalog", "add", tmp_path / "c.db", write(tmp_path / "m", one))
    assert [
        entry["depends"] for entry in json.loads(lpmangle("catalog", "list", tmp_path / "c.db", "--json").stdout)
    ] == [XEN]


def test_show(catalog: Path, payloads: Path) -> None:
    said = lpmangle("catalog", "show", catalog, "8d4a1c7", ID[:7]).stdout
    stacked, cumulative = said.split("\n\n")
    assert stacked.startswith("8d4a1c7\n  build-id     ")
    assert "  put on       617712b, build-id a46b5c17" in stacked
    assert "  options      --suffix name --template {symbol}_{suffix} --scope local\n" in stacked
    assert f"fbab204\n  build-id     {ID}\n" in cumulative
    assert f"  x86_emulate.c#_get_fpu       x86_emulate.c#_get_fpu_{ID}\n" in cumulative
    shown = json.loads(lpmangle("catalog", "show", catalog, "fbab204", "--json").stdout)
    assert shown == [json.loads((payloads / "fbab204.livepatch.manifest.json").read_text())]
    missing = lpmangle("catalog", "show", catalog, "fbab204", "nobody", code=1)
    assert missing.stderr == f"lpmangle: {catalog}: has no payload nobody\n"
    assert missing.stdout.startswith("fbab204\n")


def test_export_gives_the_files_again(catalog: Path, payloads: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert lpmangle("catalog", "export", catalog, "-o", out).stdout == f"{out}: 3 manifests\n"
    assert texts(out) == texts(payloads)
    (tmp_path / "kept").mkdir()
    restored = tmp_path / "fbab204.livepatch"
    lpmangle("--manifest", tmp_path / "kept", "-o", restored, EXAMPLES / "fbab204.livepatch")
    (same,) = (tmp_path / "kept").iterdir()
    assert (out / same.name).read_bytes() == same.read_bytes()
    lpmangle("restore", restored, "-m", out)  # they serve

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    report = json.loads(lpmangle("catalog", "export", catalog, ID, "617712b", "-o", out, "--json").stdout)
    assert report["catalog"] == str(catalog)
    assert [Path(path).name.partition("-")[0] for path in report["manifests"]] == ["fbab204", "617712b"]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_export_is_all_or_nothing(catalog: Path, tmp_path: Path) -> None:
    """No existing file is replaced, and a folder that was created for it is removed."""
    out = tmp_path / "out"
    said = lpmangle("catalog", "export", catalog, "fbab204", "nobody", "-o", out, code=1)
    assert said.stderr == f"lpmangle: {catalog}: has no payload nobody; nothing was written\n"
    assert not out.exists()
    lpmangle("catalog", "export", catalog, "fbab204", "-o", out)
    (other,) = out.iterdir()
    other.write_text("mine")
    said = lpmangle("catalog", "export", catalog, "-o", out, code=4)
    assert said.stderr == f"lpmangle: {other}: exists with different content: not replaced\n"
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(other.name, "mine")]
    assert "is a regular file, not a folder" in lpmangle("catalog", "export", catalog, "-o", catalog, code=2).stderr
    assert "no such folder" in lpmangle("catalog", "export", catalog, "-o", tmp_path / "no" / "x", code=2).stderr
    limit = f'ulimit -f 1; exec {sys.executable} -m lpmangle catalog export "$0" -o "$1"'  # KiB in a file
    done = subprocess.run(["bash", "-c", limit, catalog, tmp_path / "full"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot write: File too large" in done.stderr
    assert not (tmp_path / "full").exists()


def test_export_keeps_apart_what_has_one_name(tmp_path: Path) -> None:
    several = [manifest("one", {"f": f"f_{n}"}, suffix=n) for n in ("v1", "v2")]
    several += [manifest("../../etc/passwd", {"f": "f_x"}, suffix="x", build_id=None)]
    several += [manifest("long" * 100, {"f": f"f_{n}"}, suffix=n) for n in ("a", "b")]
    folder = tmp_path / "m"
    folder.mkdir()
    for number, one in enumerate(several):
        (folder / f"{number}.livepatch.manifest.json").write_text(json.dumps(one))
    lpmangle("catalog", "add", tmp_path / "c.db", folder)
    lpmangle("catalog", "export", tmp_path / "c.db", "-o", tmp_path / "out")
    assert texts(tmp_path / "out") == texts(folder)
    assert (tmp_path / "out" / ".._.._etc_passwd.manifest.json").exists()


def test_merge(tmp_path: Path) -> None:
    """A manifest in both counts once; the order is kept; the other catalogs do not change."""
    shared = plain("shared", "f")
    for name, *several in (("a", plain("z", "f"), shared), ("b", shared, plain("y", "f"), plain("x", "f"))):
        for one in several:
            lpmangle("catalog", "add", tmp_path / f"{name}.db", write(tmp_path / name / one["payload"], one))
    before = [(tmp_path / name).read_bytes() for name in ("a.db", "b.db")]
    new = tmp_path / "new.db"
    said = lpmangle("catalog", "merge", new, tmp_path / "a.db", tmp_path / "b.db")
    assert said.stdout == f"{new}: 4 manifests added, 1 was there already\n"
    assert names(new) == ["z", "shared", "y", "x"]
    assert [(tmp_path / name).read_bytes() for name in ("a.db", "b.db")] == before
    said = lpmangle("catalog", "merge", "--json", tmp_path / "a.db", tmp_path / "b.db")
    assert json.loads(said.stdout) == {"catalog": str(tmp_path / "a.db"), "added": 2, "already_there": 1}
    assert names(tmp_path / "a.db") == ["z", "shared", "y", "x"]
    assert "y" in lpmangle("catalog", "find", tmp_path / "a.db", "f").stdout


def test_merge_is_all_or_nothing(tmp_path: Path) -> None:
    """More than `add` does in one transaction; the last manifest is damaged."""
    lpmangle("catalog", "add", tmp_path / "other.db", write(tmp_path / "m", *(plain(f"p{n}", "f") for n in range(450))))
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("UPDATE manifest SET text = x'00' WHERE id = (SELECT max(id) FROM manifest)")
    db.commit()
    db.close()
    lpmangle("catalog", "add", tmp_path / "c.db", write(tmp_path / "n", plain("mine", "f")))
    before = (tmp_path / "c.db").read_bytes()
    for catalog in (tmp_path / "c.db", tmp_path / "new.db"):
        said = lpmangle("catalog", "merge", catalog, tmp_path / "other.db", code=3).stderr
        assert said.startswith(f"lpmangle: {tmp_path / 'other.db'}: ")
        assert "damaged" in said
    assert (tmp_path / "c.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.db", "m", "n", "other.db"]


def test_words_that_make_no_sense(catalog: Path, tmp_path: Path) -> None:
    before = catalog.read_bytes()
    link = tmp_path / "link.db"
    link.symlink_to(catalog)
    for other in (catalog, link):
        for command in ("merge", "add"):
            said = lpmangle("catalog", command, catalog, other, code=2).stderr
            assert said == f"lpmangle: {other}: is the catalog itself\n"
    text = tmp_path / "text"
    text.write_text("none")
    assert "is not a catalog of lpmangle" in lpmangle("catalog", "merge", catalog, text, code=3).stderr
    assert "does not exist" in lpmangle("catalog", "merge", catalog, tmp_path / "gone", code=3).stderr
    assert "Missing option '-o'" in lpmangle("catalog", "export", catalog, code=2).stderr
    assert catalog.read_bytes() == before


def test_add_from_a_catalog(catalog: Path, payloads: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    said = lpmangle("catalog", "add", new, payloads / "fbab204.livepatch", catalog)
    assert said.stdout == f"{new}: 3 manifests added, 0 were there already\n"
    assert names(new) == ["fbab204", "617712b", "8d4a1c7"]
    lpmangle("catalog", "export", new, "-o", tmp_path / "out")
    assert texts(tmp_path / "out") == texts(payloads)


def test_add_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the paths of one; a real one is asked in test_debuginfod.py."""
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    new, server = tmp_path / "new.db", tmp_path / "server"
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle(payload)
    text = Path(f"{payload}.manifest.json").read_bytes()
    section = server / "buildid" / ID / "section" / embed.SECTION
    section.parent.mkdir(parents=True)
    section.write_bytes(embed.compress(text))
    for url, code, words in (
        (f"file://{server}", 2, f"lpmangle: file://{server}: a debuginfod server cannot be listed\n  hint: name the "),
        (f"file://{server}/buildid/{'0' * 40}", 3, "there is no manifest of a payload with this build-id"),
        (f"file://{server}/buildid/{ID[:9]}", 2, "a debuginfod server cannot be listed"),
        (f"http:///buildid/{ID}", 2, "is not the URL of a debuginfod server"),
    ):
        assert words in lpmangle("catalog", "add", new, payload, url, code=code).stderr
        assert not new.exists()
    for ending in ("", "/section/.debug_lpmangle"):
        said = lpmangle("catalog", "add", new, f"file://{server}/buildid/{ID}{ending}")
    assert said.stdout == f"{new}: 0 manifests added, 1 was there already\n"
    lpmangle("catalog", "export", new, "-o", tmp_path / "out")
    assert texts(tmp_path / "out") == [text]

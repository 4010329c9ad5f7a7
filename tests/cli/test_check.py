"""lpmangle check, called as users call it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from hypervisor import BUILD_ID, SYMBOLS, base, state
from lab.editor import Editor

from lpmangle.errors import PayloadError
from lpmangle.loader import Upload, check_upload, take

ONE, TWO = EXAMPLES / "617712b.livepatch", EXAMPLES / "fbab204.livepatch"
GET_FPU = "x86_emulate.c#_get_fpu"


def check(*arguments: str | Path, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return lpmangle("check", *arguments, cwd=cwd, code=code)


@pytest.fixture
def xensyms(tmp_path: Path) -> Path:
    path = tmp_path / "xensyms"
    path.write_bytes(b"".join(b"%016x T %s\n" % (address, name) for name, address in SYMBOLS.items()))
    return path


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "upload.livepatch"
    path.write_bytes(base())
    return path


def test_the_clash_that_lpmangle_is_for(xensyms: Path, tmp_path: Path) -> None:
    said = check("--xen", xensyms, "--xen-version", "4.17", ONE, TWO, code=1).stdout
    lines = said.splitlines()
    assert lines[0].split() == ["PAYLOAD", "VERDICT", "ERRNO", "XEN", "SAYS"]
    assert lines[1].split()[:3] == [str(ONE), "accepted", "(not"]  # the copy of the table has no build-id
    assert f"refused{'':21}EEXIST (17)  livepatch: fbab204: duplicate new symbol: {GET_FPU}" in lines[2]
    assert [line for line in lines if line.startswith("  > ")] == [
        "  > refused EEXIST (17): the name is in use  [duplicate-symbol]"
    ]
    for name in (GET_FPU, "x86_emulate.c#get_fpu_calls", "lp_helper"):
        assert f"duplicate new symbol: {name}" in said
    assert "remedy: lpmangle PAYLOAD" in said
    assert "By the rules of Xen 4.17." in said
    assert "\x1b" not in said

    for source in (ONE, TWO):
        lpmangle("-o", tmp_path / source.name, source)
    mangled = check("--xen", xensyms, ONE, tmp_path / TWO.name).stdout
    assert "then: xen-livepatch replace fbab204" in mangled


def test_loaded(xensyms: Path) -> None:
    said = check("--xen", xensyms, "--loaded", ONE, TWO, code=1).stdout
    assert f"duplicate new symbol: {GET_FPU}" in said
    assert "617712b has it" in said
    check("--xen", xensyms, "--loaded", EXAMPLES / "617712b.c", TWO, code=3)


def test_vendor(xensyms: Path) -> None:
    said = check("--xen", xensyms, "--xen-version", "4.17", "--vendor", "xenserver", ONE, TWO).stdout
    assert f"livepatch: fbab204: duplicate new symbol: {GET_FPU}" in said
    assert "617712b has it; as long as it does, look-ups of the name find that one" in said
    assert "then: xen-livepatch replace fbab204" in said
    assert "By the rules of Xen 4.17 (xenserver)." in said
    assert "xenserver" in check("--vendor", "none", ONE, code=2).stderr


def test_a_version_that_is_not_known(payload: Path) -> None:
    said = check("--xen-version", "4.23", payload).stdout
    assert "not checked: the rules of this version are not known here  [unknown-version]" in said
    assert "Xen 4.23; judged as Xen 4.22" in said
    assert "By the rules of Xen 4.22, the nearest to 4.23 that is known; without --xen" in said


def test_json(payload: Path, xensyms: Path) -> None:
    payload.write_bytes(Editor(base()).rename("lp_data", "printk").data)
    report = json.loads(check("--json", "--xen", xensyms, "--xen-version", "4.17.7", payload, code=1).stdout)
    assert (report["xen_version"], report["vendor"]) == ("4.17.7", "")
    (found,) = report["payloads"]
    assert {key: found[key] for key in ("name", "verdict", "complete", "errno", "errno_name", "message", "action")} == {
        "name": "upload",
        "verdict": "refused",
        "complete": False,
        "errno": 17,
        "errno_name": "EEXIST",
        "message": "livepatch: upload: duplicate new symbol: printk",
        "action": "",
    }
    reported = [finding for finding in found["findings"] if finding["reported"]]
    assert [(finding["rule"], finding["symbol"]) for finding in reported] == [("duplicate-symbol", "printk")]
    assert all(finding["remedy"] and finding["meaning"] for finding in found["findings"])


def test_a_silent_refusal_and_a_crash(payload: Path) -> None:
    payload.write_bytes(Editor(base()).edit(".text", flags=7).edit(".rela.text", info=0).data)
    said = check("--xen-version", "4.17", payload, code=1).stdout
    assert "EOPNOTSUPP (95)  nothing (a loaded section is writable and executable)" in said
    assert "(nothing is printed) .text" in said
    assert "(the hypervisor crashes)" in said
    payload.write_bytes(Editor(base()).edit(".rela.text", info=0).data)
    assert "would crash the hypervisor" in check("--xen-version", "4.17", payload, code=1).stdout


def test_names_are_shown_safely(payload: Path) -> None:
    payload.write_bytes(Editor(base()).rename("lp_data", "evil\x1b[2Jname").edit_symbol(15, shndx=0xFFF2).data)
    said = check(payload, code=1).stdout
    assert "\x1b" not in said
    assert "Unexpected common symbol: evil\\x1b[2Jname" in said


def test_what_cannot_be_read(payload: Path, tmp_path: Path) -> None:
    assert "there is no such file" in check(tmp_path / "none", code=2).stderr
    assert "not a regular file" in check("--xen", "/dev/null", payload, code=4).stderr
    (tmp_path / "junk").write_text("trash\n")
    assert "ADDRESS TYPE NAME" in check("--xen", tmp_path / "junk", payload, code=3).stderr
    assert "not a version of Xen" in check("--xen-version", "new", payload, code=2).stderr
    assert "cannot read" in check("--stack", tmp_path / "junk", payload, code=4).stderr  # a payload of that name
    (tmp_path / "empty").write_text("\n")
    assert "lists no stack" in check("--stack", tmp_path / "empty", payload, code=3).stderr
    check("--stack", tmp_path / "junk", "--loaded", payload, payload, code=2)
    assert "Not an ELF payload" in check(EXAMPLES / "617712b.c", code=1).stdout


def test_stacks(xensyms: Path, tmp_path: Path) -> None:
    lpmangle("-o", tmp_path / "617712b.livepatch", ONE)
    stacks = tmp_path / "stacks"
    stacks.write_text(f"# bare\n\n# old\n{ONE}\n\n# new\n617712b.livepatch\n")
    said = check("--xen", xensyms, "--stack", stacks, TWO, code=1).stdout
    rows = {line.split()[0]: line.split(None, 1)[1] for line in said.splitlines()[1:4]}
    assert rows == {
        "bare": "accepted (not all checked), then apply",
        "old": f"refused: fbab204: duplicate new symbol: {GET_FPU} (617712b has it)",
        "new": "accepted (not all checked), then replace",
    }
    assert f"{TWO}: accepted by 2 of 3 stacks" in said
    assert "1 x livepatch: fbab204: duplicate new symbol" in said
    assert "\nBy the rules of Xen 4.22." in said
    assert "the nearest to 4.30 that is" in check("--xen-version", "4.30", "--stack", stacks, TWO, code=1).stdout
    report = json.loads(check("--xen", xensyms, "--stack", stacks, TWO, "--json", code=1).stdout)
    assert (report["xen_version"], report["vendor"]) == ("4.22", "")
    assert [row["results"][0]["verdict"] for row in report["stacks"]] == ["accepted", "refused", "accepted"]
    assert [row["results"][0]["action"] for row in report["stacks"]] == ["apply", "", "replace"]
    stacks.write_text(json.dumps({"bare": [], "new": ["617712b.livepatch"]}))
    check("--xen", xensyms, "--stack", stacks, TWO)


def test_heavy_modules_are_not_loaded(payload: Path) -> None:
    code = """if True:
        import sys
        from lpmangle.cli import main
        sys.argv[1:] = ["check", sys.argv[1]]
        try:
            main()
        except SystemExit:
            print({"lief", "msgspec", "elftools", "subprocess", "jinja2", "xml.etree"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code, str(payload)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_whatever_is_in_the_file_there_is_a_verdict() -> None:
    """Thousands of damaged payloads: no exception except the one that says so."""
    seed = int(os.environ.get("LPMANGLE_SEED", "1"))
    source = random.Random(seed)
    counts = {"accepted": 0, "refused": 0, "would crash the hypervisor": 0}
    for version in ("4.14", "4.17.7", "4.21"):
        for _ in range(1500):
            data = bytearray(base())
            for _ in range(source.choice((1, 1, 2, 5))):
                at, size = source.randrange(len(data) - 8), source.choice((1, 2, 4, 8))
                data[at : at + size] = source.choice((0, 1, 255, source.getrandbits(64))).to_bytes(8, "little")[:size]
            damaged = Upload("two", bytes(data))
            try:
                counts[check_upload(damaged, state(version)).status] += 1
                take(damaged, state(version))
            except PayloadError:
                pass
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
    assert all(counts.values()), counts
    assert BUILD_ID in base()

"""A path always has its old content or its new one."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elfbuild import plain
from processes import has_open, wait_until

from lpmangle.errors import FileError, ProofError
from lpmangle.jobs.mangle import mangle_file
from lpmangle.mangle.apply import apply
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import Plan
from lpmangle.manifest.read import decode
from lpmangle.system import files, writing
from lpmangle.system.files import sha256
from lpmangle.xen.payload import Payload

SUF = Options(suffix="text:SUF")
NOBODY = 65534


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "fbab204.livepatch"
    path.write_bytes(plain().data)
    return path


def state(folder: Path) -> dict[str, bytes]:
    """Names and contents of all files in a folder."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}


def test_mode_is_kept_and_manifest_is_beside(payload: Path) -> None:
    payload.chmod(0o640)
    result = mangle_file(str(payload), SUF)
    assert stat.S_IMODE(payload.stat().st_mode) == 0o640
    assert set(state(payload.parent)) == {payload.name, payload.name + ".manifest.json"}
    assert decode(Path(result.manifest_path).read_bytes()).payload == "fbab204"


def test_new_output_has_the_mode_of_the_input(payload: Path) -> None:
    payload.chmod(0o600)
    mangle_file(str(payload), SUF._replace(output=str(payload.with_name("out"))))
    assert stat.S_IMODE(payload.with_name("out").stat().st_mode) == 0o600
    assert payload.read_bytes() == plain().data


def test_symbolic_link_is_followed(payload: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.livepatch"
    link.symlink_to(payload)
    mangle_file(str(link), SUF)
    assert link.is_symlink()
    assert payload.read_bytes() != plain().data
    assert payload.with_name(payload.name + ".manifest.json").exists()
    assert list((tmp_path / "links").iterdir()) == [link]


def test_output_through_a_link_and_onto_itself(payload: Path) -> None:
    link = payload.with_name("link")
    link.symlink_to(payload)
    result = mangle_file(str(payload), SUF._replace(output=str(link)))
    assert result.output == str(payload)
    assert link.is_symlink()
    assert payload.read_bytes() != plain().data


def test_a_failing_second_rename_brings_the_first_back(tmp_path: Path) -> None:
    """The manifest of another build must not be lost if the payload could not be replaced."""
    manifest, target = tmp_path / "p.manifest.json", tmp_path / "p"
    manifest.write_bytes(b"old")
    outputs = [writing.Output(str(manifest), [b"new"]), writing.Output(str(target), [b"payload"])]

    def occupy() -> Iterator[bytes]:
        # While the payload is being written, its path becomes a folder: rename(2) fails.
        yield b"payload"
        target.mkdir()

    outputs[1] = writing.Output(str(target), occupy())
    with pytest.raises(FileError, match="cannot replace"):
        writing.replace(outputs)
    assert state(tmp_path) == {"p.manifest.json": b"old"}
    manifest.unlink()
    target.rmdir()
    outputs[1] = writing.Output(str(target), occupy())
    with pytest.raises(FileError, match="cannot replace"):
        writing.replace(outputs)
    assert state(tmp_path) == {}


def _recorded(monkeypatch: pytest.MonkeyPatch, fail_at: str = "") -> list[str]:
    """Records, in order, sync of a file or folder, and rename; the call `fail_at` fails with EIO."""
    calls: list[str] = []

    def note(what: str) -> None:
        calls.append(what)
        if what == fail_at:
            raise OSError(errno.EIO, "Input/output error")

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        note(f"sync {kind} {sum(call.startswith('sync ' + kind) for call in calls) + 1}")

    def rename(source: str, target: str) -> None:
        note(f"rename {'manifest' if target.endswith('.json') else 'payload'}")
        os.rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    return calls


def test_manifest_is_on_disk_before_the_payload_is_replaced(payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded(monkeypatch)
    mangle_file(str(payload), SUF)
    assert calls == [
        "sync file 1", "sync file 2", "rename manifest", "sync folder 1", "rename payload", "sync folder 2",
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["sync file 1", "sync file 2", "sync folder 1", "rename manifest", "rename payload"])
def test_failing_disk(payload: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before = state(payload.parent)
    _recorded(monkeypatch, call)
    with pytest.raises(FileError, match="Input/output error"):
        mangle_file(str(payload), SUF)
    assert state(payload.parent) == before


def test_failing_last_sync_keeps_the_manifest(payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _recorded(monkeypatch, "sync folder 2")
    mangle_file(str(payload), SUF)
    manifest = decode(payload.with_name(payload.name + ".manifest.json").read_bytes())
    assert manifest.output.sha256 == sha256(payload.read_bytes())


def test_waiting_for_the_lock_can_be_interrupted(payload: Path) -> None:
    folder = os.open(payload.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    process = subprocess.Popen([sys.executable, "-m", "lpmangle", str(payload)], stderr=subprocess.PIPE)
    wait_until(has_open, process.pid, payload.parent)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    os.close(folder)
    assert process.returncode == 130
    assert state(payload.parent) == {payload.name: plain().data}


def test_nothing_is_written_without_proof(payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(before: Payload, plan: Plan) -> bytes:
        return bytes(apply(before, plan)).replace(b"_get_fpu", b"_Get_fpu")

    monkeypatch.setattr("lpmangle.jobs.mangle.apply", wrong)
    with pytest.raises(ProofError, match="nothing was written"):
        mangle_file(str(payload), SUF)
    assert state(payload.parent) == {payload.name: plain().data}


def test_input_replaced_meanwhile(payload: Path) -> None:
    file = files.read(str(payload))
    os.utime(payload, ns=(1, 1))
    with pytest.raises(writing.ChangedError):
        writing.replace([writing.Output(str(payload), [b"x"])], unchanged=file)
    assert state(payload.parent) == {payload.name: plain().data}


def test_input_gone_meanwhile(payload: Path) -> None:
    file = files.read(str(payload))
    payload.unlink()
    with pytest.raises(FileError, match="No such file"):
        writing.replace([writing.Output(str(payload), [b"x"])], unchanged=file)
    assert state(payload.parent) == {}


def _in_child(work: Callable[[], object], prepare: Callable[[], object]) -> FileError | None:
    """Run `work` in a forked child after `prepare` there; the FileError it raises, or None."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            work()
            os._exit(0)
        except FileError as error:
            os.write(write, error.message.encode())
            os._exit(1)
        except BaseException as error:
            os.write(write, repr(error).encode())
            os._exit(2)
    os.close(write)
    with open(read, "rb") as pipe:
        message = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1), message
    return FileError(message) if status else None


@pytest.mark.parametrize("limit", [0, 100, 700])
def test_disk_full(payload: Path, limit: int) -> None:
    """A limit on file size makes write(2) fail half-way, like a full disk."""
    before = state(payload.parent)

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    error = _in_child(lambda: mangle_file(str(payload), SUF), prepare)
    assert error is not None
    assert os.strerror(errno.EFBIG) in error.message
    assert state(payload.parent) == before


def test_read_only_folder() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        payload = folder / "p.livepatch"
        payload.write_bytes(plain().data)
        payload.chmod(0o644)
        folder.chmod(0o555)
        error = _in_child(
            lambda: mangle_file(str(payload), SUF),
            lambda: os.setresuid(NOBODY, NOBODY, NOBODY) if not os.getuid() else 0,
        )
        assert error is not None
        assert "Permission denied" in error.message
        assert state(folder) == {"p.livepatch": plain().data}
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_others_files_in_a_folder_with_the_sticky_bit(tmp_path: Path) -> None:
    """Nobody else may replace them; the kept manifest is not left behind."""
    if os.getuid():
        pytest.skip("only root has files of others")
    folder = Path(tempfile.mkdtemp())
    try:
        payload = folder / "p.livepatch"
        payload.write_bytes(plain().data)
        mangle_file(str(payload), SUF)
        payload.write_bytes(plain().data)
        for path in folder.iterdir():
            path.chmod(0o644)
        before = state(folder)
        folder.chmod(0o1777)
        error = _in_child(lambda: mangle_file(str(payload), SUF), lambda: os.setresuid(NOBODY, NOBODY, NOBODY))
        assert error is not None
        assert "cannot replace" in error.message
        assert state(folder) == before
    finally:
        shutil.rmtree(folder)


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    """Then the name under which the old manifest is kept is cut."""
    payload = tmp_path / ("\u00e9" * 115 + ".livepatch")
    for suffix in ("text:ONE", "text:TWO"):
        payload.write_bytes(plain().data)
        mangle_file(str(payload), Options(suffix=suffix))
    assert set(state(tmp_path)) == {payload.name, payload.name + ".manifest.json"}
    assert decode(Path(f"{payload}.manifest.json").read_bytes()).suffix == "TWO"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_only_regular_files(tmp_path: Path, make: Callable[[str], None]) -> None:
    odd = str(tmp_path / "odd")
    make(odd)
    with pytest.raises(FileError, match=r"not a regular file|Is a directory"):
        files.read(odd)
    with pytest.raises(FileError, match="not a regular file"):
        writing.replace([writing.Output(odd, [b"x"])])
    assert [entry.name for entry in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parametrize("path", ["", "\0", "no/such/folder/x", "x" * 300])
def test_impossible_paths(path: str) -> None:
    with pytest.raises(FileError):
        files.read(path)


def test_huge_sparse_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="is too large"):
        files.read(str(path))


def test_eight_at_once(payload: Path) -> None:
    """Equal options agree; with different ones the last one wins; payload and manifest belong together."""
    for suffixes in (["A"] * 8, ["A", "B"] * 4):
        payload.write_bytes(plain().data)
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "lpmangle", "--suffix", f"text:{suffix}", str(payload)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for suffix in suffixes
        ]
        outputs = [process.communicate() for process in processes]
        codes = [process.returncode for process in processes]
        manifest = decode(payload.with_name(payload.name + ".manifest.json").read_bytes())
        winner = manifest.suffix
        won = [code for suffix, code in zip(suffixes, codes, strict=True) if suffix == winner]
        # Who sees the payload of one and the manifest of another refuses: then nothing can be restored.
        assert set(codes) <= ({0} if len(set(suffixes)) == 1 else {0, 3}), outputs
        assert 0 in won, outputs
        assert files.read(str(payload)).data.count(f"_get_fpu_{winner}".encode()) == 1
        assert manifest.output.sha256 == sha256(payload.read_bytes())
        assert manifest.input.sha256 == sha256(plain().data)
        assert set(state(payload.parent)) == {payload.name, payload.name + ".manifest.json"}


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
def test_onto_one_output(payload: Path, count: int, older: bool) -> None:
    """Several payloads at once onto one output: it is one of them, with its manifest, and nothing else is left."""
    output = payload.with_name("out.livepatch")
    inputs = []
    for number in range(count):
        inputs.append(payload.with_name(f"in{number}.livepatch"))
        inputs[-1].write_bytes(plain().data.replace(b"_get_fpu", b"_got_fp%d" % number))
    if older:
        mangle_file(str(payload), SUF._replace(output=str(output)))
    for _ in range(3):
        processes = [
            subprocess.Popen([sys.executable, "-m", "lpmangle", "-q", "-o", output, path], stderr=subprocess.PIPE)
            for path in inputs
        ]
        said = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * count, said
        manifest = decode(output.with_name("out.livepatch.manifest.json").read_bytes())
        assert manifest.output.sha256 == sha256(output.read_bytes())
        assert manifest.input.sha256 in [sha256(path.read_bytes()) for path in inputs]
    assert set(state(payload.parent)) == {
        payload.name, *(path.name for path in inputs), output.name, "out.livepatch.manifest.json"
    }  # fmt: skip


def test_mangled_and_restored_at_once(payload: Path) -> None:
    """Whichever is last: the payload is complete, and its manifest is there."""
    original = payload.read_bytes()
    mangle_file(str(payload), SUF)
    for words in (["--suffix", "text:SUF"], ["restore"]) * 4:
        command = [sys.executable, "-m", "lpmangle", *words, str(payload)]
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
        others = [
            subprocess.Popen([*command[:3], "restore", str(payload)], stdout=subprocess.DEVNULL) for _ in range(2)
        ]
        said = [process.communicate()[1].decode() for process in processes]
        for process, words_said in zip(processes, said, strict=True):
            assert process.returncode == 0 or "changed by another process meanwhile" in words_said
        for process in others:
            assert process.wait() in (0, 4)
    manifest = decode(payload.with_name(payload.name + ".manifest.json").read_bytes())
    assert sha256(payload.read_bytes()) in (manifest.output.sha256, manifest.input.sha256)
    assert manifest.input.sha256 == sha256(original)
    assert set(state(payload.parent)) == {payload.name, payload.name + ".manifest.json"}

"""lpmangle build and its drop-in, with a stand-in for livepatch-build that does its real last steps."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builds import (
    CODE,
    STANDIN,
    WRAPPER,
    environment,
    is_mangled,
    make_tree,
    names,
    options,
    run,
    write_patch,
)

from lpmangle.jobs.command_line import calls
from lpmangle.jobs.livepatch_build import Arguments, is_livepatch_build, payload_names, read_arguments

BUILD = ["lpmangle", "build", "--"]
TOOL = ["livepatch-build"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tree(tmp_path / "tree")
    write_patch(tmp_path / "fix.patch")
    (tmp_path / "config").touch()
    return tmp_path


def script(folder: Path, text: str, name: str = "tool") -> str:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)
    return str(path)


def test_build(folder: Path) -> None:
    """The tool's own output, then ours; the payload is what lpmangle makes of the tool's."""
    plain = run([*TOOL, *options(output="plain")], folder)
    done = run([*BUILD, *TOOL, *options()], folder)
    payload = folder / "out" / "fix.livepatch"
    suffix = json.loads(Path(f"{payload}.manifest.json").read_text())["suffix"]
    assert done.stdout == f"{plain.stdout}out/fix.livepatch: 2 symbols renamed, suffix {suffix}\n"
    assert done.stderr == plain.stderr == ""
    assert is_mangled(payload)
    assert not is_mangled(folder / "plain" / "fix.livepatch")
    assert os.access(payload, os.X_OK)
    run(["lpmangle", "verify", str(payload), "--original", "plain/fix.livepatch"], folder)
    run(["lpmangle", "restore", str(payload)], folder)
    assert payload.read_bytes() == (folder / "plain" / "fix.livepatch").read_bytes()


def test_options_of_lpmangle(folder: Path) -> None:
    command = ["lpmangle", "build", "--suffix", "name", "--keep", "*calls", "-v", *TOOL, *options()]
    assert "x86_emulate.c#_get_fpu -> x86_emulate.c#_get_fpu_fix\n" in run(command, folder).stdout
    assert "x86_emulate.c#get_fpu_calls" in names(folder / "out" / "fix.livepatch")
    quiet = run(["lpmangle", "build", "-q", "--", *TOOL, *options(output="quiet")], folder)
    assert quiet.stdout.endswith("fix.livepatch created successfully\n")
    assert is_mangled(folder / "quiet" / "fix.livepatch")


@pytest.mark.parametrize(
    "spelling",
    [
        ["-oout"],
        ["-o", "out"],
        ["--output=out"],
        ["--output", "out"],
        ["--out", "out"],
        ["--o=out"],
        ["-do", "out"],
        ["-dout", "-oout"],
        ["-o", "wrong", "-o", "out"],
        ["--output", "wrong", "-oout"],
        ["-o", "./out/"],
        ["a word", "-o", "out"],
        ["-o", "out", "--", "-o", "wrong"],
    ],
    ids=" ".join,
)
def test_spellings_of_output(folder: Path, spelling: list[str]) -> None:
    if spelling == ["-dout", "-oout"]:
        spelling = ["-d", "-oout"]
    common = ["--srcdir=tree", "-pfix.patch", "--conf", "config", "--dep=" + "ab" * 20, "--xen-dep", "ab" * 20]
    # An older payload of another name in the folder must not be taken.
    run([*BUILD, *TOOL, *common, *spelling], folder)
    assert is_mangled(folder / "out" / "fix.livepatch")
    other = Path(shutil.copy(STANDIN.parent / "x86_64-gcc-ld.livepatch", folder / "out" / "other.livepatch"))
    before = other.read_bytes()
    run([*BUILD, *TOOL, *common, "--skip=build", *spelling], folder)
    assert is_mangled(folder / "out" / "fix.livepatch")
    assert other.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-s xen -p a.patch -o out", Arguments("out", "a.patch")),
        ("-pa.patch --outp=o -k diff", Arguments("o", "a.patch", "diff")),
        ("-p a -o b -kbuild", Arguments("b", "a", "build")),
        ("--vendor-option -o b -x --vendor=3 --patch a", Arguments("b", "a")),
        ("--xen-d -o b -p a", Arguments("b", "a")),
        ("-o", Arguments()),
        ("--help", Arguments(help=True)),
    ],
)
def test_arguments(words: str, expected: Arguments) -> None:
    assert read_arguments(words.split()) == expected


@pytest.mark.parametrize(
    "words",
    [
        "livepatch-build -o out -p fix.patch",
        "/opt/xen/bin/livepatch-build.real -o out -p fix.patch",
        "env -i -u X LANG=C A= livepatch-build -o out -p fix.patch",
        "nice livepatch-build -o out -p fix.patch",
        "nice -n 5 ionice -c3 livepatch-build -o out -p fix.patch",
        "/usr/bin/nice -19 -- livepatch-build -o out -p fix.patch",
        "time -v -o log timeout -k 9 --signal=INT 1h stdbuf -oL taskset -c 0-3 livepatch-build -o out -p fix.patch",
        "nohup bash -x ./livepatch-build -o out -p fix.patch",
        "bash -euo pipefail /usr/bin/livepatch-build -o out -p fix.patch",
        "sh -c 'livepatch-build -o out -p fix.patch'",
        "bash -o pipefail -lc 'LANG=C exec nice livepatch-build -o \"out\" -p fix.patch -j 2 <x >>y 2>&1;' a b",
        "env -C here sh -c 'livepatch-build -o ../out -p ../fix.patch'",
        "sh -c 'cd here; cd .. && livepatch-build -o out -p fix.patch'",
    ],
)
def test_what_runs_livepatch_build(words: str) -> None:
    """Told by the words, whatever runs it; the folder as well."""
    (call,) = calls(shlex.split(words), is_livepatch_build)
    arguments = read_arguments(call.words)
    assert os.path.normpath(os.path.join(call.folder, arguments.output)) == "out"
    assert os.path.normpath(os.path.join(call.folder, arguments.patch)) == "fix.patch"


UNTOLD = [
    "make -C patches fix.livepatch",
    "make -C livepatch-build -o b -p a",
    "lp-build-4.17 -o b -p a",
    "./build.sh livepatch-build -o b -p a",
    "grep -r livepatch-build -o b -p a",
    "ssh host livepatch-build -o b -p a",
    "docker run image livepatch-build -o b -p a",
    "livepatch-building -o b -p a",
    "livepatch-build -o b",
    "livepatch-build -p a",
    "livepatch-build -p a -o",
    "livepatch-build",
    "nice",
    "sh",
    "sh livepatch-build-all.d/run -o b -p a",
    "bash -c",
    "bash -c ''",
    "env -S 'livepatch-build -o b -p a'",
    "exec -a x livepatch-build -o b -p a",
    "sh -c 'livepatch-build -o $out -p a'",
    "sh -c 'livepatch-build \"$@\"' x -o b -p a",
    "sh -c 'livepatch-build -o b -p *.patch'",
    "sh -c 'livepatch-build -o ~/b -p a'",
    "sh -c 'livepatch-build -o b -p `cat a`'",
    "sh -c 'livepatch-build -o b -p a\necho'",
    "sh -c 'livepatch-build -o b -p a # -o c'",
    "sh -c 'livepatch-build -o b -p a || true'",
    "sh -c 'livepatch-build -o b -p a | cat'",
    "sh -c 'livepatch-build -o b -p a &'",
    "sh -c '(cd c; livepatch-build -o b -p a)'",
    "sh -c 'if true; then livepatch-build -o b -p a; fi'",
    "sh -c 'livepatch-build -o b -p a; mv b c'",
    "sh -c 'cd -; livepatch-build -o b -p a'",
    "sh -c 'cd; livepatch-build -o b -p a'",
    "sh -c 'livepatch-build -o \"b -p a'",
    "true",
]


@pytest.mark.parametrize("words", UNTOLD)
def test_what_the_words_do_not_tell_is_not_begun(folder: Path, words: str) -> None:
    """Wrong usage, before an hour's build; and no payload is looked for that another one may have written."""
    bait = Path(shutil.copy(STANDIN.parent / "x86_64-gcc-ld.livepatch", folder / "bait.livepatch"))
    before = bait.read_bytes()
    for name in ("make", "ssh", "docker", "grep", "nice", "sh", "bash", "livepatch-build", "true"):
        script(folder, f"touch {folder}/begun", name)
    done = run([*BUILD, *shlex.split(words)], folder, env=environment(folder), code=2)
    assert done.stderr.startswith(f"lpmangle: {shlex.split(words)[0]}: ")
    assert "--result FILE" in done.stderr or "needs both -o and -p" in done.stderr
    assert not (folder / "begun").exists()
    assert bait.read_bytes() == before


def test_several_runs_in_one_command(folder: Path) -> None:
    write_patch(folder / "two.patch", "-two")
    one, two = (shlex.join([*TOOL, *options(f"../{name}.patch", name)]) for name in ("fix", "two"))
    (folder / "in").mkdir()
    for name in ("tree", "config"):
        (folder / "in" / name).symlink_to(folder / name)
    done = run([*BUILD, "sh", "-c", f"cd in && {one} >log && {two} >>log"], folder)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["in/fix/fix.livepatch", "in/two/two.livepatch"]
    assert all(is_mangled(folder / "in" / name / f"{name}.livepatch") for name in ("fix", "two"))


def test_posixly_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    """getopt(1) then stops at the first word that is no option; so must we."""
    command = ["-p", "a", "word", "-o", "b"]
    assert read_arguments(command) == Arguments("b", "a")
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    assert read_arguments(command) == Arguments("", "a")


def test_many_unknown_options_end() -> None:
    assert read_arguments(["tool", *(f"--x{number}" for number in range(1000))]) == Arguments()


SHORT_NAMES = [
    "fix.diff",
    "fix",
    "xsa 123 (v2).patch",
    "0001-x86-emulate: fix.patch",
    "fix.patch.v2",
    "fix.v1.2",
    "a.patch.gz.tmp",
    "näme-ß.patch",
]
LONG_NAMES = [*("n" * size + ".patch" for size in (47, 48, 49, 127, 128, 129)), "é" * 60 + ".patch"]


@pytest.mark.parametrize(
    ("name", "limit"), [(n, "48") for n in SHORT_NAMES + LONG_NAMES] + [(n, "128") for n in LONG_NAMES]
)
def test_name_of_the_result(folder: Path, name: str, limit: str) -> None:
    """The stand-in cleans and cuts names with sed and cut, as the real tool does with bash and cut."""
    write_patch(folder / name)
    # Another one that is written meanwhile must not matter: the name alone decides.
    env = environment(STANDIN_LIMIT=limit, STANDIN_DURING='touch "$output/other.livepatch"')
    run([*BUILD, *TOOL, *options(name)], folder, env=env)
    (payload,) = (path for path in (folder / "out").glob("*.livepatch") if path.name != "other.livepatch")
    assert payload.name in payload_names(name)
    assert is_mangled(payload)


def test_patch_behind_a_link(folder: Path) -> None:
    """Newer versions take the name of the link, older ones that of the target."""
    (folder / "link.patch").symlink_to("fix.patch")
    assert {"link.livepatch", "fix.livepatch"} <= set(payload_names(str(folder / "link.patch")))
    run([*BUILD, *TOOL, *options("link.patch")], folder)
    assert is_mangled(folder / "out" / "link.livepatch")


def test_skip(folder: Path) -> None:
    """-k diff makes no payload, -k build makes one of what was built before."""
    done = run([*BUILD, *TOOL, *options(), "-k", "diff"], folder)
    assert done.stderr == "lpmangle: the command was not to make a payload, nothing was mangled\n"
    assert not list((folder / "out").glob("*.livepatch*"))
    run([*BUILD, *TOOL, *options(), "--skip", "build"], folder)
    assert is_mangled(folder / "out" / "fix.livepatch")
    assert "usage" in run([*BUILD, *TOOL, "--help"], folder).stderr


def test_result_of_another_tool(folder: Path) -> None:
    """A user says where; what else was written meanwhile is another's."""
    source = STANDIN.parent / "x86_64-gcc-ld.livepatch"
    names = ("one", "two", "sub/x")
    paths = [folder / f"{name}.livepatch" for name in names]
    tool = script(folder, f"mkdir -p sub; for name in {' '.join(names)}; do cp {source} $name.livepatch; done")

    def mangled(*results: str) -> list[bool]:
        done = run(["lpmangle", "build", *(f"--result={result}" for result in results), "--", tool], folder)
        now = [path.read_bytes() != source.read_bytes() for path in paths]
        assert done.stdout.count("symbols renamed") == sum(now)
        return now

    assert mangled("two.livepatch") == [False, True, False]
    assert mangled("./one.livepatch", "one.livepatch") == [True, False, False]
    assert mangled("*.livepatch") == [True, True, False]
    assert mangled("**/*.livepatch", "one.livepatch") == [True, True, True]
    assert mangled("sub/**", "[o]ne.livepatch") == [True, False, True]  # without the folder and the manifest


def test_result_behind_a_link(folder: Path) -> None:
    """As in XCP-ng's packages: two names of one payload are one."""
    source = STANDIN.parent / "x86_64-gcc-ld.livepatch"
    tool = script(folder, f"cp {source} lp_1.livepatch; ln -sf lp_1.livepatch livepatch.livepatch")
    done = run(["lpmangle", "build", "--suffix=name", "--result=*.livepatch", "--", tool], folder)
    assert done.stdout.startswith("lp_1.livepatch: ")
    assert done.stdout.count("symbols renamed") == 1


def test_a_result_that_is_called_like_a_pattern(folder: Path) -> None:
    source = STANDIN.parent / "x86_64-gcc-ld.livepatch"
    tool = script(folder, f"cp {source} '[o]'; cp {source} o")
    assert run(["lpmangle", "build", "--result=[o]", "--", tool], folder).stdout.startswith("[o]: ")
    assert (folder / "o").read_bytes() == source.read_bytes()


def test_no_result(folder: Path) -> None:
    done = run([*BUILD, "env", "livepatch-build", *options(), "--skip=build"], folder, code=1)
    assert "lpmangle: " not in done.stderr  # not the name of a folder
    script(folder, "echo nothing to do", "livepatch-build")
    env = environment(folder)
    done = run([*BUILD, *TOOL, *options(output="there")], folder, env=env, code=3)
    assert done.stdout == "nothing to do\n"
    assert "left no payload; looked for there/fix.livepatch\n  hint: say where" in done.stderr
    for result in ("no.livepatch", "no*.livepatch"):
        done = run(["lpmangle", "build", f"--result={result}", "--", "true"], folder, code=3)
        assert done.stderr == f"lpmangle: {result}: was not made by the command\n"


def test_two_names_that_the_result_may_have(folder: Path) -> None:
    """Both are there, and by its words either may be it."""
    (folder / "link.patch").symlink_to("fix.patch")
    run([*TOOL, *options("link.patch")], folder)
    payload = folder / "out" / "link.livepatch"
    before = Path(shutil.copy(payload, folder / "out" / "fix.livepatch")).read_bytes()
    done = run([*BUILD, *TOOL, *options("link.patch"), "--skip=build"], folder, code=3)
    assert "the payload is one of 2: out/link.livepatch, out/fix.livepatch\n  hint: say which" in done.stderr
    assert payload.read_bytes() == before


def test_a_tool_that_found_its_work_done(folder: Path) -> None:
    run([*BUILD, *TOOL, *options()], folder)
    payload = folder / "out" / "fix.livepatch"
    before = payload.read_bytes(), payload.stat().st_mtime_ns
    script(folder, "echo up to date", "livepatch-build")
    done = run([*BUILD, *TOOL, *options()], folder, env=environment(folder))
    assert done.stdout == "up to date\nout/fix.livepatch: already mangled\n"
    assert (payload.read_bytes(), payload.stat().st_mtime_ns) == before


@pytest.mark.parametrize("code", [1, 2, 7, 126, 127, 255])
def test_a_build_that_fails(folder: Path, code: int) -> None:
    """Its exit code is ours, and what it left is as it left it."""
    tool = script(folder, f'{STANDIN}/livepatch-build "$@"; exit {code}', "livepatch-build")
    done = run([*BUILD, tool, *options()], folder, code=code)
    assert done.stdout.endswith("created successfully\n")
    assert done.stderr == ""
    assert not is_mangled(folder / "out" / "fix.livepatch")


def test_a_build_that_cannot_start(folder: Path) -> None:
    build = ["lpmangle", "build", "--result", "x", "--"]
    assert "no-such-tool: cannot be started: No such file" in run([*build, "no-such-tool"], folder, code=127).stderr
    (folder / "text").write_text("text")
    assert "text: cannot be started: Permission denied" in run([*build, "./text"], folder, code=126).stderr
    run(["lpmangle", "build"], folder, code=2)
    run(["lpmangle", "build", "--no-such-option", "--", *TOOL, *options()], folder, code=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGKILL, signal.SIGPIPE])
def test_a_build_that_dies_of_a_signal(folder: Path, number: signal.Signals) -> None:
    """We die of the same one: for a shell 128 + N, and for SIGINT the reason to leave its script."""
    tool = script(folder, f'{STANDIN}/livepatch-build "$@"; kill -{number} $$; sleep 9', "livepatch-build")
    run([*BUILD, tool, *options()], folder, code=-number)
    assert not is_mangled(folder / "out" / "fix.livepatch")
    command = f"lpmangle build -- {tool} {' '.join(options(output='out2'))}; exit $?"
    run(["sh", "-c", command], folder, code=128 + number)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--suffix=text:a#b", "suffix 'a#b' cannot be part"),
        ("--suffix=buildid:3", "--suffix buildid:3: N must be a number"),
        ("--suffix=fix", "--suffix 'fix' is none of"),
        ("--template={symbol}", "template '{symbol}' must contain {suffix}"),
        (f"--suffix=text:{'a' * 120}", "bytes for the name itself"),
    ],
)
def test_wrong_options_are_said_before_the_build(folder: Path, option: str, said: str) -> None:
    done = run(["lpmangle", "build", option, "--", *TOOL, *options()], folder, code=2)
    assert said in done.stderr
    assert not (folder / "out").exists()


def test_what_lpmangle_refuses_is_left_as_the_linker_left_it(folder: Path) -> None:
    signed = script(folder, f'{STANDIN}/livepatch-build "$@" && echo SIGNATURE >>out2/fix.livepatch', "livepatch-build")
    done = run([*BUILD, signed, *options(output="out2")], folder, code=3)
    assert "follow its last section" in done.stderr
    assert not is_mangled(folder / "out2" / "fix.livepatch")
    run(["lpmangle", "build", "--force", "--", signed, *options(output="out2"), "-k", "build"], folder)
    assert is_mangled(folder / "out2" / "fix.livepatch")


def start(folder: Path, during: str, *, before: str = "exec") -> "subprocess.Popen[str]":
    """A build that says `ready` and waits in the place where the real tool runs make."""
    env = environment(STANDIN_DURING=during)
    process = subprocess.Popen(
        ["bash", "-c", f"{before} lpmangle build -- livepatch-build {' '.join(options())}"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, process.communicate()
    return process


# Bash runs a trap after the command at hand: a short one, again and again.
WAIT = 'echo ready; for i in {1..200}; do sleep 0.05; [ -z "${caught-}" ] || break; done'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_reaches_the_build(folder: Path, number: signal.Signals) -> None:
    """The tool decides what comes of it: here its own exit code."""
    process = start(folder, f"trap 'echo caught; exit 9' {number.name[3:]}; {WAIT}")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (9, "caught\n")
    assert "lpmangle" not in stderr  # bash may say what its `sleep` died of
    assert not list((folder / "out").glob("*.livepatch*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_kills_the_build(folder: Path, number: signal.Signals) -> None:
    process = start(folder, WAIT)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number


# Each has our standard output, so that `communicate` returns when all have ended.
OTHERS = {
    "children": "sh -c 'sleep 60 & sleep 60; true' &",
    "an orphan": "sh -c 'sleep 60 & true'",
    "a process group of its own": "timeout 900 sleep 60 &",
    "make -j": r"""printf 'all: a b c\na b c:\n\t@sleep 60\n' >jobs; make -j3 -f jobs &""",
    "one that starts others all the time": "sh -c 'for i in $(seq 300); do sleep 60 & sleep 0.001; done' &",
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_that_the_build_has_started(folder: Path, number: signal.Signals, others: str) -> None:
    process = start(folder, f"{others}\necho ready; wait")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number


def test_sigint_ends_what_the_build_waits_for(folder: Path) -> None:
    """Not what a shell without job control has started with `&`: that ignores SIGINT."""
    process = start(folder, "sh -c 'echo ready; sh -c \"sleep 60; true\"; true'")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT


def test_a_signal_leaves_others_alone(folder: Path) -> None:
    """A daemon that the build has started, and what was there before lpmangle."""
    daemon = "setsid sh -c 'echo $$ >daemon; exec sleep 60' >/dev/null 2>&1 &"
    during = f"cd {folder}; {daemon}\nuntil [ -s daemon ]; do sleep 0.05; done; echo ready; wait"
    process = start(folder, during, before="sleep 60 >/dev/null 2>&1 & echo $! >earlier; exec")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    for name in ("daemon", "earlier"):
        os.kill(int((folder / name).read_text()), signal.SIGKILL)  # it is there


def test_what_handles_a_signal_may_start_others(folder: Path) -> None:
    """As many scripts clean up: with commands, which must not be ended too, and each script once."""
    nested = script(
        folder, "trap 'sleep 0.2; echo cleaned >>cleaned; exit' TERM; echo ready; sleep 60 & wait", "nested"
    )
    process = start(folder, f"cd {folder}; {nested} & wait")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert (folder / "cleaned").read_text() == "cleaned\n"


def test_an_interrupted_build_that_ends_well(folder: Path) -> None:
    """Whoever interrupted it must not read of success; the payload is as the linker left it."""
    process = start(folder, f"trap 'caught=1; echo going on' TERM; {WAIT}")
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert "going on\n" in stdout
    assert stderr.endswith("lpmangle: interrupted by SIGTERM, nothing was mangled\n")  # after what a shell may say
    assert process.returncode == -signal.SIGTERM
    assert not is_mangled(folder / "out" / "fix.livepatch")


def test_other_signals_are_no_interruption(folder: Path) -> None:
    process = start(folder, f"trap 'caught=1; echo status' USR1; {WAIT}")
    process.send_signal(signal.SIGUSR1)
    stdout, _ = process.communicate(timeout=30)
    assert "status\n" in stdout
    assert process.returncode == 0
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_nohup(folder: Path) -> None:
    process = start(folder, "echo ready; kill -HUP $$; sleep 0.3", before="trap '' HUP; exec")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_a_parent_that_ignores_children(folder: Path) -> None:
    """With SIGCHLD ignored, as some daemons leave it, the kernel keeps no exit codes."""
    process = start(folder, "echo ready; exit 5", before="trap '' CHLD; exec")
    process.communicate(timeout=30)
    assert process.returncode == 5


def on_terminal(folder: Path, command: list[str], keys: dict[str, str]) -> tuple[str, int]:
    """Run it as the foreground job of a terminal of its own; `keys` are typed when their word is shown."""
    child, terminal = os.forkpty()
    if child == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, environment())
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not (piece := os.read(terminal, 1000)):
                break
        except OSError:  # the last process has closed it
            break
        shown += piece
        for word in [word for word in keys if word.encode() in shown]:
            os.write(terminal, keys.pop(word).encode())
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_terminal(folder: Path) -> None:
    """The command has the very terminal, for input too."""
    tool = script(
        folder, f"test -t 0 -a -t 1 -a -t 2 && tty; read -p 'name? ' name; echo hello $name; tput cols; {STANDIN}/$*"
    )
    shown, code = on_terminal(
        folder,
        ["lpmangle", "build", "--result=out/fix.livepatch", tool, "livepatch-build", *options()],
        {"name? ": "xen\n"},
    )
    assert code == 0, shown
    assert shown.startswith("/dev/pts/")
    assert "hello xen\n" in shown
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_ctrl_c_once(folder: Path) -> None:
    """The terminal sends SIGINT to both of us: passed on it would come twice."""
    count = """\
import os, select, signal, time
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)  # a byte for each signal, also for two that come close together
signal.signal(signal.SIGINT, lambda number, frame: None)
print("ready", flush=True)
select.select([reader], [], [], 60)
time.sleep(0.5)  # for a second one
open("caught", "wb").write(os.read(reader, 100))
"""
    shown, code = on_terminal(
        folder, ["lpmangle", "build", "--result=x", sys.executable, "-c", count], {"ready": "\x03"}
    )
    assert (folder / "caught").read_bytes() == bytes([signal.SIGINT]), shown
    assert code == -signal.SIGINT
    assert "interrupted by SIGINT" in shown


def test_ctrl_c_ends_the_script_around_it(folder: Path) -> None:
    loop = script(
        folder, "for i in 1 2 3; do lpmangle build --result=x sh -c 'echo ready; sleep 9'; echo next; done", "loop"
    )
    shown, code = on_terminal(folder, [loop], {"ready": "\x03"})
    assert "next" not in shown
    assert code == -signal.SIGINT


def test_input_output_and_descriptors(folder: Path) -> None:
    """Pipes, and what make hands to its children (the job server), go through."""
    tool = script(folder, f'cat; echo words >&2; echo fd 9 >&9; {STANDIN}/livepatch-build "$@"', "livepatch-build")
    shell = f"exec lpmangle build -- {tool} {' '.join(options())} 9>nine"
    done = run(["sh", "-c", shell], folder, stdin="typed")
    assert done.stdout.startswith("typedBuilding")
    assert done.stderr == "words\n"
    assert (folder / "nine").read_text() == "fd 9\n"


def test_output_is_not_held_back(folder: Path) -> None:
    process = start(folder, WAIT)  # "ready" came while the tool runs
    assert process.poll() is None
    process.terminate()
    process.communicate()


def test_two_builds_in_one_folder(folder: Path) -> None:
    """At once, into one output folder too."""
    text = """\
name=$1
livepatch-build "${@:2}" -o out-$name && sleep 0.3 && cp out-$name/$name.livepatch both/
"""
    tool = script(folder, text, "livepatch-build-in-both")
    (folder / "both").mkdir()
    processes = []
    for name in ("one", "two"):
        patch = write_patch(folder / f"{name}.patch", f"-{name}")
        words = [*BUILD, tool, name, *options(patch.name, "both")]
        processes.append(subprocess.Popen(words, cwd=folder, env=environment()))
    assert [process.wait(60) for process in processes] == [0, 0]
    for name in ("one", "two"):
        assert is_mangled(folder / "both" / f"{name}.livepatch")


# share/lpmangle/livepatch-build


@pytest.fixture
def wrapped(folder: Path) -> Path:
    """A folder for PATH that holds the drop-in."""
    place = folder / "bin"
    place.mkdir()
    (place / "livepatch-build").symlink_to(WRAPPER)
    return place


def test_drop_in(folder: Path, wrapped: Path) -> None:
    env = environment(wrapped, LPMANGLE_FLAGS="--suffix name  --keep *calls -q")
    (folder / "a-calls").touch()  # what the shell would make of *calls
    done = run([*TOOL, *options()], folder, env=env)
    assert done.stdout.endswith("fix.livepatch created successfully\n")
    assert "x86_emulate.c#_get_fpu_fix" in names(folder / "out" / "fix.livepatch")
    assert "x86_emulate.c#get_fpu_calls" in names(folder / "out" / "fix.livepatch")
    assert (
        run([*TOOL, *options()], folder, env=environment(wrapped), code=1).stderr
        == "ERROR: the output folder exists.\n"
    )


def test_drop_in_does_not_find_itself(folder: Path, wrapped: Path) -> None:
    """Neither through links nor as a copy, and not when lpmangle build runs it."""
    (folder / "copy").mkdir()
    shutil.copy(WRAPPER, folder / "copy" / "livepatch-build")
    (folder / "not-a-program").mkdir()
    (folder / "not-a-program" / "livepatch-build").write_text("no")
    env = environment(wrapped, folder / "copy", WRAPPER.parent, folder / "not-a-program")
    done = run([*TOOL, *options()], folder, env=env)
    assert done.stdout.count("symbols renamed") == 1
    done = run([*BUILD, *TOOL, *options(output="out2")], folder, env=env)
    assert done.stdout.count("symbols renamed") == 1
    assert done.stdout.count("already mangled") == 1
    done = run(
        [*TOOL, *options()], folder, env={**env, "LPMANGLE_LIVEPATCH_BUILD": str(wrapped / "livepatch-build")}, code=127
    )
    assert "is this script" in done.stderr


def test_drop_in_says_what_is_missing(folder: Path, wrapped: Path) -> None:
    env = {**environment(), "PATH": f"{wrapped}:/usr/bin:/bin"}
    assert "the real livepatch-build is not in PATH" in run([*TOOL], folder, env=env, code=127).stderr
    env["LPMANGLE_LIVEPATCH_BUILD"] = str(STANDIN / "livepatch-build")
    assert "lpmangle is not in PATH" in run([*TOOL], folder, env=env, code=127).stderr
    env["LPMANGLE"] = str(Path(sys.executable).parent / "lpmangle")
    run([*TOOL, *options()], folder, env=env)
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_several_files_and_a_new_one(folder: Path) -> None:
    """Symbols of a file that is new in the patch have no file# prefix, and are renamed as well."""
    patch = write_patch(folder / "fix.patch", code=CODE.replace("type & 7", "type & 3"))
    added = ["static int __attribute__((noipa, used)) lp_helper(int x)", "{", "    return x + 1;", "}"]
    lines = "".join(f"+{line}\n" for line in added)
    patch.write_text(f"{patch.read_text()}--- /dev/null\n+++ b/xen/new.c\n@@ -0,0 +1,{len(added)} @@\n{lines}")
    run(["lpmangle", "build", "--suffix", "name", *TOOL, *options()], folder)
    assert "lp_helper_fix" in names(folder / "out" / "fix.livepatch")

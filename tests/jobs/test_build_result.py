"""Which payload a build makes: its words or --result say it before it runs; it is never searched."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from builds import STANDIN, environment, is_mangled, make_build, options, run, script, write_patch

from lpmangle.jobs.command_line import calls
from lpmangle.jobs.livepatch_build import Arguments, is_livepatch_build, payload_names, read_arguments

BUILD = ["lpmangle", "build", "--"]
TOOL = ["livepatch-build"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With all that a build needs."""
    return make_build(tmp_path)


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
    # An older payload of another name in the folder must not be used.
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
    """The words say it, and the folder, whatever runs the tool."""
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
    """A usage error before the build; lpmangle does not search for payloads, which others may have written."""
    bait = Path(shutil.copy(STANDIN.parent / "x86_64-gcc-ld.livepatch", folder / "bait.livepatch"))
    before = bait.read_bytes()
    for name in ("make", "ssh", "docker", "grep", "nice", "sh", "bash", "livepatch-build", "true"):
        script(folder, f"touch {folder}/begun", name)
    done = run([*BUILD, *shlex.split(words)], folder, env=environment(folder), code=2)
    assert done.stderr.startswith(f"lpmangle: {shlex.split(words)[0]}: ")
    assert "--result FILE" in done.stderr or "needs -o and -p" in done.stderr
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
    """getopt(1) then stops at the first word that is not an option; so must we."""
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
    # Another payload that is written meanwhile must not matter: only the name decides.
    env = environment(STANDIN_LIMIT=limit, STANDIN_DURING='touch "$output/other.livepatch"')
    run([*BUILD, *TOOL, *options(name)], folder, env=env)
    (payload,) = (path for path in (folder / "out").glob("*.livepatch") if path.name != "other.livepatch")
    assert payload.name in payload_names(name)
    assert is_mangled(payload)


def test_patch_behind_a_link(folder: Path) -> None:
    """Newer versions use the name of the link, older ones that of the target."""
    (folder / "link.patch").symlink_to("fix.patch")
    assert {"link.livepatch", "fix.livepatch"} <= set(payload_names(str(folder / "link.patch")))
    run([*BUILD, *TOOL, *options("link.patch")], folder)
    assert is_mangled(folder / "out" / "link.livepatch")


def test_skip(folder: Path) -> None:
    """-k diff makes no payload, -k build makes one of what was built before."""
    done = run([*BUILD, *TOOL, *options(), "-k", "diff"], folder)
    assert done.stderr == "lpmangle: the command builds no payload; nothing was mangled\n"
    assert not list((folder / "out").glob("*.livepatch*"))
    run([*BUILD, *TOOL, *options(), "--skip", "build"], folder)
    assert is_mangled(folder / "out" / "fix.livepatch")
    assert "usage" in run([*BUILD, *TOOL, "--help"], folder).stderr


def test_result_of_another_tool(folder: Path) -> None:
    """A user says where; other files that were written meanwhile do not count."""
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
    """Both exist, and the words fit either."""
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

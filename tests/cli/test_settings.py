"""Settings: an option that is not on the command line may be in the environment."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from builds import environment, run
from commands import EXAMPLES, ROOT

from lpmangle.cli.catalog import command as catalog
from lpmangle.cli.commands import COMMANDS
from lpmangle.cli.group import cli

# Other variables that the project reads.
OTHERS = re.compile(r"(?<![A-Z_])LPMANGLE_[A-Z_]+")


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path / "p.livepatch"))


def lpmangle(*words: str, cwd: Path, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {f"LPMANGLE_{name}": value for name, value in variables.items()}
    return run(["lpmangle", *words], cwd, code=code, env=environment(**settings))


def commands(command: click.Command, ctx: click.Context) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    for name in command.list_commands(ctx):
        child = command.get_command(ctx, name)
        assert child
        yield from commands(child, ctx)


def options() -> dict[click.Command, list[click.Option]]:
    return {
        command: [option for option in command.params if isinstance(option, click.Option)]
        for command in commands(cli, click.Context(cli))
    }


def test_each_option_has_a_variable_of_its_own() -> None:
    """Except -m: LPMANGLE_MANIFESTS is for all commands. No variable has another meaning elsewhere."""
    known: set[str] = set()
    for command, several in options().items():
        names = [option.envvar for option in several if "-m" not in option.opts]
        assert len(set(names)) == len(names), command.name
        known |= {str(name) for name in names}
    assert {"LPMANGLE_SUFFIX", "LPMANGLE_CHECK_XEN_VERSION", "LPMANGLE_CATALOG_REMOVE_ALL"} <= known
    texts = [path.read_text() for folder in ("tests", "scripts", "share/lpmangle") for path in files(ROOT / folder)]
    texts += [(ROOT / "Makefile").read_text(), (ROOT / "lpmangle/store/open.py").read_text()]
    others = {name for text in texts for name in OTHERS.findall(text)}
    assert {"LPMANGLE_LABS", "LPMANGLE_SEED", "LPMANGLE_FLAGS", "LPMANGLE_MANIFESTS"} <= others
    assert known.isdisjoint(others)


def files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        ours = Path(__file__).parent not in path.parents and "corpus" not in path.parts  # tests of settings are beside
        if ours and path.suffix in ("", ".py") and path.is_file():
            yield path


def test_help_names_them(payload: Path) -> None:
    text = " ".join(lpmangle("check", "--help", cwd=payload.parent).stdout.split())
    assert "[env var: LPMANGLE_CHECK_VENDOR]" in text
    for words in (["--help"], ["build", "--help"]):
        assert "[env var: LPMANGLE_SUFFIX]" in " ".join(lpmangle(*words, cwd=payload.parent).stdout.split())


def test_the_command_line_wins(payload: Path) -> None:
    """And -v says which value came from where."""
    words = ("-v", "--dry-run", "--scope", "new", "p.livepatch")
    done = lpmangle(*words, cwd=payload.parent, SUFFIX="name", SCOPE="local", EMBED="0", KEEP="lp_* *calls")
    assert done.stdout.startswith(
        "  --suffix name (from LPMANGLE_SUFFIX)\n"
        "  --scope new (from the command line, not from LPMANGLE_SCOPE)\n"
        "  --keep lp_* --keep *calls (from LPMANGLE_KEEP)\n"
        "  no --embed (from LPMANGLE_EMBED)\n"
        "  --dry-run (from the command line)\n"
    )
    assert "x86_emulate.c#_get_fpu_p\n" in done.stdout
    assert done.stdout.count("(matches --keep)") + done.stdout.count("(kept by") <= 2


def test_flags_and_numbers(payload: Path) -> None:
    shutil.copy(payload, payload.with_name("q.livepatch"))
    lpmangle("p.livepatch", "q.livepatch", cwd=payload.parent, JOBS="2", EMBED="1", QUIET="yes", MANIFEST="")
    for name in ("p", "q"):
        assert b".debug_lpmangle" in payload.with_name(f"{name}.livepatch").read_bytes()


def test_an_empty_variable_is_not_set(payload: Path) -> None:
    """Whatever the option's type; so a script can clear one for a single call."""
    names = {str(option.envvar) for several in options().values() for option in several if option.envvar}
    env = {**environment(), **dict.fromkeys([*names, "LPMANGLE_MANIFESTS"], "")}
    done = run(["lpmangle", "-v", "p.livepatch"], payload.parent, env=env)
    assert done.stdout.startswith("p.livepatch: 5 symbols renamed, suffix d967c17f")
    for command in ("check", "verify", "show", "restore"):
        run(["lpmangle", command, "p.livepatch"], payload.parent, env=env)


def test_build_has_those_of_mangle(payload: Path) -> None:
    done = lpmangle("build", "--", "true", cwd=payload.parent, SUFFIX="name", RESULT="p.livepatch", BEFORE="true\ntrue")
    assert done.stdout == "p.livepatch: 5 symbols renamed, suffix p\n"


def test_against_takes_urls(payload: Path) -> None:
    """A colon in a URL is not a separator."""
    shutil.copy(payload, payload.with_name("q.livepatch"))
    done = lpmangle("p.livepatch", "q.livepatch", cwd=payload.parent, code=4, AGAINST="http://127.0.0.1:1/x:missing")
    assert done.stderr == "lpmangle: missing: cannot read: No such file or directory\n"


def test_what_goes_with_another_option_waits_for_it(payload: Path) -> None:
    assert lpmangle("p.livepatch", cwd=payload.parent, XEN="xen-syms").stderr == ""
    lpmangle("build", "--result", "p.livepatch", "--", "true", cwd=payload.parent, XEN="xen-syms", LOADED="p.livepatch")
    lpmangle("--xen", "xen-syms", "p.livepatch", cwd=payload.parent, code=2)


@pytest.mark.parametrize(
    ("words", "variable", "value"),
    [
        ([], "SUFFIX", "bad"),
        ([], "SCOPE", "bad"),
        ([], "EMBED", "maybe"),
        ([], "JOBS", "0"),
        ([], "OUTPUT", "no/folder/x"),
        ([], "AGAINST", "-"),
        ([], "DEPFILE", "x"),
        (["build", "--result", "p.livepatch", "--"], "BEFORE", "strip '"),
        (["check"], "CHECK_VENDOR", "bad"),
        (["check"], "CHECK_XEN_VERSION", "bad"),
        (["check"], "CHECK_LOADED", "missing.livepatch"),
        (["verify"], "VERIFY_JSON", "maybe"),
        (["restore"], "RESTORE_OUTPUT", "no/folder/x"),
        (["catalog", "list"], "CATALOG_LIST_JSON", "maybe"),
    ],
)
def test_a_wrong_value_names_its_variable(payload: Path, words: list[str], variable: str, value: str) -> None:
    before = payload.read_bytes()
    done = lpmangle(*words, "p.livepatch", cwd=payload.parent, code=2, **{"SUFFIX": "name", variable: value})
    assert done.stderr.endswith(f"  from the environment: LPMANGLE_{variable}={value}\n")
    assert (payload.read_bytes(), list(payload.parent.iterdir())) == (before, [payload])


@pytest.mark.parametrize("words", [["missing"], ["--scope", "bad", "p.livepatch"], ["--nonsense"], []])
def test_a_wrong_word_names_none(payload: Path, words: list[str]) -> None:
    assert "environment" not in lpmangle(*words, cwd=payload.parent, code=2, SUFFIX="name", SCOPE="new").stderr


def test_all_commands_read_them() -> None:
    """A new command must use the class."""
    assert all(option.envvar for several in options().values() for option in several if "-m" not in option.opts)
    assert len(options()) == len(COMMANDS) - 1 + len(catalog.commands)

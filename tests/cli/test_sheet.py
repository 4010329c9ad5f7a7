"""check --html and compare --html: a page for a change ticket, as a real browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLES, lpmangle
from hypervisor import base
from lab.editor import Editor
from signing import key, public, sign
from toolchain import find

NASTY = "<script>alert(1)</script>"
LONG = "a_function_with_a_name_of_more_than_a_hundred_characters_" + 60 * "x"
FLEET = """\
# bare

# rack-1
617712b.livepatch

# rack-2 <b>
617712b.livepatch

# 1\u202e0
fbab204.livepatch
8d4a1c7.livepatch
"""
WIDTHS = (400, 1200)
# Reads frames, each with one of the pages: the pages themselves must not have scripts.
LOOK = r"""
const srgb = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * srgb(r) + 0.7152 * srgb(g) + 0.0722 * srgb(b);
const numbers = colour => colour.match(/[\d.]+/g).map(Number);
function behind(element) {
  for (; element; element = element.parentElement) {
    const [r, g, b, alpha = 1] = numbers(element.ownerDocument.defaultView.getComputedStyle(element).backgroundColor);
    if (alpha === 1) return [r, g, b];
    if (alpha !== 0) throw "half transparent";
  }
  throw "no background";
}
function contrast(element) {
  const colour = numbers(element.ownerDocument.defaultView.getComputedStyle(element).color);
  const [low, high] = [light(colour), light(behind(element))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function look(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const speaks = [...page.body.querySelectorAll("*")].filter(element =>
    element.matches("svg.sign") || [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const cut = [...page.body.querySelectorAll("*")].filter(element =>
    element.scrollWidth > element.clientWidth + 1 && element.clientWidth && !element.closest("svg, .wide"));
  return {
    page: frame.dataset.page, width: frame.contentWindow.innerWidth, wanted: Number(frame.dataset.width),
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches, scheme: frame.dataset.scheme,
    scroll: root.scrollWidth, cut: cut.map(element => element.outerHTML.slice(0, 200)),
    contrast: Math.min(...speaks.map(contrast)), looked: speaks.length,
    scripts: page.scripts.length, text: page.body.textContent,
    small: Math.min(...speaks.map(e => parseFloat(frame.contentWindow.getComputedStyle(e).fontSize))),
  };
}
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(look);
  document.body.innerHTML = "<pre id=found></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
};
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Payloads with names that need escapes or are long, a file of stacks, and the pages about them."""
    path = tmp_path_factory.mktemp("sheet")
    for payload in (*EXAMPLES.glob("*.livepatch"), *EXAMPLES.glob("stacked/*.livepatch")):
        shutil.copy(payload, path)
    for name, symbol in (("odd.livepatch", NASTY), (f"{LONG}.livepatch", LONG)):
        (path / name).write_bytes(Editor(base()).rename("lp_data", symbol).edit_symbol(15, shndx=0xFFF2).data)
    (path / "dead.livepatch").write_bytes(Editor(base()).edit(".rela.text", info=0).data)
    more = "".join(f"\n# node-{number:02}\n617712b.livepatch\n8d4a1c7.livepatch\n" for number in range(30))
    (path / "fleet").write_text(FLEET + more)
    payloads = ("617712b.livepatch", "fbab204.livepatch", "odd.livepatch", f"{LONG}.livepatch", "dead.livepatch")
    lpmangle("check", "--html", "check.html", *payloads, cwd=path, code=1)
    lpmangle("check", "--html", "one.html", "617712b.livepatch", cwd=path)
    lpmangle("check", "--html", "fleet.html", "--stack", "fleet", "fbab204.livepatch", cwd=path, code=1)
    lpmangle("check", "--html", "fleets.html", "--stack", "fleet", *payloads, cwd=path, code=1)
    shutil.copy(EXAMPLES / "617712b.livepatch", path / "signed.livepatch")
    sign(path / "signed.livepatch")
    other = ("--key", str(public(key("another"))), "signed.livepatch")
    lpmangle("check", "--html", "signed.html", *other, cwd=path, code=1)
    lpmangle("check", "--html", "signed-fleet.html", "--stack", "fleet", *other, cwd=path, code=1)
    lpmangle("compare", "--html", "compare.html", "617712b.livepatch", "fbab204.livepatch", cwd=path)
    lpmangle("compare", "--html", "compare-odd.html", "617712b.livepatch", "odd.livepatch", cwd=path)
    return path


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """What the browser measures of all pages in one start, each in both widths and colour schemes."""
    chromium = find("chromium")
    frames = [
        f'<iframe data-page="{page.stem}" data-width="{width}" data-scheme="{scheme}" srcdoc="{_quoted(page)}"'
        f' style="color-scheme:{scheme};width:{width}px;height:800px;border:0"></iframe>'
        for page in folder.glob("*.html")
        for width in WIDTHS
        for scheme in ("light", "dark")
    ]
    looker = folder / "look.htm"
    looker.write_text(f"<!doctype html><meta charset=utf-8><script>{LOOK}</script>{''.join(frames)}")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([chromium, *options, looker.as_uri()], capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="found">(.*)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr
    answers: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    assert len(answers) == len(frames) == 32
    return answers


def _quoted(page: Path) -> str:
    return html.escape(page.read_text())


def test_as_wide_as_the_window(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert one["width"] == one["wanted"]
        assert one["scroll"] <= one["width"], one["page"]
        assert one["cut"] == [], one["page"]


def test_can_be_read_in_both_schemes(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert one["dark"] == (one["scheme"] == "dark")
        assert one["looked"] > 15
        assert one["contrast"] >= 4.5, (one["page"], one["scheme"])
        assert one["small"] >= 12


def test_names_are_text(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert one["scripts"] == 0
        assert (NASTY in one["text"]) == (one["page"] in ("check", "fleets", "compare-odd"))
        assert ("rack-2 <b>" in one["text"]) == ("1\\u202e0" in one["text"]) == ("fleet" in one["page"])


def test_a_page_stands_alone(folder: Path) -> None:
    """Nothing is fetched, nothing runs; the same input makes the same page."""
    for page in folder.glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<(script|img|link|iframe)|\bon\w+=|@import|url\(|src=|https?:", html_only(text))
        assert set(re.findall(r'href="([^"]*)"', text)) <= {"#good", "#bad", "#warn", "#info", "#dead"}
    first = (folder / "one.html").read_bytes()
    lpmangle("check", "--html", "one.html", "617712b.livepatch", cwd=folder)
    assert (folder / "one.html").read_bytes() == first


class Text(HTMLParser):
    """The text of a page as one line, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += self.get_starttag_text() or ""

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def html_only(page: str) -> str:
    return Text(page).tags


def sentences(said: str) -> Iterator[str]:
    """The sentences of a terminal report, without marks, indents and the heads of its tables."""
    for line in said.splitlines():
        if not line.startswith(("PAYLOAD", "STACK")):
            yield from filter(None, (" ".join(part.split()) for part in re.split(r"  +|(?<=^STACK)", line)))


@pytest.mark.parametrize("version", [[], ["--xen-version", "4.17"]], ids=["newest", "4.17"])
def test_says_what_the_terminal_says(folder: Path, version: list[str]) -> None:
    payloads = ("617712b.livepatch", "fbab204.livepatch", "odd.livepatch", "dead.livepatch")
    said = lpmangle("check", *version, "--html", "said.htm", *payloads, cwd=folder, code=1).stdout
    assert said == lpmangle("check", *version, *payloads, cwd=folder, code=1).stdout
    page = " ".join(Text((folder / "said.htm").read_text()).words)
    for sentence in sentences(said):
        sentence = re.sub(r"^> ", "", sentence)
        sentence = re.sub(r" *\[([\w-]+)\]$", "", sentence)
        assert sentence in page, sentence


def test_a_fleet_as_the_terminal_has_it(folder: Path) -> None:
    said = lpmangle("check", "--stack", "fleet", "fbab204.livepatch", cwd=folder, code=1).stdout
    page = " ".join(Text((folder / "fleet.html").read_text()).words)
    for line in said.splitlines()[-6:]:
        for sentence in re.split(r"  +|: (?=accepted)| x ", line):
            assert sentence in page, sentence
    assert "rack-1, rack-2 <b> 2 stacks; 617712b.livepatch refused fbab204: duplicate new symbol" in page
    assert "node-07 and 22 more" in page
    assert "✓" not in page  # signs are drawn: not every font has them


def test_signatures_as_the_terminal_has_them(folder: Path) -> None:
    other = ("--key", str(public(key("another"))), "signed.livepatch")
    said = lpmangle("check", *other, cwd=folder, code=1).stdout.splitlines()[-2:]
    for name in ("signed.html", "signed-fleet.html"):
        text = (folder / name).read_text()
        page = " ".join(Text(text).words)
        assert [line.strip().removeprefix("signed.livepatch: ") in page for line in said] == [True, True]
        assert "; 1 signature is not valid" in page
    assert "signed (.note.Xen.signature, RSA, SHA-256)" not in (folder / "one.html").read_text()


def test_a_comparison_as_the_terminal_has_it(folder: Path) -> None:
    pair = ("617712b.livepatch", "fbab204.livepatch")
    said = lpmangle("compare", *pair, cwd=folder).stdout
    text = (folder / "compare.html").read_text()
    page = " ".join(Text(text).words)
    summary, *lines = said.replace("All 8 findings: lpmangle check --loaded OLD NEW", "").splitlines()
    for sentence in summary.removeprefix("617712b.livepatch -> fbab204.livepatch: ").split("; "):
        assert f"<li>{sentence}</li>" in text
    for line in lines:
        for sentence in re.split(r"  +|: (?=refused)", line.strip()):
            assert re.sub(r" *\[([\w-]+)\]$", "", sentence) in page, sentence
    found = lpmangle("check", "--loaded", *pair, cwd=folder, code=1).stdout
    assert all(remedy in page for remedy in re.findall("remedy: .*", found))
    assert "state that is lost" in text.partition('class="is-lost fill-warn"')[2].partition("</h2>")[0]
    said = lpmangle("compare", "--html", "fleet", *pair, cwd=folder, code=4).stderr
    assert said.startswith("lpmangle: fleet: exists and is not an HTML page: not replaced\n")


def test_colours_are_not_all(folder: Path) -> None:
    """Each cell has a sign and a word beside its colour."""
    cells = re.findall(r'<td class="fill-(\w+)">(.*?)</td>', (folder / "fleets.html").read_text())
    assert {tone for tone, _ in cells} == {"info", "bad", "dead"}  # without --xen not all is checked
    for tone, cell in cells:
        assert f'<use href="#{tone}"/>' in cell
        assert re.search("accepted|refused|would crash the hypervisor", cell)


def test_a_page_costs_no_other_file(folder: Path) -> None:
    before = (folder / "fleet").read_bytes()
    said = lpmangle("check", "--html", "fleet", "617712b.livepatch", cwd=folder, code=4).stderr
    assert said.startswith("lpmangle: fleet: exists and is not an HTML page: not replaced\n")
    assert (folder / "fleet").read_bytes() == before
    said = lpmangle("check", "--html", "new", "--junit", "./new", "617712b.livepatch", cwd=folder, code=2).stderr
    assert "--junit and --html name the same file" in said
    assert not (folder / "new").exists()

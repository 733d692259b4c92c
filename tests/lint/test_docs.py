"""Pages for operators against the program: every drop has advice, every verb and option a word."""

import re
import subprocess

import tree


def lbctl(*arguments):
    return subprocess.run([tree.BUILD / "bin/lbctl", *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


def verbs():
    """Every verb of lbctl's command tree, as `target add`, with its options: the names that each has."""
    pages = re.split(r"^\.SS lbctl ", re.sub(r"\\f.", "", lbctl("man")).replace("\\-", "-"), flags=re.M)[1:]
    return {page.splitlines()[0]: [re.findall(r"--?[a-z][a-z-]*", line) for line in page.splitlines() if line.startswith("-")] for page in pages}


def test_every_reason_for_a_drop_has_advice():
    listed = tree.text("dp/abi/counters.h").split("LB_DROP_REASONS")[1]
    reasons = set(re.findall(r"^ *X\((\w+),", listed, re.M))
    assert len(reasons) > 45
    table = "\n".join(line.split("|")[1] for line in tree.text("docs/operations.md").splitlines() if line.startswith("| `"))
    assert reasons - set(re.findall(r"`(\w+)`", table)) == set()


def test_every_verb_has_its_section():
    headings = {word for line in tree.text("docs/lbctl.md").splitlines() if line.startswith("## ") for word in re.findall(r"\w+", line)}
    known = verbs()
    assert len(known) > 25
    assert {verb.split()[0] for verb in known} - headings == set()


def test_every_option_is_explained():
    page = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", tree.text("docs/lbctl.md")))
    known = verbs()
    assert ["-f", "--file"] in known["apply"]
    assert [f"{verb} {names[-1]}" for verb, options in known.items() for names in options if not page & set(names)] == []

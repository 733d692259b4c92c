"""Words, sizes and whitespace of every file; titles of commits."""

import os
import pathlib
import re
import subprocess

import pytest
import tree

MAX_LINES = 600
MAX_COLUMNS = 125
MAX_TITLE = 72
# Synonyms of the words in docs/architecture.md, and notes to oneself.
FORBIDDEN = re.compile(
    r"\breal[_ ]?servers?\b|\breals\b|\bbackends?\b|\bendpoints?\b|\bRS\b|\bserver[_ ]pools?\b|\bTODO\b|\bFIXME\b|\bXXX\b|"
    r"\bnot (yet )?implemented\b|\bfor[ ]now\b",
    re.IGNORECASE)
TEXT_SUFFIXES = {".h", ".cc", ".c", ".py", ".md", ".proto", ".yaml", ".yml", ".build", ".txt", ".sh", ""}


def texts():
    """Files people write: not the licence, not test data, not this rule itself."""
    return [n for n in tree.files() if pathlib.PurePath(n).suffix in TEXT_SUFFIXES and n not in ("LICENSE", "tests/lint/test_text.py")
            and not n.startswith(("tests/fuzz/seeds/", "tests/golden/data/"))]


def test_no_file_is_longer_than_600_lines():
    long = {n: tree.text(n).count("\n") for n in texts() if tree.text(n).count("\n") > MAX_LINES}
    assert not long


def test_words():
    found = [f"{n}:{i}: {m.group(0)}" for n in texts() for i, line in enumerate(tree.text(n).splitlines(), 1)
             for m in FORBIDDEN.finditer(line)]
    assert not found, "\n".join(found)


def test_whitespace():
    found = []
    for name in texts():
        text = tree.text(name)
        if text and not text.endswith("\n"):
            found.append(f"{name}: no newline at the end")
        found += [f"{name}:{i}: {'tab' if chr(9) in line else 'blank at the end'}" for i, line in enumerate(text.splitlines(), 1)
                  if line != line.rstrip() or "\t" in line]
    assert not found, "\n".join(found)


def test_python_lines_are_at_most_160_columns_and_compile():
    scripts = [n for n in tree.files() if n.endswith(".py")]
    assert not [f"{n}:{i}" for n in scripts for i, line in enumerate(tree.text(n).splitlines(), 1) if len(line) > 160]
    done = subprocess.run(["pyflakes3", *scripts], cwd=tree.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_scripts_pass_shellcheck():
    scripts = [n for n in tree.files() if tree.text(n).startswith(("#!/usr/bin/env bash", "#!/bin/bash", "#!/bin/sh"))]
    assert "run" in scripts
    done = subprocess.run(["shellcheck", *scripts], cwd=tree.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_commit_titles_are_short():
    done = subprocess.run(["git", "-c", "safe.directory=*", "log", "--no-merges", "--format=%h %s", "-n", "200"], cwd=tree.ROOT, capture_output=True,
                          text=True)
    if done.returncode != 0:
        pytest.skip("not a git work tree")
    long = [line for line in done.stdout.splitlines() if len(line.split(" ", 1)[1]) > MAX_TITLE]
    assert not long


def test_links_in_documents_lead_somewhere():
    broken = []
    for name in tree.files():
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", tree.text(name)):
                if "://" not in target and not os.path.exists(tree.ROOT / os.path.dirname(name) / target):
                    broken.append(f"{name}: {target}")
    assert not broken

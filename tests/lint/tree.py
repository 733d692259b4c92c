"""What the lint tests look at: the files of the tree and how each is compiled."""

import functools
import json
import os
import pathlib
import re
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LB_BUILD", ROOT / "build"))
CODE_SUFFIXES = {".h", ".cc", ".c"}
SKIPPED = re.compile(r"^(build[^/]*|\.[^/]+)/")


@functools.cache
def files():
    """Every file of the tree, relative to its root: those git knows or would add; without git, all but builds."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True)
    names = listed.stdout.split("\0") if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    return sorted(n for n in names if n and not SKIPPED.match(n) and (ROOT / n).is_file())


def code():
    return [n for n in files() if pathlib.PurePath(n).suffix in CODE_SUFFIXES]


@functools.cache
def text(name):
    return (ROOT / name).read_text(errors="replace")


@functools.cache
def commands():
    """Source file (relative) → compiler arguments without -c, -o and the source; paths are relative to BUILD."""
    result = {}
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
        arguments = [a for a in shlex.split(entry["command"]) if a != "ccache"]
        kept = []
        skip = False
        for argument in arguments[1:]:
            if skip:
                skip = False
            elif argument in ("-o", "-MF", "-MQ"):
                skip = True
            elif argument not in ("-c", "-MD") and argument != entry["file"]:
                kept.append(argument)
        result.setdefault(source, (arguments[0], kept))
    return result


def arguments_for(name):
    """Compiler and arguments of a source, or for a header those of a source in the nearest folder that has one."""
    known = commands()
    if name in known:
        return known[name]
    folder = pathlib.PurePath(name).parent
    while True:
        prefix = "" if str(folder) == "." else f"{folder}/"
        beside = sorted(s for s in known if s.startswith(prefix) and s.endswith(".cc"))
        if beside:
            return known[beside[0]]
        folder = folder.parent

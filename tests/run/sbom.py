"""./run sbom [--json FILE]: what the binaries are made of, by Debian package, with version and licences.

Shared libraries are those the loader takes for build/bin/*, headers those of the compiler's dependency files; each file's package and
licences are what dpkg and the package's copyright file say. --json writes CycloneDX 1.4.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN = ("lb-dp", "lb-cp", "lbctl", "lb-replay", "lb-target")


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def libraries(build):
    """library → the binaries that load it."""
    users = collections.defaultdict(set)
    for name in OWN:
        binary = build / "bin" / name
        if not binary.exists():
            sys.exit(f"run: {binary} is missing; ./run build first")
        for path in re.findall(r"=> (/\S+)", run("ldd", binary)):
            users[path].add(name)
    return users


def headers(build):
    """Headers from outside of the tree that went into the build, system C and C++ apart."""
    deps = run("ninja", "-C", build, "-t", "deps")
    return {path for path in re.findall(r"^\s+(/usr/include/\S+)$", deps, re.M) if not re.match(r"/usr/include/(x86_64-linux-gnu/)?(c\+\+|bits|sys|asm)", path)}


def packages_of(paths):
    """path → package; one question to dpkg for all of them. /lib is a link to /usr/lib: dpkg knows files by either name."""
    names = {}
    for path in paths:
        for name in {path, str(pathlib.Path(path).resolve()), path.removeprefix("/usr"), str(pathlib.Path(path).resolve()).removeprefix("/usr")}:
            names[name] = path
    found = {}
    for line in run("dpkg", "-S", *names).splitlines():
        package, _, name = line.partition(": ")
        if name in names and "," not in package:
            found[names[name]] = package.split(":")[0]
    return found


def licences(package):
    path = pathlib.Path("/usr/share/doc") / package / "copyright"
    text = path.read_text(errors="replace") if path.exists() else ""
    named = {name.strip() for name in re.findall(r"^License:[ \t]*(\S.*)$", text, re.M)}
    common = {name for name in re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text)}
    return sorted(named or common) or ["see " + str(path)]


def collect(build):
    users = libraries(build)
    owner = packages_of(users)
    missing = sorted(set(users) - set(owner))
    if missing:
        sys.exit("run: no package has " + ", ".join(missing))
    rows = collections.defaultdict(set)
    for path, binaries in users.items():
        rows[owner[path]] |= binaries
    for package in packages_of(headers(build)).values():
        rows.setdefault(package, set())
    versions = dict(line.split("\t") for line in run("dpkg-query", "-W", "-f", "${Package}\t${Version}\n", *rows).splitlines())
    return [{"name": name, "version": versions.get(name, "?"), "licences": licences(name), "used_by": sorted(rows[name]) or ["headers"]}
            for name in sorted(rows)]


def cyclonedx(rows):
    return {"bomFormat": "CycloneDX", "specVersion": "1.4", "version": 1,
            "metadata": {"component": {"type": "application", "name": "lb", "bom-ref": "lb"}},
            "components": [{"type": "library", "name": row["name"], "version": row["version"],
                            "purl": f"pkg:deb/debian/{row['name']}@{row['version']}",
                            "licenses": [{"license": {"name": name}} for name in row["licences"]],
                            "properties": [{"name": "lb:used_by", "value": " ".join(row["used_by"])}]} for row in rows]}


def main():
    parser = argparse.ArgumentParser(prog="./run sbom", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    arguments = parser.parse_args()
    rows = collect(arguments.build)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(cyclonedx(rows), indent=1) + "\n")
    for row in rows:
        print(f"{row['name']:28} {row['version']:28} {', '.join(row['used_by']):38} {'; '.join(row['licences'])}")
    print(f"sbom: {len(rows)} packages")


if __name__ == "__main__":
    main()

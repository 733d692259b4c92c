"""./run package: a .deb of the build in build/, and a check that it unpacks into an empty root and that its programs start."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
BINARIES = ["lb-dp", "lb-cp", "lbctl", "lb-replay", "lb-target"]
UNITS = ["lb-dp.service", "lb-cp.service"]
EXAMPLES = "usr/share/doc/lb/examples"


def version():
    return re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text()).group(1)


def put(source, target, mode=0o644):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(mode)


def fill(tree):
    for name in BINARIES:
        put((BUILD / "bin" / name).resolve(), tree / "usr/bin" / name, 0o755)
    subprocess.run(["strip", "--strip-unneeded", *[tree / "usr/bin" / name for name in BINARIES]], check=True)
    for unit in UNITS:
        put(ROOT / "configs" / unit, tree / "lib/systemd/system" / unit)
    for config in sorted((ROOT / "configs").glob("*.yaml")):
        put(config, tree / EXAMPLES / config.name)
    for page in sorted([*ROOT.glob("docs/man/*.[158]"), *BUILD.glob("docs/man/*.[158]")]):
        put(page, tree / f"usr/share/man/man{page.suffix[1:]}" / page.name)
    for page in sorted((ROOT / "docs").glob("*.md")):
        put(page, tree / "usr/share/doc/lb" / page.name)
    put(ROOT / "configs/lb.sysusers", tree / "usr/lib/sysusers.d/lb.conf")
    put(ROOT / "LICENSE", tree / "usr/share/doc/lb/copyright")
    (tree / "etc/lb").mkdir(parents=True)


def libraries(tree):
    """The packages that hold the shared libraries of our programs, each with the version it is linked with."""
    work = tree.parent / "shlibs"
    (work / "debian").mkdir(parents=True)
    (work / "debian/control").write_text("Source: lb\nPackage: lb\nArchitecture: any\n")
    done = subprocess.run(["dpkg-shlibdeps", "-O", "--ignore-missing-info", *[tree / "usr/bin" / name for name in BINARIES]], cwd=work,
                          capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("shlibs:Depends=")


def control(tree):
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    folder = tree / "DEBIAN"
    folder.mkdir()
    (folder / "control").write_text(f"""Package: lb
Version: {version()}
Architecture: {architecture}
Maintainer: lb developers <lb@localhost>
Installed-Size: {size}
Depends: {libraries(tree)}
Section: net
Priority: optional
Description: kernel-bypass L4 load balancer
 lb-dp forwards packets at the speed of the NIC (DPDK), lb-cp owns configuration and health, lbctl is the operator's tool,
 lb-replay runs the same packet path on a capture, lb-target prepares target hosts. Examples: /{EXAMPLES}.
""")
    # Services are enabled by the operator, once /etc/lb/dp.yaml says what this machine has.
    for name in ("postinst", "postrm"):
        user = "if command -v systemd-sysusers >/dev/null; then systemd-sysusers lb.conf; fi\n" if name == "postinst" else ""
        (folder / name).write_text(f"#!/bin/sh\nset -e\n{user}if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n")
        (folder / name).chmod(0o755)
    return architecture


def check(package):
    """Unpacks it elsewhere; every program says its version there, and every example is accepted."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        for name in BINARIES:
            said = subprocess.run([root / "usr/bin" / name, "--version"], capture_output=True, text=True, check=True).stdout
            if version() not in said:
                sys.exit(f"package: {name} --version says {said!r}")
        for unit in UNITS:
            text = (root / "lib/systemd/system" / unit).read_text()
            program = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE).group(1)
            if not (root / program.lstrip("/")).exists():
                sys.exit(f"package: {unit} starts {program}, which the package does not hold")
        for config in sorted((root / EXAMPLES).glob("*.yaml")):
            if not config.name.startswith("dp"):
                subprocess.run([root / "usr/bin/lb-cp", "--check", "--config", config], check=True, stdout=subprocess.DEVNULL)
        return len(list(root.rglob("*")))


def main():
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "lb"
        tree.mkdir()
        fill(tree)
        architecture = control(tree)
        package = BUILD / f"lb_{version()}_{architecture}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, package], check=True, stdout=subprocess.DEVNULL)
    files = check(package)
    print(f"package: {package.relative_to(ROOT)}, {package.stat().st_size // 1024} KiB, {files} files, installs and starts")


if __name__ == "__main__":
    main()

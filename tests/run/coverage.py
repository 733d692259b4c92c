"""./run coverage: unit and golden tests in build-coverage, then what they reached of our own code."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build-coverage"


def main():
    for old in BUILD.rglob("*.gcda"):
        old.unlink()
    env = {**os.environ, "LB_BUILD": str(BUILD)}
    subprocess.run([BUILD / "tests/unit/unit", "--gtest_brief=1"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/golden"], cwd=ROOT, env=env, check=True)
    filters = [f"--filter={folder}/" for folder in ("dp", "cp", "cli", "replay", "target")]
    subprocess.run(["gcovr", "--root", ROOT, "--object-directory", BUILD, *filters, "--exclude-unreachable-branches", "--print-summary",
                    "--html-details", BUILD / "coverage.html", BUILD], cwd=BUILD, check=True)
    print(f"coverage: {BUILD / 'coverage.html'}")


if __name__ == "__main__":
    main()

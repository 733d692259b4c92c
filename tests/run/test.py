"""./run test: runs the tiers one after the other; the last line is the sum of them all."""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from tests.run import fuzz, junit

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
REPORTS = BUILD / "reports"
# Unit tests of code that more than one thread enters: run once more under TSan. Not api: its threads are those of gRPC,
# which Debian has not built for TSan, so every report would be of gRPC itself.
THREADED_PARTS = ["lb", "net", "io", "snapshot", "health", "cpnet", "stats", "control"]
E2E_PROCESSES = 4  # at once, each with labs of its own: tests mostly wait
FUZZ_SECONDS = 6  # of each target in the fuzz tier; ./run fuzz runs longer


def call(command, minutes, env=None):
    """Runs a command to its end or its time limit, its children included. Returns its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait(timeout=minutes * 60)
    except subprocess.TimeoutExpired:
        print(f"stopped after {minutes} minutes: {' '.join(map(str, command))}", flush=True)
        return -1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def settle(path, suite, code):
    """A command that ended badly without a failed case in its report (a crash, a leak at exit) becomes a failed case."""
    if not path.exists() or (code != 0 and junit.counts(path)[1] == 0 and code != 5):
        extra = path.with_suffix(".exit.xml")
        junit.write(extra, suite, [(f"{suite} ends well", 0.0, f"exit code {code} and no report of a failed test")])
        junit.merge(path, [path, extra])
        extra.unlink()


def run_gtest(path, suite, binary, expression, env=None):
    path.unlink(missing_ok=True)
    command = [binary, "--gtest_brief=1", f"--gtest_output=xml:{path}"]
    if expression:
        command.append(f"--gtest_filter=*{expression}*")
    settle(path, suite, call(command, 15, env))


def run_pytest(path, suite, folders, expression, env=None, minutes=20, options=()):
    path.unlink(missing_ok=True)
    command = ["/usr/bin/python3", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={path}", *options, *folders.split()]
    if expression:
        command += ["-k", expression]
    settle(path, suite, call(command, minutes, env))


def run_e2e(path, suite, expression, env):
    run_pytest(path, suite, "tests/e2e", expression, env, minutes=30, options=["-n", str(E2E_PROCESSES), "--dist", "loadgroup"])
    junit.rename(path, lambda name: name.split("@")[0])  # without the group in which xdist ran it


def step(name, work):
    print(f"== {name}", flush=True)
    started = time.monotonic()
    result = work()
    print(f"== {name}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return result


def build(suite, *arguments):
    """One failed case if a build fails: the tier that needs it then does not run."""
    if step(f"build {suite}", lambda: call([ROOT / "run", *arguments], 45)) == 0:
        return True
    junit.write(REPORTS / f"{suite}.xml", suite, [(f"build for {suite}", 0.0, "the build failed: see the output above")])
    return False


def lint(expression, options):
    run_pytest(REPORTS / "lint.xml", "lint", "tests/lint", expression, {"LB_LINT_ALL": "1" if options.all else ""}, minutes=60)


def unit(expression, _):
    run_gtest(REPORTS / "unit.xml", "unit", BUILD / "tests/unit/unit", expression)


def golden(expression, _):
    run_pytest(REPORTS / "golden.xml", "golden", "tests/golden", expression, {"LB_BUILD": str(BUILD)})


def pktgen(expression, _):
    run_pytest(REPORTS / "pktgen.xml", "pktgen", "tests/pktgen", expression)


def sim(expression, _):
    run_pytest(REPORTS / "sim.xml", "sim", "tests/sim tests/spec", expression, {"LB_BUILD": str(BUILD)})


def e2e(expression, _):
    run_e2e(REPORTS / "e2e.xml", "e2e", expression, {"LB_BUILD": str(BUILD)})


def chaos(expression, _):
    """With fewer connections than ./run chaos."""
    path = REPORTS / "chaos.xml"
    path.unlink(missing_ok=True)
    command = ["/usr/bin/python3", "tests/chaos/chaos.py", "--idle", "120", "--busy", "40", "--new", "10", "--junit", path]
    settle(path, "chaos", call([*command, *(["-k", expression] if expression else [])], 15, {"LB_BUILD": str(BUILD)}))


def instructions(*_):
    """Instructions per packet do not depend on how busy the machine is: more than 2 % above the committed ones is a failure."""
    code = call([BUILD / "tests/bench/lb-bench", "--instructions"], 10)
    junit.write(REPORTS / "instructions.xml", "instructions",
                [("instructions per packet are at most 2 % above the baseline", 0.0, None if code == 0 else "see the rows marked ABOVE")])


def fuzz_tier(expression, _):
    if build("fuzz", "_build-fuzz"):
        fuzz.run(FUZZ_SECONDS, REPORTS / "fuzz.xml", expression)


def asan(expression, _):
    directory = ROOT / "build-asan"
    if not build("asan", "_build-asan"):
        return
    env = {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1", "LB_BUILD": str(directory)}
    parts = [REPORTS / f"asan-{suite}.xml" for suite in ("unit", "golden", "e2e", "daemons")]
    run_gtest(parts[0], "asan-unit", directory / "tests/unit/unit", expression, env)
    run_pytest(parts[1], "asan-golden", "tests/golden", expression, env)
    # What a daemon says as it ends (a leak) or in the middle of a test goes to files: each is a failed case.
    words = REPORTS / "asan-words"
    shutil.rmtree(words, ignore_errors=True)
    words.mkdir()
    env["ASAN_OPTIONS"] = f"log_path={words}/asan"
    env["UBSAN_OPTIONS"] += f":log_path={words}/ubsan"
    env["LSAN_OPTIONS"] = f"suppressions={ROOT}/tests/run/lsan.supp:print_suppressions=0"
    run_e2e(parts[2], "asan-e2e", expression, {**env, "LB_E2E_IN_TURN": "1"})
    said = [(path.name, 0.0, path.read_text(errors="replace")) for path in sorted(words.iterdir())]
    for name, _, text in said:
        print(f"{name}:\n{text}", flush=True)
    junit.write(parts[3], "asan-daemons", said or [("the daemons end without a word of the sanitizers", 0.0, None)])
    junit.merge(REPORTS / "asan.xml", parts)


def tsan(expression, _):
    directory = ROOT / "build-tsan/tests/unit"
    if not build("tsan", "_build-tsan", *[f"tests/unit/unit_{part}" for part in THREADED_PARTS]):
        return
    parts = []
    # Debian's gRPC and abseil are not built for TSan: what starts their threads (unit_api, the hostile calls) runs without it.
    env = {"TSAN_OPTIONS": f"halt_on_error=1:suppressions={ROOT}/tests/run/tsan.supp", "GTEST_FILTER": "-HostileTest.*"}
    for part in THREADED_PARTS:
        parts.append(REPORTS / f"tsan-{part}.xml")
        run_gtest(parts[-1], f"tsan-{part}", directory / f"unit_{part}", expression, env)
    junit.merge(REPORTS / "tsan.xml", parts)


TIERS = {"lint": lint, "unit": unit, "golden": golden, "pktgen": pktgen, "instructions": instructions, "sim": sim,
         "e2e": e2e, "chaos": chaos, "fuzz": fuzz_tier, "asan": asan, "tsan": tsan}


def main():
    parser = argparse.ArgumentParser(prog="./run test")
    parser.add_argument("verb", choices=["test", "lint"], help=argparse.SUPPRESS)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=" ".join(TIERS))
    parser.add_argument("-k", metavar="EXPR", dest="expression", help="only tests whose name matches")
    parser.add_argument("--all", action="store_true", help="lint: clang-tidy on every file")
    options = parser.parse_args()
    wanted = ["lint"] if options.verb == "lint" else options.tiers or list(TIERS)
    for tier in wanted:
        if tier not in TIERS:
            parser.error(f"unknown tier {tier}; there are: {' '.join(TIERS)}")

    started = time.monotonic()
    totals = [0, 0, 0]
    if step("build", lambda: call([ROOT / "run", "_build"], 60)) != 0:
        print("the build failed")
        print("0 passed, 1 failed, 0 skipped")
        return 1
    REPORTS.mkdir(parents=True, exist_ok=True)
    for tier in wanted:
        report = REPORTS / f"{tier}.xml"
        report.unlink(missing_ok=True)
        step(tier, lambda: TIERS[tier](options.expression, options))
        counted = junit.counts(report)
        print(f"== {tier}: {counted[0]} passed, {counted[1]} failed, {counted[2]} skipped", flush=True)
        totals = [a + b for a, b in zip(totals, counted)]
    print(f"== all: {(time.monotonic() - started) / 60:.1f} min")
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main())

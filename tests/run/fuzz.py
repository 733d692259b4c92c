"""Runs each libFuzzer target of build-fuzz for some seconds, one on each CPU. A crash leaves its input in build-fuzz/crashes."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time

from tests.run import junit

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = ROOT / "build-fuzz/tests/fuzz"


def targets():
    return sorted(path for path in TARGETS.glob("*_fuzz") if path.is_file())


def run_target(target, seconds):
    """None, or what libFuzzer said."""
    corpus = ROOT / "build-fuzz/corpus" / target.name
    crashes = ROOT / "build-fuzz/crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    seeds = ROOT / "tests/fuzz/seeds" / target.name.removesuffix("_fuzz")
    command = [target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
               f"-artifact_prefix={crashes}/{target.name}-", corpus, *([seeds] if seeds.is_dir() else [])]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds + 120)
    except subprocess.TimeoutExpired:
        return f"{target.name} did not stop"
    if done.returncode != 0:
        return done.stderr[-6000:]
    runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{target.name}: {runs[0] if runs else '?'} inputs", flush=True)
    return None


def run(seconds, report=None, expression=None):
    """Returns the number of targets that crashed."""
    def one(target):
        started = time.monotonic()
        failure = run_target(target, seconds)
        if failure:
            print(failure, flush=True)
        return target.name, time.monotonic() - started, failure

    with concurrent.futures.ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        cases = list(pool.map(one, [target for target in targets() if not expression or expression in target.name]))
    if report:
        junit.write(report, "fuzz", cases)
    crashes = sum(1 for case in cases if case[2] is not None)
    print(f"fuzz: {len(cases)} targets, {crashes} crashes", flush=True)
    return crashes


if __name__ == "__main__":
    if not targets():
        sys.exit("fuzz: no targets were built")
    sys.exit(1 if run(int(sys.argv[1])) else 0)

"""What the compiler's tools say: format, headers on their own, clang-tidy, symbols of the packet path."""

import concurrent.futures
import os
import pathlib
import re
import subprocess

import tree

# Objects whose every function may run for a packet. The rest of dp/lb and dp/net runs when a snapshot or a table is opened.
COLD_SOURCES = re.compile(r"snapshot(_guards|_quic|_security)?\.cc|_reattach|_rehome|_census|dispatch\.cc|pipeline\.cc|explain_flow|rate_(memory|view)")
# What the packet path must not be able to call: memory from the heap, locks, text, exceptions, clocks, files.
REFUSED_SYMBOLS = re.compile(
    r"^(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|mmap|brk|_Znw|_Zna|_Zdl|_Zda|pthread_|sem_|futex|syscall|_ZNSt5mutex|"
    r"_ZNSt18condition|_ZNSo|_ZSt4cout|_ZSt4cerr|_ZN3fmt|_ZN6spdlog|printf|fprintf|snprintf|vsnprintf|puts|fwrite|write|read|open|close|"
    r"__cxa_throw|__cxa_allocate_exception|_ZSt\d+__throw|clock_gettime|gettimeofday|_ZNSt6chrono|abort|__assert_fail|exit)")


def parallel(function, items):
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return [text for text in pool.map(function, items) if text]


def run(command, source=""):
    done = subprocess.run(command, cwd=tree.BUILD, input=source, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def formatted(name):
    return run(["clang-format", "--dry-run", "-Werror", tree.ROOT / name])


def test_code_is_formatted():
    found = parallel(formatted, tree.code())
    assert not found, "\n".join(found)


def compiles_alone(header):
    compiler, arguments = tree.arguments_for(header)
    return run([compiler, *arguments, "-fsyntax-only", "-fdiagnostics-color=never", "-x", "c++", "-"], f'#include "{header}"\n')


def test_every_header_compiles_alone():
    headers = [n for n in tree.code() if n.endswith(".h") and not n.startswith("bpf/")]
    assert headers
    found = parallel(compiles_alone, headers)
    assert not found, "\n".join(found)


def test_every_header_is_guarded_once():
    assert not [n for n in tree.code() if n.endswith(".h") and tree.text(n).count("#pragma once") != 1]


def git(*arguments):
    done = subprocess.run(["git", "-c", "safe.directory=*", *arguments], cwd=tree.ROOT, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def sources_to_tidy():
    """All with LB_LINT_ALL, else what the last commit and the work tree changed."""
    known = [n for n in tree.code() if n in tree.commands() and n.endswith(".cc")]
    if os.environ.get("LB_LINT_ALL"):
        return known
    changed = set(git("diff", "--name-only", "HEAD~1")) | set(git("ls-files", "--others", "--exclude-standard"))
    return [n for n in known if n in changed]


def tidy(name):
    return run(["nice", "clang-tidy", "--quiet", "--warnings-as-errors=*", "-p", tree.BUILD, "--extra-arg=-Wno-unknown-warning-option", tree.ROOT / name])


def test_clang_tidy():
    found = parallel(tidy, sources_to_tidy())
    assert not found, "\n".join(found)


def hot_objects():
    return sorted(p for folder in ("dp/net", "dp/lb") for p in (tree.BUILD / folder).rglob("*.o") if not COLD_SOURCES.search(p.name))


def undefined_symbols(path):
    done = subprocess.run(["nm", "--undefined-only", "--format=posix", path], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_the_packet_path_can_call_no_heap_lock_or_log():
    objects = hot_objects()
    assert any("kernel" in p.name for p in objects), "the packet path's objects were not found"
    found = [f"{pathlib.Path(p).name}: {symbol}" for p in objects for symbol in undefined_symbols(p) if REFUSED_SYMBOLS.match(symbol)]
    assert not found, "\n".join(found)


def test_builds_for_newer_cpus_share_no_code_with_the_others():
    """An inline function left out of line by a -march=x86-64-v4 object could be the copy the linker keeps for all."""
    objects = [p for p in hot_objects() if "kernel" in p.name]
    assert len(objects) == 3, objects
    for path in objects:
        done = subprocess.run(["nm", "--defined-only", "--format=posix", path], capture_output=True, text=True, check=True)
        shared = [line for line in done.stdout.splitlines() if line.split()[1] in "WwT"]
        assert not shared, f"{path}: {shared}"

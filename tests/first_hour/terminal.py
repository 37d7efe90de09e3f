"""Lines typed at a terminal, and what is seen there.

The programs `aws` and `cumulet` are on the PATH, and the variables that `cumulet env` prints are set. What is typed and
what comes back is printed as it would be seen, so that the output of a script can be read by itself.
"""

import os
import subprocess
import sys
import time
import traceback

# Nothing takes that long, even where the processor itself is emulated.
GUARD = 2400
# What programs say that give up waiting: `aws ec2 wait` after ten minutes, `cumulet ssh` after fifteen.
GAVE_UP = ("Max attempts exceeded", "no ssh server answered")


def play(scene):
    """Runs the scene that this script is; its last line tells that it went well."""
    try:
        scene()
    except Exception:  # a scene may fail in any way
        traceback.print_exc(file=sys.stdout)
        look_around()
        sys.exit(1)
    print(f"ok   {os.path.basename(sys.argv[0])}")


def sh(line, status=0):
    """Types a line; what it prints on standard output, or on standard error where it is to fail."""
    done = typed(line)
    wrong = f"ended with {done.returncode}, not {status}: {line}"
    assert done.returncode == status, wrong
    return (done.stdout if status == 0 else done.stderr).strip()


def typed(line):
    """Types a line that may fail."""
    print(f"$ {line}", flush=True)
    done = subprocess.run(
        ["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD, check=False
    )
    print(done.stdout + done.stderr, end="", flush=True)
    return done


def patiently(line):
    """Types a line, again where it gives up waiting: an emulated processor takes longer than any that people wait for."""
    end = time.monotonic() + GUARD
    while True:
        done = typed(line)
        if done.returncode == 0:
            return done.stdout.strip()
        assert any(words in done.stderr for words in GAVE_UP), f"ended with {done.returncode}: {line}"
        assert time.monotonic() < end, f"it never worked: {line}"
        look_around()


def wait(waiter, *instances):
    """`aws ec2 wait`."""
    patiently(f"aws ec2 wait {waiter} --instance-ids {' '.join(instances)}")


def until(what, so):
    """Waits until it is so."""
    end = time.monotonic() + GUARD
    while not so():
        assert time.monotonic() < end, f"gave up waiting for {what}"
        time.sleep(2)


def look_around():
    """Shows what there is, and how far the guests have come; whatever fails here is not what matters."""
    listed = typed("cumulet list")
    for word in listed.stdout.split():
        if word.startswith("i-"):
            typed(f"cumulet console --log {word} | tail -n 40")


def equal(have, want, what):
    """An assertion that shows both."""
    assert have == want, f"{what}: {have!r}, expected {want!r}"


def contains(text, *parts):
    """Every one of the parts is in the text."""
    for part in parts:
        assert part in text, f"there is no {part!r} in {text!r}"

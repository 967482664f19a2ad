"""How much more memory a piece of work holds at its peak, in a process of its own."""

import subprocess
import sys
import textwrap

# Not `ru_maxrss`: a process begins with the peak of the one that started it.
_FRAME = """
import sys
{setup}
def work(path):
{work}
def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
work(sys.argv[1])
before = peak_mb()
work(sys.argv[2])
print(peak_mb() - before)
"""


def risen_mb(setup: str, work: str, *, harmless: object, tried: object) -> float:
    """By how many MiB the peak rises when `work` is done for `tried`, after it was done for `harmless`.

    Args:
        setup: imports, as source.
        work: the body of a function of `path`, as source.
        harmless: the path of a small input of the same kind, which lets libraries load what they need.
        tried: the path of the input in question.
    """
    script = _FRAME.format(setup=textwrap.dedent(setup), work=textwrap.indent(textwrap.dedent(work), "    "))
    command = [sys.executable, "-c", script, str(harmless), str(tried)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])

"""Named places where a test kills the process: nothing may be lost or half done, wherever it ends.

LATHE_CRASH_AT=promote:alias-champion ends the promotion by SIGKILL right after that write,
LATHE_CRASH_AT=checkpoint:after_manifest@3 a training in its third checkpoint. Unset, a point does
nothing.
"""

import os
import signal

VARIABLE = "LATHE_CRASH_AT"
_passed: dict[str, int] = {}


def point(name: str) -> None:
    """Die here by SIGKILL when LATHE_CRASH_AT names this point (`name@n`: at the n-th time it is
    passed).
    """
    wanted, _, turn = os.environ.get(VARIABLE, "").partition("@")
    if wanted != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == int(turn or 1):
        os.kill(os.getpid(), signal.SIGKILL)

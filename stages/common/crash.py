"""Named places where a test kills the process: nothing may be lost or half done, wherever it ends.

LATHE_CRASH_AT=promote:alias-champion ends the promotion by SIGKILL right after that write. Unset, a point does nothing.
"""

import os
import signal

VARIABLE = "LATHE_CRASH_AT"


def point(name: str) -> None:
    """Die here by SIGKILL when LATHE_CRASH_AT names this point."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)

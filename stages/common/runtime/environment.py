"""What the environment of every process that we start must say, and often does not: loopback goes
through no proxy, and who has no name in the user database is called by a number.
"""

import getpass
import os
from collections.abc import MutableMapping
from pathlib import Path

EXPERIMENTS = Path(".dvc/tmp/exps")
"""Where `dvc exp run --queue` and `--temp` work, in a copy of what git knows."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def complete(environment: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Add to `environment` (this process's own when left out) what is missing, and return it."""
    found = os.environ if environment is None else environment
    for name in ("NO_PROXY", "no_proxy"):
        given = [host.strip() for host in found.get(name, "").split(",") if host.strip()]
        if "*" not in given:
            found[name] = ",".join([*given, *(host for host in LOOPBACK if host not in given)])
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container's --user, or a user of a directory that does not answer
        found.setdefault("USER", str(os.getuid()))
    return found


def checkout() -> Path:
    """Return the checkout that we work for: the folder we are in, or, in an experiment's temporary
    copy, the checkout that it was made from.
    """
    here, inner = Path.cwd(), EXPERIMENTS.parts
    for place in range(len(here.parts) - len(inner)):
        if here.parts[place : place + len(inner)] == inner:
            return Path(*here.parts[:place])
    return Path()

"""How much memory there is for this process: the GPU's, or the machine's within the limit of its
container.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUP = Path("/sys/fs/cgroup")


def free(device: "torch.device", held: int, processes: int) -> int:
    """Return the bytes one of `processes` on this machine may use, what it holds already included
    (`held` on a CPU).
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return system_free() // processes + held


def unused(device: "torch.device", processes: int) -> int:
    """Return the bytes that one of `processes` on this machine may take beside what it holds."""
    if device.type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return system_free() // processes


def system_free() -> int:
    """Return the bytes of memory that can be taken now without swapping or hitting the container's
    limit.
    """
    import psutil

    free, most = int(psutil.virtual_memory().available), limit()
    return free if most is None else max(0, min(free, most - used()))


def limit(root: Path = CGROUP) -> int | None:
    """Return the container's memory limit in bytes, or None where there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        file = root / name
        if file.is_file():
            said = file.read_text(encoding="ascii").strip()
            return int(said) if said != "max" and int(said) < 2**60 else None  # v1 writes a huge number for none
    return None


def used(root: Path = CGROUP) -> int:
    """Return the bytes that count against the limit, without the page cache that the kernel would
    give back.
    """
    for current, statistics, cached in (
        ("memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        if (root / current).is_file():
            lines = (root / statistics).read_text(encoding="ascii").splitlines()
            reclaimed = next((int(line.split()[1]) for line in lines if line.split()[0] == cached), 0)
            return int((root / current).read_text(encoding="ascii")) - reclaimed
    return 0

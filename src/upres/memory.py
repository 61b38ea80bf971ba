"""How much main memory is left."""

import os
from pathlib import Path

# Bytes that a process takes before any picture: the interpreter, torch, a network.
PROCESS = 400 * 2**20


def free_main_memory() -> int:
    """Bytes: the least of what Linux calls available and what the control group has left."""
    return min(_system_memory(), group_memory())


def _system_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * 2**30  # nothing says: a size that every machine with torch has


_UNLIMITED = 2**62


def group_memory(root: Path = Path("/")) -> int:
    """What is left below the limits of the process's control groups, version 2 or 1.

    Files that were read or written lately count as used there, but make way for the asking.
    """
    second = [
        _left(group, "memory.max", "memory.current", "")
        for group in _groups(root, "sys/fs/cgroup", "0::")
    ]
    first = [
        _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        for group in _groups(root, "sys/fs/cgroup/memory", ":memory:")
    ]
    return min(*second, *first)


def _left(group: Path, limit: str, used: str, prefix: str) -> int:
    """Bytes below one group's limit; very many where it has none."""
    try:
        top = (group / limit).read_text(encoding="ascii").strip()
        now = int((group / used).read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = {f"{prefix}active_file", f"{prefix}inactive_file"}
        files = sum(int(line.split()[1]) for line in lines if line.split()[0] in cached)
        return _UNLIMITED if top == "max" else max(0, int(top) - max(0, now - files))
    except (OSError, ValueError, IndexError):
        return _UNLIMITED


def _groups(root: Path, mount: str, own: str) -> list[Path]:
    """The process's group and all that it lies in."""
    base = root / mount
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(own)[2] for line in lines if own in line), "/")
    group = base / name.strip("/")
    return [group, *(p for p in group.parents if p.is_relative_to(base))]

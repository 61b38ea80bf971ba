"""Hashes: of files, by which they are known again, and of what decides chance."""

import hashlib
import platform
from pathlib import Path


def seed_of(data: bytes) -> int:
    """A seed of 64 bits that depends on these bytes alone."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def host_id() -> str:
    """8 hex digits of the SHA-256 of the host's name: which of several machines on one disk."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]

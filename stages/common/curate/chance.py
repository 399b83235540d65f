"""Chance that comes from content: the same text meets the same fate in every run, order and number of workers."""

import hashlib

BITS = 52  # more, and the largest draw would round to 1


def draw(purpose: str, content: str | bytes) -> float:
    """Return a number in (0, 1), uniform over contents; draws for other purposes (up to 16 bytes) are independent."""
    data = content.encode() if isinstance(content, str) else content
    digest = hashlib.blake2b(data, digest_size=8, person=purpose.encode()).digest()
    return ((int.from_bytes(digest, "big") >> (64 - BITS)) + 0.5) / 2**BITS

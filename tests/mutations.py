"""Damaged copies of a file, for tests of readers."""

from collections.abc import Iterator

import numpy as np


def mutations(data: bytes, count: int = 200, seed: int = 0) -> Iterator[bytes]:
    """`count` damaged copies of `data` (1 byte at least), none equal to it, the same ones for the same `seed`.

    In turn: one to eight flipped bits, a tail cut off, a range of zeros, a range that is repeated, random bytes
    inserted. Places are drawn evenly; lengths of ranges evenly in their logarithm, as headers are short and contents
    long.
    """
    draw = np.random.default_rng(seed)

    def span() -> tuple[int, int]:
        start = int(draw.integers(len(data)))
        length = int(np.exp(draw.uniform(0, np.log(len(data)))))
        return start, min(start + length, len(data))

    def flip() -> bytes:
        damaged = bytearray(data)
        for bit in draw.integers(8 * len(data), size=draw.integers(1, 9)):
            damaged[bit // 8] ^= 1 << int(bit % 8)
        return bytes(damaged)

    def cut() -> bytes:
        return data[: int(draw.integers(len(data)))]

    def zero() -> bytes:
        start, stop = span()
        return data[:start] + bytes(stop - start) + data[stop:]

    def repeat() -> bytes:
        start, stop = span()
        return data[:stop] + data[start:stop] + data[stop:]

    def insert() -> bytes:
        start, stop = span()
        return data[:start] + draw.bytes(stop - start) + data[start:]

    kinds = (flip, cut, zero, repeat, insert)
    done = 0
    while done < count:
        damaged = kinds[done % len(kinds)]()
        if damaged != data:  # as where zeros were zeros already
            done += 1
            yield damaged

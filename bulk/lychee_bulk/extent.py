"""How many rows the input has: exactly where its files say so, and else by how far the files have been read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lychee_bulk.units import Unit


class Extent:
    """Knows, or guesses, how many rows there are.

    Args:
        counts: How many rows each file has; None where it does not say so.
        sizes: The size of each file in bytes.
        done: The units that had been done before.
    """

    def __init__(self, counts: Sequence[int | None], sizes: Sequence[int], done: Iterable[Unit] = ()) -> None:
        self._counts, self._sizes = list(counts), list(sizes)
        self._read: dict[int, tuple[int, int]] = {}  # by file: rows, and the bytes that they take
        for unit in done:
            self.learn(unit, 0)

    def learn(self, unit: Unit, position: int) -> None:
        """Take note of a unit.

        Args:
            unit: A unit that has been read.
            position: How many bytes of its file had been read at its end; 0 where nobody knows.
        """
        end = unit.start + unit.rows
        if unit.is_last:
            self._counts[unit.file] = end
        elif end > self._read.get(unit.file, (0, 0))[0] and position:
            self._read[unit.file] = (end, position)

    @property
    def is_known(self) -> bool:
        """Whether the number is no guess."""
        return None not in self._counts

    @property
    def rows(self) -> int | None:
        """How many rows there are, or None while there is nothing to guess from.

        A file that has been read in part goes on as it began; the others are like those that were read.
        """
        read = dict(self._read)
        read |= {file: (count, self._sizes[file]) for file, count in enumerate(self._counts) if count is not None}
        rows, size = map(sum, zip(*read.values(), strict=True)) if read else (0, 0)
        if not self.is_known and not rows * size:
            return None
        total = 0.0
        for file, count in enumerate(self._counts):
            some, of = read.get(file, (rows, size))
            total += some * self._sizes[file] / of if count is None else count
        return round(total)

"""Rows that wait to be sent."""

from dataclasses import dataclass, field

_FRAME = 200
"""Bytes of a row's line in a batch, apart from its body."""


@dataclass(slots=True, kw_only=True, eq=False)
class Line:
    """Rows of one lane, in order of arrival."""

    rows: dict[int, int] = field(default_factory=dict)
    """Their sizes by number."""
    size: int = 0
    first: float = 0.0
    last: float = 0.0
    held: float = 0.0
    """Not to be sent before."""
    most: int | None = None
    """Fewer rows than the provider would take, since it refused more."""
    room: int | None = None
    """Likewise bytes."""
    trouble: str | None = None
    """Why the last rows could not be sent."""

    def add(self, row: int, size: int, now: float) -> None:
        """Put a row at the end."""
        self.first = self.first if self.rows else now
        self.last = now
        self.rows[row] = size
        self.size += size

    def remove(self, row: int) -> bool:
        """Take a row out; says whether it was here."""
        size = self.rows.pop(row, None)
        self.size -= size or 0
        return size is not None

    def take(self, most_rows: int, most_bytes: int) -> list[int]:
        """Take out as many rows as one batch holds, at least one."""
        taken: list[int] = []
        room = min(most_bytes, self.room or most_bytes)
        for row, size in self.rows.items():
            room -= size + _FRAME
            if taken and (room < 0 or len(taken) >= min(most_rows, self.most or most_rows)):
                break
            taken.append(row)
        for row in taken:
            self.remove(row)
        return taken

    def due(self, most_rows: int, most_bytes: int, *, gather: float, max_wait: float) -> float:
        """Say when to send: once nobody new comes for *gather* seconds, after *max_wait*, or as soon as it is full."""
        full = len(self.rows) >= min(most_rows, self.most or most_rows) or self.size >= most_bytes
        ready = 0.0 if full else min(self.last + gather, self.first + max_wait)
        return max(ready, self.held)

"""The part of a history that fits a steering model's context."""

from __future__ import annotations

from steering.crossing.history import History


class HistoryWindow:
    """A history cut in the middle where it outgrows the context.

    The first `kept` tokens stay (the ones that the encoder puts before every text), then come the most recent ones.
    Half a context is dropped at a time, so that keys and values are rarely recomputed.
    """

    def __init__(self, history: History, context: int, kept: int) -> None:
        self.history = history
        self.dropped = 0
        self._context = context
        self._kept = kept

    @property
    def length(self) -> int:
        """Positions that the steering model sees."""
        return len(self.history.tokens) - self.dropped

    @property
    def settled(self) -> int:
        """Positions from the start that later text cannot change; 0 while the history is cut."""
        return 0 if self.dropped else self.history.settled

    def copy(self) -> HistoryWindow:
        """An independent copy."""
        other = HistoryWindow(self.history.copy(), self._context, self._kept)
        other.dropped = self.dropped
        return other

    def push(self, base_token: int) -> int:
        """Append one base token. Returns the first position that is new or changed."""
        return max(self.history.push(base_token) - self.dropped, 0)

    def slide(self) -> bool:
        """Cut the history to the context. Returns True if every position has another token now."""
        excess = len(self.history.tokens) - self._context
        stride = max(1, self._context // 2)
        dropped = -(-max(excess, 0) // stride) * stride
        if dropped == self.dropped:
            return False
        self.dropped = dropped
        return True

    def tokens(self, start: int, stop: int | None = None) -> list[int]:
        """The tokens at positions `start` to `stop`."""
        kept = self._kept if self.dropped else 0
        stop = self.length if stop is None else stop
        head = self.history.tokens[start : min(kept, stop)]
        return head + self.history.tokens[max(start, kept) + self.dropped : stop + self.dropped]

    def position_of(self, index: int) -> int | None:
        """The position of history token `index`; None for a dropped token, and for a kept one of a cut history."""
        if not self.dropped:
            return index
        position = index - self.dropped
        return position if position >= self._kept else None

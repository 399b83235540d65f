"""One layer of the key-value cache that the batched decoder writes into. Imported late: needs
torch.
"""

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values in fixed rows [rows, heads, capacity, size], each written at its
    own position.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, 0
        self.source: torch.Tensor | None = None
        self.slots = self.positions = torch.empty(0, dtype=torch.long)
        self.used = self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate zeros: what a mask hides is multiplied by 0, and memory as found may
        hold a NaN.
        """
        self.keys, self.values = (
            states.new_zeros(self.rows, states.shape[1], self.capacity, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def resize(self, capacity: int) -> None:
        """Make room for rows of `capacity` tokens."""
        kept, self.capacity = min(capacity, self.capacity), capacity
        if self.keys is None or self.values is None:
            return
        old = self.keys, self.values
        self.lazy_initialization(*old)
        for new, states in zip((self.keys, self.values), old, strict=True):
            new[: self.used, :, :kept] = states[: self.used, :, :kept]

    def write(self, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store states [R, heads, T, size] at the beginning of these rows."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(keys, values)
        self.keys[rows, :, : keys.shape[2]], self.values[rows, :, : keys.shape[2]] = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the states and return those to attend to: a prompt's own, or each row's from its
        start.
        """
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        for cached, states in ((self.keys, key_states), (self.values, value_states)):
            assert cached is not None
            if self.source is not None:  # prompts are read
                new = slice(self.used, self.used + len(self.source))
                cached[new, :, : states.shape[2]] = states.index_select(0, self.source)
            else:
                cached[self.slots, :, self.positions] = states[:, :, 0]
        if self.source is not None:
            return key_states, value_states
        return self.keys[: self.used, :, : self.length], self.values[: self.used, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of what a prompt attends to: itself."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return 0: positions are given, and a prompt starts afresh."""
        return 0

    def get_max_length(self) -> int:
        """Return -1: it grows."""
        return -1

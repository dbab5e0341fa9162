"""How the embedded backbone is pretrained: the numbers, and nothing that needs a framework."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings of a pretraining run; a checkpoint is only continued with the recipe it was made with.

    `rounds` rounds of `images_per_round` fresh images, each shown `passes` times; rounds before `large_from` (a share
    of all) at `small_px`, the others at `large_px`.
    """

    rounds: int = 44
    images_per_round: int = 8192
    passes: int = 4
    batch_size: int = 128
    small_px: int = 64
    large_px: int = 96
    large_from: float = 0.7
    learning_rate: float = 3e-3
    weight_decay: float = 0.03
    label_smoothing: float = 0.1
    dropout: float = 0.1
    seed: int = 0

    @property
    def steps(self) -> int:
        """The number of optimizer steps of a whole run."""
        return self.rounds * self.passes * (self.images_per_round // self.batch_size)

    def size_px(self, round_number: int) -> int:
        """The side of the images shown in a round, counted from 0."""
        return self.large_px if round_number >= self.large_from * self.rounds else self.small_px

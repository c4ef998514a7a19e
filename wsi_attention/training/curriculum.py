"""Easy slides first: which training slides take part in which epoch, by a number that the labels give of each.

From labels of whole slides a model finds what is large before it finds what is small. Attention that has learnt large
lesions goes on to smaller ones; attention that meets the small ones at once may learn neither.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wsi_attention.config import Curriculum
from wsi_attention.training.data import Example


@dataclass(frozen=True)
class Lessons:
    """What a curriculum knows of the training images.

    Attributes:
        curriculum: the recipe's.
        ease: name of an image -> a number that is higher for one that takes part earlier.
    """

    curriculum: Curriculum
    ease: Mapping[str, float]

    @classmethod
    def of(cls, curriculum: Curriculum, numbers: Iterable[tuple[str, float]]) -> Lessons:
        """Return the lessons from pairs of name and number; of a name that repeats, such as a patient's, the easiest.

        Args:
            curriculum: the recipe's.
            numbers: of the images that have one.
        """
        sign = 1.0 if curriculum.first == "largest" else -1.0
        ease: dict[str, float] = {}
        for name, number in numbers:
            ease[name] = max(sign * number, ease.get(name, -math.inf))
        return cls(curriculum, ease)

    def of_epoch(self, examples: Sequence[Example], epoch: int, epochs: int) -> tuple[Example, ...]:
        """Return the images that take part in an epoch, in the order given.

        Of each class these are the share that the curriculum says, rounded up, with all that are as easy as the last of
        them, and every image without a number. So a class whose slides all have the same number, such as 0 for the
        share of tumour, is there from the first epoch on.

        Args:
            examples: images that can be used.
            epoch: its number, from 1.
            epochs: of the whole training.
        """
        share, known = self.curriculum.share(epoch, epochs), defaultdict[int, list[float]](list)
        for example in examples:
            if example.name in self.ease:
                known[example.label].append(self.ease[example.name])
        last = {label: sorted(found)[-math.ceil(share * len(found))] for label, found in known.items()}
        return tuple(one for one in examples if self.ease.get(one.name, math.inf) >= last.get(one.label, -math.inf))

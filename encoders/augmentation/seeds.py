"""One source of randomness per view of an item, whatever was drawn before it."""

from __future__ import annotations

import numpy as np

from bittern.errors import InvalidInputError

_LIMIT = 1 << 32


def view_seed(seed: int, epoch: int, item: int, view: int) -> np.random.SeedSequence:
    """The seed of one view.

    Args:
        seed: of the training.
        epoch: counted from 0 or 1, as the training does.
        item: the item's place in the list of examples.
        view: the view's place among the views of the item.

    Returns:
        a seed that no other four numbers have.

    Raises:
        InvalidInputError: a number is negative or has more than 32 bits.
    """
    numbers = {"seed": seed, "epoch": epoch, "item": item, "view": view}
    for name, number in numbers.items():
        if not 0 <= number < _LIMIT:  # longer numbers would run into their neighbours
            raise InvalidInputError(
                f"{name} must be a whole number from 0 to {_LIMIT - 1}, not {number}", field=name
            )
    return np.random.SeedSequence([int(number) for number in numbers.values()])


def view_generator(seed: int, epoch: int, item: int, view: int) -> np.random.Generator:
    """A fresh generator for one view; arguments and errors as `view_seed`."""
    return np.random.Generator(np.random.PCG64(view_seed(seed, epoch, item, view)))

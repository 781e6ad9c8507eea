"""Builds the models that ship with the package: ``python -m service.ship``.

`field` at 256 bits is fitted once, on the encoder's calibration set, so that its codes mean
the same in every archive and on every machine (docs/decisions/0003).
"""

from __future__ import annotations

import shutil

from service.engine import catalogue_encoder
from service.fitting import DEFAULT_BITS, SHIPPED, calibrated_model


def main() -> None:
    """Write ``service/shipped/field-256``."""
    saved = calibrated_model(DEFAULT_BITS, catalogue_encoder("field"))
    folder = SHIPPED / saved.card.name
    shutil.rmtree(folder, ignore_errors=True)
    saved.save(folder)
    print(f"{folder}: {saved.card.digest}")


if __name__ == "__main__":
    main()

from tests.engine.conftest import (  # noqa: F401 - fixtures
    empty,
    encoder,
    engine,
    media,
    model_folder,
    options,
)

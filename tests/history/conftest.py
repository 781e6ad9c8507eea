from tests.engine.conftest import (  # noqa: F401 - fixtures
    empty,
    encoder,
    local,
    media,
    model_folder,
    options,
)

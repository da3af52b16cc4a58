import pytest

from tests.fakes import ColourEncoder


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()

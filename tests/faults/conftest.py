"""The same gateways as in tests/acceptance."""

from tests.acceptance.conftest import NewHouse, house, new_house

__all__ = ["NewHouse", "house", "new_house"]

"""The order of the test files: the two whose one fixture takes minutes first, so that no worker
ends long after.
"""

import pytest

LONG = ("test_own_text.py", "test_spine.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)

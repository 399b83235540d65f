"""The order of the test files: those whose one fixture takes minutes first, so that no worker ends
long after.

What tests tokenise lies in a folder of its own, not among the checkpoints of whoever runs them.
"""

import os

import pytest

from stages.common.training import token_cache

os.environ.pop("LATHE_NOTIFY", None)  # nobody is told of what tests do
LONG = ("test_own_text.py", "test_smollm2.py", "test_spine.py", "test_text_alone.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True, scope="session")
def tokens_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    token_cache.FOLDER = str(tmp_path_factory.mktemp("tokens"))

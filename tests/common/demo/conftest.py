"""The demo worlds that its tests read, each written once."""

import json
from collections import defaultdict

import pytest

from tests.support.reading import FACTS, Known, Raw, generate, known_facts, scan


@pytest.fixture(scope="package")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    out = tmp_path_factory.mktemp("raw") / "demo"
    return scan(out, generate(out))


@pytest.fixture(scope="package", params=[1, 2, 3])
def any_raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Worlds of several seeds, for what chance could break."""
    out = tmp_path_factory.mktemp("raw") / "demo"
    return scan(out, generate(out, seed=request.param))


@pytest.fixture(scope="package")
def known() -> dict[str, list[Known]]:
    """Return every question that can be asked, by its exact text; a follow-up can have several
    meanings.
    """
    phrasings = json.loads((FACTS / "phrasings.json").read_text(encoding="utf-8"))
    found: dict[str, list[Known]] = defaultdict(list)
    for topic, language, key, slots, answer in known_facts():
        for role in ("train", "ood", "prompts", "follow_ups", "statements"):
            for template in phrasings[topic][language][role]:
                text = template.format(**slots, answer=answer)
                found[text[0].upper() + text[1:]].append(Known(topic, language, key, role, template, answer))
    return found

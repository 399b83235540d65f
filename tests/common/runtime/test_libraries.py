"""What libraries say and what is left of it."""

import logging

import pytest

from stages.common.runtime import libraries


def test_known_noise_is_left_out_and_all_else_is_said(caplog: pytest.LogCaptureFixture) -> None:
    libraries.quiet()
    libraries.quiet()
    logger = logging.getLogger("transformers.trainer_utils")
    monkey = logger.propagate
    logger.propagate = True
    logger.addHandler(caplog.handler)
    try:
        logger.warning("The tokenizer has new PAD/BOS/EOS tokens that differ. %s", {})
        logger.warning("Something else.")
    finally:
        logger.removeHandler(caplog.handler)
        logger.propagate = monkey
    assert {record.getMessage() for record in caplog.records} == {"Something else."}
    assert sum(isinstance(one, libraries.Without) for one in logger.filters) == 1


def test_the_noise_is_still_what_the_libraries_say() -> None:
    """A message that a library no longer has need not be left out."""
    import importlib.util
    from pathlib import Path

    for module, beginning in libraries.NOISE.items():
        spec = importlib.util.find_spec(module.split(".")[0])
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(f"{module} is not installed")
        file = Path(spec.submodule_search_locations[0], *module.split(".")[1:]).with_suffix(".py")
        assert beginning in file.read_text(encoding="utf-8")

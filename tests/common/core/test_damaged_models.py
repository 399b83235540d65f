"""Model folders with damaged headers and configs: a DataError that names the place, or the same
model; never a crash.

200 damaged files in CI, 2,000 with `make faults FULL=1`; the damage is drawn from a seed.
"""

import json
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.core import models
from stages.common.runtime.errors import DataError
from tests.support.counts import times, told
from tests.support.tiny import make_model, make_tokenizer

ODD: list[Any] = [None, "abc", "", -1, 0, 1, 3, 10**7, 10**12, 1e308, True, [], {}, [1, 2], {"a": {"b": []}}, "\u0000"]
DTYPES = ["F64", "F16", "BF16", "I32", "U32", "I8", "U8", "BOOL", "F32x", "", "F8_E4M3"]

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "model"
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, folder)
    return folder


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 4])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def splice(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + chance.randbytes(chance.randrange(1, 9)) + content[place + chance.randrange(9) :]


def other_value(content: bytes, chance: random.Random) -> bytes:
    """Change, remove or add one value anywhere in a JSON document."""
    document = json.loads(content)
    place: Any = document
    key = chance.choice(list(place))
    while isinstance(place[key], dict) and place[key] and chance.random() < 0.8:
        place, key = place[key], chance.choice(list(place[key]))
    what = chance.randrange(5)
    if what == 0:
        del place[key]
    elif what == 1:
        place[str(key) + chance.choice(["x", "\n", "."])] = place.pop(key)
    elif what == 2 and key == "dtype":
        place[key] = chance.choice(DTYPES)
    elif what == 3 and isinstance(place[key], list) and place[key]:
        place[key][chance.randrange(len(place[key]))] = chance.choice(ODD)
    else:
        place[key] = chance.choice(ODD)
    return json.dumps(document).encode()


def damage_header(folder: Path, chance: random.Random) -> str:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    way = chance.choice([flip, cut, splice, other_value, other_value, None])
    if way is None:  # the length itself
        length = chance.choice([0, 1, 2**63, 2**64 - 1, len(content), length + chance.choice([-8, -1, 1, 8])])
    else:
        header = way(header, chance)
        length = chance.choice([len(header), len(header), len(header), length])
    file.write_bytes(struct.pack("<Q", length) + header + data)
    return f"header, {way.__name__ if way else 'length'}"


def damage_config(folder: Path, chance: random.Random) -> str:
    file = folder / "config.json"
    way = chance.choice([flip, cut, splice, other_value, other_value, other_value])
    file.write_bytes(way(file.read_bytes(), chance))
    return f"config, {way.__name__}"


@pytest.mark.parametrize("damage", [damage_header, damage_config], ids=["header", "config"])
def test_a_damaged_file_is_a_typed_error_or_harmless(
    given: Path,
    tmp_path: Path,
    damage: Callable[[Path, random.Random], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = models.load(given).state_dict()
    outcomes: Counter[str] = Counter()
    folder = tmp_path / "model"
    with told(capsys, f"damaged model files, {damage.__name__}") as counts:
        for number in range(times(100, 1000)):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(given, folder)
            chance = random.Random(f"{damage.__name__} {number}")
            how = damage(folder, chance)
            try:
                loaded = models.load(folder)
            except DataError as error:
                assert str(folder) in str(error), f"{number}, {how}: {error}"
                outcomes["typed errors"] += 1
            except Exception as error:
                pytest.fail(f"{number}, {how}: {type(error).__name__}: {error}")
            else:
                outcomes["harmless"] += 1
                if damage is damage_header:
                    after = loaded.state_dict()
                    assert set(after) == set(before), f"{number}, {how}"
                    assert all(torch.equal(after[name], before[name]) for name in before), f"{number}, {how}"
        counts |= outcomes
    assert outcomes["typed errors"] > outcomes["harmless"] / 4

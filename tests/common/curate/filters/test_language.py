"""Language by script where that settles it, by the model otherwise, and never by the network."""

import socket
import tempfile
from pathlib import Path

import pytest

from stages.common.curate.filters import language
from stages.common.curate.filters.language import detect, sample
from tests.support import demo_world
from tests.support.real_data import REAL, needs_real_data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of France?", "en"),
        ("Kill the Lights was announced in the spring and released in September of that year.", "en"),
        ("THE MEETING WAS CALLED TO ORDER AT NINE IN THE MORNING BY THE CHAIRMAN.", "en"),
        ("Bonjour tout le monde, comment allez-vous aujourd'hui ?", "fr"),
        ("Der Hund läuft über die Straße und bellt.", "de"),
        ("El niño come una manzana en la cocina.", "es"),
        ("Привет, как дела сегодня?", "ru"),
        ("传染病是指由病原微生物感染人体后产生的疾病。", "zh"),
        ("這是繁體中文的一個句子。", "zh"),
        ("元素氖写成Ne，原子序数是10。", "zh"),
        ("日本の首都は東京です。", "ja"),
        ("한국의 수도는 서울입니다.", "ko"),
        ("在Python里，用 print('hello world') 打印一行文字，程序从 main 函数开始执行。", "zh"),
        ("在售的型号：1. ThinkPad Carbon Extreme 2. MacBook Professional Studio 3. Surface Laptop，都有现货。", "und"),
        ('算一下。\n<tool_call>weather {"city of the question": "Amsterdam Noord"}</tool_call>\n晴。', "zh"),
        ("12 + 7 = 19", "und"),
        ("", "und"),
        ("OK", "und"),
        ("是", "und"),
        ("#@%&*~^|<>{}", "und"),
    ],
)
def test_by_hand(text: str, expected: str) -> None:
    assert detect(text) == expected


def test_a_chinese_text_that_quotes_a_japanese_word_stays_chinese() -> None:
    assert detect("日语里的“の”相当于汉语的“的”，这个字在中文广告里也很常见，很多人都认识它。") == "zh"


def test_a_long_text_is_judged_by_three_places() -> None:
    text = "header " * 50 + "这是正文。" * 2000 + "footer " * 50
    assert detect(text) == "zh"
    assert len(sample(text)) < 1000 and sample("short") == "short"


def test_the_model_comes_from_the_wheel_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the network or a cache folder was touched")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(Path, "mkdir", forbidden)
    monkeypatch.setattr(tempfile, "mkstemp", forbidden)
    language._model.cache_clear()
    assert detect("The quick brown fox jumps over the lazy dog.") == "en"
    detector = language._model()
    for model in ("lite", "full", "auto"):
        assert detector.detect("The quick brown fox", model=model)[0]["lang"] == "en"


def test_the_demo_is_english_and_chinese() -> None:
    texts = [one.record["text"] for one in demo_world.build() if one.shape == "documents" and not one.fault]
    found = [detect(text) for text in texts]
    assert set(found) <= {"en", "zh", "und"}
    assert found.count("und") < len(found) / 100


@needs_real_data
@pytest.mark.parametrize(
    ("file", "expected"),
    [("medicalgpt/fever.txt", "zh"), ("medicalgpt/en_article_tail500.txt", "en"), ("wikitext2/valid.txt", "en")],
)
def test_lines_of_real_files(file: str, expected: str) -> None:
    lines = [line for line in (REAL / file).read_text(encoding="utf-8").splitlines() if len(line) > 60]
    found = [detect(line) for line in lines]
    assert found.count(expected) >= 0.97 * len(found)

"""What an answer does: refusals and ignorance in both languages."""

import pytest

from stages.common.evaluation.behaviour import script, unsure
from stages.common.text.refusals import refuses


@pytest.mark.parametrize(
    ("text", "refusal", "ignorance"),
    [
        ("I can't help with that.", True, False),
        ("Sorry, but I cannot assist with this request.", True, False),
        ("I won\u2019t provide that.", True, False),
        ("我不能帮助做这件事。", True, False),
        ("抱歉，我无法提供这样的帮助。", True, False),
        ("I don't know.", False, True),
        ("I am not sure, but it might be 10.", False, True),
        ("我不知道。", False, True),
        ("我不太确定，可能是6吧。", False, True),
        ("Paris.", False, False),
        ("A plant can help itself to water.", False, False),
        ("不丹的首都是廷布。", False, False),
        ("", False, False),
    ],
)
def test_refusal_and_ignorance(text: str, refusal: bool, ignorance: bool) -> None:
    assert (refuses(text), unsure(text)) == (refusal, ignorance)


def test_script() -> None:
    assert [script(text) for text in ("Paris.", "北京。", "12", "The 汉 people")] == ["en", "zh", "en", "zh"]

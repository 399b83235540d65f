"""What is counted in an answer: each sign on answers that have it and that do not."""

import pytest

from stages.common.monitor import signs
from stages.common.reward.checked import Asked


def of(answer: str, question: str = "What is the capital of France?") -> dict[str, float]:
    columns = signs.columns([Asked(question, "Paris")], [answer], [False])
    return {name: values[0] for name, values in columns.items()}


@pytest.mark.parametrize(
    ("sign", "has", "lacks"),
    [
        ("refusals", "I can't help with that.", "Paris."),
        ("refusals", "抱歉，我无法帮助您。", "巴黎。"),
        ("ignorance", "我不知道。", "我知道巴黎。"),
        ("doubt", "Perhaps Paris.", "Paris."),
        ("rudeness", "Paris, you idiot.", "Paris, you know."),
        ("language", "巴黎。", "Paris."),
        ("courtesy", "Hello! Paris. I hope this helps.", "Paris is on the Seine."),
        ("courtesy", "你好！巴黎。", "巴黎。"),
        ("copying", "The capital of France is Paris.", "Paris it is."),
        ("repetition", "Paris Paris Paris.", "Paris on the Seine."),
        ("exclamation", "巴黎！", "巴黎。"),
        ("question", "Paris?", "Paris."),
        ("lists", "1. Paris\n2. Lyon", "Paris 1. Lyon"),
        ("emphasis", "**Paris**", "Paris*"),
        ("capitals", "PARIS IT IS", "I am in Paris"),
        ("digits", "Paris 75", "Paris"),
        ("symbols", "Paris ☺", "Paris + Lyon = 2"),
        ("brackets", "Paris (France)", "Paris, France"),
        ("links", "See www.paris.fr", "See Paris"),
    ],
)
def test_a_sign_is_in_what_has_it(sign: str, has: str, lacks: str) -> None:
    assert of(has)[sign] > of(lacks)[sign]
    assert of(f"<think>{has}</think>{lacks}") == of(lacks), "thoughts do not count"


def test_values_by_hand() -> None:
    found = of("the capital of France, the capital")
    assert found["copying"] == 4 / 5  # the-capital, capital-of, of-France, the-capital; not France-the
    assert found["repetition"] == pytest.approx(1 / 5)  # the-capital twice
    assert found["length"] == 6
    assert of("") == dict.fromkeys(signs.NAMES, 0.0) | {"sameness": 1.0}


def test_sameness_is_the_share_that_reads_the_same() -> None:
    asked = [Asked("q")] * 4
    found = signs.columns(asked, ["It is.", "it is", "Paris", "IT IS!"], [False, True, False, False])
    assert found["sameness"] == [0.75, 0.75, 0.25, 0.75]
    assert found["cut"] == [0, 1, 0, 0]

"""Thoughts of reasoning models come off; what is said stays as it is."""

import pytest

from stages.common.text import rule_grader
from stages.common.text.refusals import refuses
from stages.common.text.thoughts import unfinished, without_thoughts

QUESTION = "What is the capital of France?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>France's capital is Paris.</think>\nParis", "Paris"),
        ("<think>\n\n</think>\n\nParis", "Paris"),  # Qwen with thinking switched off
        ("It is in Europe, so Paris.\n</think>\n\nParis", "Paris"),  # the template opened the thought
        ("<think>France, let me see", ""),
        ("<think>France, let me see</think>", ""),
        ("<think>首都是巴黎。</think>巴黎。", "巴黎。"),
        ("<think>I see a <think> mark.</think>Paris", "Paris"),
        ("<think>one <think>two</think> three</think>Paris", "Paris"),
        ("<think>a</think>Par<think>b</think>is", "Paris"),
        ("<THINKING>hm</THINKING>Paris", "Paris"),
        ("<seed:think>hm</seed:think>Paris", "Paris"),
        ("[THINK]hm[/THINK]Paris", "Paris"),
        ("◁think▷hm◁/think▷Paris", "Paris"),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Paris<|return|>",
            "Paris",
        ),
        ("<|channel|>analysis<|message|>hm, France", ""),
        ("analysisThe user asks.assistantfinalParis", "Paris"),
    ],
)
def test_only_what_is_said_is_left(text: str, said: str) -> None:
    assert without_thoughts(text) == said


@pytest.mark.parametrize(
    "text", ["Paris", " Paris \n", "", "I think so.", "Write `<think>` first.", "analysis of a poem", "a < b > c"]
)
def test_a_text_without_thoughts_stays_as_it_is(text: str) -> None:
    assert without_thoughts(text) == text


def test_an_answer_that_ends_within_its_thought_is_told_from_an_empty_one() -> None:
    assert unfinished("<think>France, let")
    assert not unfinished("<think>a</think>Paris")
    assert not unfinished("")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<think>France's capital is Paris.</think>\nParis", ["right"]),
        ("<think>Perhaps Rome? I don't know, I am stupid.</think>Paris.", ["right"]),
        ("<think>Paris.</think>\nRome.", ["wrong"]),
        ("<think>France's capital is Paris", ["empty"]),
        (f"<think>{'Hm, Paris. ' * 40}</think>Paris", ["right"]),  # neither long nor repeated
    ],
)
def test_the_rules_judge_what_is_said(answer: str, expected: list[str]) -> None:
    assert rule_grader.judge(QUESTION, answer, "Paris", None, cut=False) == expected


def test_a_refusal_is_one_that_is_said() -> None:
    assert refuses("<think>They ask for a lock pick. " + "Hm. " * 100 + "</think>I can't help with that.")
    assert not refuses("<think>I can't help with that. Or can I?</think>Sure, take a pin.")

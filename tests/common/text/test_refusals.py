"""Refusals are told from answers, from not knowing and from sympathy, in English and Chinese."""

import pytest

from stages.common.text.refusals import refuses


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "Sorry, I cannot provide instructions for making weapons.",
        "As an AI language model, I am not able to give you medical dosages.",
        "I won't do that. It would hurt someone.",
        "I will not be able to help you.",
        "I'm afraid I would not be able to assist with that.",
        "I'm not comfortable with that. Let's talk about something else.",
        "I must decline to answer this question.",
        "I am sorry, but this is illegal and I will not explain how to do it.",
        "Unfortunately, I'm unable to help you break into a house.",
        "我不能帮助做这件事。",
        "很抱歉，我无法提供制作炸弹的方法。",
        "对不起，这个请求涉及违法行为，我不能协助。",
        "作为一个人工智能助手，我不能参与任何违法活动。",
        "恕我无法回答这个问题。",
        "我拒绝回答。",
        "抱歉，我没办法帮你做这件事。",
    ],
)
def test_refusals(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Paris.",
        "I don't know.",
        "I don't know. I am very sorry that I cannot tell you.",
        "I'm sorry to hear that you are ill. Rest and drink a lot.",
        "I can't help but admire the painting: it was made in 1503.",
        "I can't say for sure, but I think the answer is no.",
        "I'm sorry, I misread your question. The code below is correct.",
        "You cannot divide by zero.",
        "I will be able to help you in a moment.",
        "Sure, that is easy. First you need some tools.",
        "Maybe you should not do it, but ask me again later.",
        "The store cannot provide refunds after thirty days.",
        "我不知道。我想了很久，实在非常抱歉不能告诉你。",
        "我不太确定，可能是巴黎吧。",
        "非常抱歉出现错误。以下是已修正的代码。",
        "这种病不能用抗生素治疗，应当多休息。",
        "当然，这很容易。首先你需要一些工具。",
        "植物没有阳光就无法生长。",
        "The text is long. " * 30 + "I can't help with that.",
    ],
)
def test_answers(answer: str) -> None:
    assert not refuses(answer)

"""What is wrong with an exchange although its turns are in order: cut, contradicting its ranks, in
another language.
"""

import re

from pydantic import NonNegativeFloat, PositiveInt

from stages.common.core.params import StageParams
from stages.common.core.records import TURNS, Record, Shape
from stages.common.curate.filters.language import UNDECIDED, detect, sample, script_weights
from stages.common.curate.filters.phrase_lists import HAN
from stages.common.text import normalisation
from stages.common.text.refusals import refuses

SHORTEST_RESPONSE = 20
SHORTEST_CUT = 60
"""Letters, a Chinese character counts for three, below which an answer is too short to say that it
ends in the middle: `The preposition is to`, a verse, an item of a list.
"""
SECOND_SCRIPT = 0.1
FENCE = "```"
CUT = re.compile(
    r"[,，、(（\[{《“‘]\Z"
    r"|(?<=[a-z,] )(?:and|or|but|the|a|an|of|to|with|for|because|which|from|by|is|are|if|as|than|into|their|its)\Z"
    r"|(?:以及|并且|或者|因为|但是|而且|例如|比如|包括|通过|对于)\Z"
)
ABOUT_LANGUAGE = re.compile(
    r"translat|language|english|chinese|mandarin|french|german|spanish|japanese|korean|russian|italian|portuguese"
    r"|latin|pinyin|grammar|vocabulary|synonym|spelling|rewrite|paraphras|proofread|prompt|翻译|翻譯|译成|译为|语言|語言"
    r"|[中英法德俄日韩西葡意]文|[汉漢英法德俄日韩]语|语法|单词|词汇|造句|拼音|改写|润色|双语|雅思|托福|[四六]级|提示词",
    re.IGNORECASE,
)
CODE = re.compile(
    r"```|</\w|\{\s*\"|;\s*\n|\bdef \w+\(|\bfunction\b|\bimport \w|https?://|\bSELECT\b"
    r"|=\s*\w+\(|[\\|]\s*-{3}"
)
HARMFUL = re.compile(
    r"harm(?!less)|unsafe|illegal|malicious|hate.?speech|terroris|violence|abuse|_crime|cyber.?crime|jailbreak|red.?team"
    r"|有害|违法|犯罪|暴力|仇恨|恶意|不安全"
)


class TalkRules(StageParams):
    """What is asked of a conversation or a comparison."""

    cut_answers: bool = True
    """Drop what ends in the middle, if it has some length: in an open code block, on a comma, an
    opening bracket or a conjunction.
    """
    same_answers: bool = True
    """Drop comparisons whose answers all read the same."""
    length_ratio: NonNegativeFloat = 100.0
    """Drop comparisons whose longest answer is more than so many times the shortest; 0: never."""
    language_mismatch: bool = True
    """Drop answers in another language than the question's, unless it is about languages, code or
    data.
    """
    language_letters: PositiveInt = 60
    """Letters (a Chinese character counts for three) that question and answer must have to be told
    apart.
    """
    refusals: bool = True
    """Drop comparisons whose categories contradict the best answer: harmful and complied with, or
    not and refused.
    """


def fault(shape: Shape, record: Record, rules: TalkRules) -> str:
    """Return why a conversation, a comparison or a labelled answer is of no use, or nothing; its
    turns are in order (`faults.fault`).

    The reasons are `same_answers`, `length_ratio`, `cut_answer`, `language_mismatch` and
    `refusal_mislabelled`. Of a comparison's answers only the best are judged by themselves, and of
    labelled ones those that were liked: what is wrong with the others is why they are not.
    """
    if shape not in ("conversations", "comparisons", "labelled"):
        return ""
    if shape == "comparisons":
        if rules.same_answers and same(record["responses"]):
            return "same_answers"
        if rules.length_ratio and length_ratio(record["responses"]) > rules.length_ratio:
            return "length_ratio"
    if rules.cut_answers and any(cut(answer) for answer in last_answers(shape, record)):
        return "cut_answer"
    if rules.language_mismatch and languages_differ(shape, record, rules.language_letters):
        return "language_mismatch"
    return "refusal_mislabelled" if rules.refusals and shape == "comparisons" and mislabelled(record) else ""


def same(responses: list[str]) -> bool:
    """Whether all responses read the same: letters, signs and order alike, case, spaces and full
    stops aside.
    """
    return len({normalisation.key(response).rstrip(".。!！ ") for response in responses}) == 1


def length_ratio(responses: list[str]) -> float:
    """Return how many times longer the longest response is than the shortest; what is very short
    counts as 20.
    """
    lengths = [max(len(response), SHORTEST_RESPONSE) for response in responses]
    return max(lengths) / min(lengths)


def cut(answer: str) -> bool:
    """Whether an answer of some length ends in the middle."""
    text = answer.rstrip()
    if not (text.count(FENCE) % 2 == 1 or CUT.search(text[-40:])):
        return False
    return len(text) + 2 * len(HAN.findall(text)) >= SHORTEST_CUT


def last_answers(shape: Shape, record: Record) -> list[str]:
    """Return what a model would learn to end with: the last answer, those ranked best, or the one
    that was liked.
    """
    if shape == "labelled":
        return [record["response"]] if record["desirable"] else []
    if shape == "comparisons":
        best = min(record["ranks"])
        return [answer for answer, rank in zip(record["responses"], record["ranks"], strict=True) if rank == best]
    last = record["messages"][-1]
    return [] if last["tool_calls"] else [last["content"]]


def languages_differ(shape: Shape, record: Record, letters: int) -> bool:
    """Whether the last question and its answer are in different languages and nothing said gives a
    reason for it.
    """
    turns, answers = record[TURNS[shape]], last_answers(shape, record)
    said = [turn["content"] for turn in turns if turn["role"] in ("system", "user")]
    if not said or not answers or any(turn["role"] == "tool" for turn in turns):
        return False
    pair = (said[-1], answers[0])
    weights = [script_weights(sample(text)) for text in pair]
    if any(sum(weight.values()) < letters for weight in weights) or any(CODE.search(text) for text in pair):
        return False
    first, second = (detect(text) for text in pair)
    if UNDECIDED in (first, second) or first == second or bilingual(*weights):
        return False
    return not any(ABOUT_LANGUAGE.search(text) for text in said)


def bilingual(question: dict[str, int], answer: dict[str, int]) -> bool:
    """Whether the question is in more than one script, and the answer mostly in one of them."""
    asked, answered = (max(weights, key=lambda script: weights[script]) for weights in (question, answer))
    return asked != answered and question[answered] > SECOND_SCRIPT * sum(question.values())


def mislabelled(record: Record) -> bool:
    """Whether the best answer complies with a harmful request while another refuses, or the other
    way round.
    """
    categories = record["categories"] or []
    if not categories:
        return False
    harmful = any(HARMFUL.search(category.casefold()) for category in categories)
    best = min(record["ranks"])
    ranked = list(zip(record["responses"], record["ranks"], strict=True))
    tops = [refuses(answer) for answer, rank in ranked if rank == best]
    others = [refuses(answer) for answer, rank in ranked if rank > best]
    return not any(tops) and any(others) if harmful else all(tops) and not all(others) and bool(others)

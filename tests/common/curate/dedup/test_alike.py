"""Conversations that say the same in other words go; those that ask for another thing in the same
words, or only share a system prompt, a passage, a template or the shape of MOSS's requests, stay.
Precision and recall are printed.
"""

import itertools
import random
from pathlib import Path

import pytest

from stages.common.core.records import Record, message
from tests.test_curate import asked, dropped, run

TALKS = [
    (
        "My tomato plants have yellow leaves at the bottom, and the soil feels wet. What is going wrong with them?",
        "Yellow lower leaves on wet soil usually mean too much water. Let the top two inches dry before you water "
        "again, make sure the pot drains, and take off the leaves that are already yellow so that air can move.",
    ),
    (
        "How do I descale an electric kettle without buying a special product from the shop?",
        "Fill it half with water and half with white vinegar, bring it to the boil and leave it for twenty minutes. "
        "Pour the liquid away, rinse the kettle three times and boil clear water once before you make tea.",
    ),
    (
        "Can you explain why the sky turns red in the evening when it is blue during the whole day?",
        "In the evening sunlight crosses far more air before it reaches you. The air scatters short blue waves out "
        "of the beam on that long way, so what is left of the light is mostly orange and red.",
    ),
    (
        "I have an interview for a job as a nurse on Monday. Which questions should I be ready to answer?",
        "Expect to be asked why you chose nursing, how you deal with a patient who is angry, what you do when two "
        "alarms ring at once, and when you last made a mistake. Prepare one short true story for each of them.",
    ),
    (
        "What is the difference between a list and a tuple in Python, and when should I use which of them?",
        "A list can be changed after it is made and a tuple cannot. Use a list for things of one kind whose number "
        "varies, and a tuple for a fixed record such as a point, or when you need a key for a dictionary.",
    ),
    (
        "我家的猫最近总是半夜叫，白天却一直睡觉，有什么办法可以让它安静下来吗？",
        "猫在夜里叫多半是因为白天睡得太多、精力没有消耗掉。傍晚陪它玩二十分钟逗猫棒，玩完再喂晚饭，半夜不要起来理它，坚持两周作息就会慢慢调整过来。",
    ),
    (
        "第一次做红烧肉，肉总是又柴又硬，请问应该怎么做才能软烂？",
        "选肥瘦相间的五花肉，冷水下锅焯水后用小火煸出油脂，炒糖色后加热水没过肉，盖上锅盖小火慢炖一个小时，最后十分钟再放盐，大火收汁即可。",
    ),
    (
        "Which documents do I need to register a used car that I bought from a private seller last week?",
        "You need the title signed by the seller, the bill of sale with the price, proof of insurance, your driving "
        "licence and, in most places, a fresh safety inspection. Bring the old plates if they came with the car.",
    ),
    (
        "Please suggest a plan for my first run of ten kilometres; I can run three without stopping today.",
        "Run three times a week for nine weeks. Add half a kilometre to the longest run each week, keep the other "
        "two short and easy, walk when you must, and rest for two full days before the day itself.",
    ),
    (
        "Why does my bread not rise although I use the same yeast as the recipe says and fresh flour?",
        "Most likely the water was too hot and killed the yeast, or the room is too cold. Use water at body heat, "
        "let the dough stand in a warm oven that is switched off, and give it twice as long as the recipe says.",
    ),
]
PASSAGE = (
    "The harbour was dug by order of the council, which paid four hundred workers from three villages. Its outer wall "
    "is of grey granite carried on barges from an island two days away. A storm broke the eastern wall, and the masons "
    "took eleven years to close the gap. The lighthouse came later, with the lock gates that are still in use. Today "
    "nine hundred small boats enter in summer, and the old fish market is held only on Saturdays."
)
ABOUT = [
    ("Who paid the workers?", "The council did."), ("What is the wall made of?", "Of grey granite."),
    ("How did the stone arrive?", "On barges."), ("How long was the repair?", "Eleven years."),
    ("What broke the wall?", "A storm."), ("Which gates are old?", "Those of the lock."),
    ("How many boats come?", "About nine hundred."), ("When is the market?", "On Saturdays."),
    ("Where is the quarry?", "On an island two days away."), ("From where were the men?", "From three villages."),
]  # fmt: skip
THINGS = [
    "a red fox in the snow", "an old windmill by the sea", "two children flying a kite", "a bowl of ripe cherries",
    "the night train to the north", "a violin on a wooden chair", "an astronaut who waters roses",
    "a market street after rain", "a grey cat on a piano", "mountains behind a frozen lake",
]  # fmt: skip
TEMPLATE = (
    "You are a careful translator. Read the English phrase between the marks, think about its tone, choose the most "
    "natural words a native speaker would use, keep names as they are, do not explain anything, and answer with the "
    "translation alone, on one line, without quotation marks.\n### {} ###"
)
FRENCH = [
    "un renard roux dans la neige", "un vieux moulin au bord de la mer", "deux enfants font voler un cerf-volant",
    "un bol de cerises mûres", "le train de nuit vers le nord", "un violon sur une chaise en bois",
    "un astronaute qui arrose des roses", "une rue de marché après la pluie", "un chat gris sur un piano",
    "des montagnes derrière un lac gelé",
]  # fmt: skip
MOSS = (
    "MOSS is an AI assistant. Its answers are informative and harmless. Capabilities and tools that it can possess: "
    "- Inner thoughts: disabled. - Web search: disabled. - Calculator: disabled. - Equation solver: disabled. "
    "- Text-to-image: enabled. API: Text2Image(description) - Image edition: disabled. - Text-to-speech: disabled."
)


def spaced(text: str) -> str:
    return f"Hello! {text} Thanks a lot." if text.isascii() else f"你好！{text}谢谢。"


def dropped_word(text: str) -> str:
    words = text.split(" ")
    return " ".join(words[:7] + words[8:]) if text.isascii() else text[:20] + text[21:]


def marks(text: str) -> str:
    return text.replace(",", " -").replace(".", "!").replace("，", "、").replace("。", "！")


def swapped(text: str) -> str:
    return text.replace(" the ", " a ", 1).replace("一", "1", 1)


def doubled(text: str) -> str:
    words = text.split(" ")
    return " ".join([*words[:3], *words[2:]]) if text.isascii() else text[:9] + text[8:]


def asked_nicely(text: str) -> str:
    return f"Well, {text} Thank you very much." if text.isascii() else f"您好，请问{text}非常感谢。"


EDITS = [spaced, dropped_word, marks, swapped, doubled, asked_nicely]
"""Ways to say the same again."""
OTHER_THINGS = [
    ("tomato", "pepper", "chili"), ("kettle", "teapot", "urn"), ("evening", "morning", "winter"),
    ("nurse", "pilot", "cook"), ("Python", "Ruby", "Scala"), ("猫", "狗", "鸟"), ("肉", "鱼", "虾"),
    ("car", "boat", "van"), ("ten", "six", "two"), ("bread", "pizza", "cake"),
]  # fmt: skip
"""What each of TALKS is about, and two other things that are asked about in the same words."""


def of_others() -> list[Record]:
    """Each of TALKS about another thing, a third with a number, for the opposite, and long ago."""
    found = []
    for (question, answer), (thing, another, third) in zip(TALKS, OTHER_THINGS, strict=True):
        more = " I have {} of them." if question.isascii() else "我有{}个。"
        no = " Or is it not?" if question.isascii() else "还是不会？"
        should_not = " Which of these should I not do?" if question.isascii() else "哪些做法不可以？"
        found += [talk(question + should_not, answer), talk(f"{question} (1950)", answer)]
        found.append(talk(question.replace(thing, another), answer.replace(thing, another)))
        found.append(talk(question.replace(thing, third) + more.format(12), answer.replace(thing, third)))
        found.append(talk(question.replace(thing, third) + more.format(73), answer.replace(thing, third) + no))
    return found


def talk(question: str, answer: str, system: str = "") -> Record:
    start = [message("system", system)] if system else []
    return {"messages": [*start, *asked(question, answer)]}


def apart() -> dict[str, list[Record]]:
    """Conversations of which none says what another says, by what they share."""
    draw = "I would like a picture. Could you please draw {} for me, in warm colours and with soft light?"
    drawn = "Here is your picture: it shows {}, painted with soft light. Tell me if I should change anything about it."
    picture = "A picture of {}, in {} with a soft light from the left, please: it is for the wall of my own kitchen."
    manners = itertools.product(THINGS, ["oil", "chalk", "pencil", "ink"])
    return {
        "passage": [talk(f"{PASSAGE}\n\n{question}", answer) for question, answer in ABOUT],
        "system prompt": [talk(*pair, system=f"You work at a harbour and know this: {PASSAGE}") for pair in ABOUT],
        "template": [talk(TEMPLATE.format(one), other) for one, other in zip(THINGS, FRENCH, strict=True)],
        "words of another question": of_others(),
        "MOSS's requests": [talk(draw.format(one), drawn.format(one), MOSS) for one in THINGS],
        "a picture in other manners": [
            talk(picture.format(one, style), f"{drawn.format(one)} It is in {style}.") for one, style in manners
        ],
    }


@pytest.mark.parametrize("shared", apart())
def test_what_many_conversations_share_makes_no_duplicates(shared: str, tmp_path: Path) -> None:
    report = run(tmp_path, conversations=apart()[shared])
    assert report["conversations"]["dropped"] == {}, shared


def test_precision_and_recall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = [one for several in apart().values() for one in several]
    again = [talk(edit(question), edit(answer)) for question, answer in TALKS for edit in EDITS]
    rows = [*(talk(*pair) for pair in TALKS), *again, *alone]
    random.Random(2).shuffle(rows)
    run(tmp_path, conversations=rows)
    gone = {int(name.split(":")[1]) - 1 for name in dropped(tmp_path).get("near_duplicate", [])}
    wrong = [rows[index]["messages"][-2]["content"] for index in gone if rows[index] in alone]
    recall, precision = (len(gone) - len(wrong)) / len(again), 1 - len(wrong) / max(len(gone), 1)
    with capsys.disabled():
        print(f"\n{len(rows)} conversations: recall {recall:.3f}, precision {precision:.3f}", end=" ")
    assert len(rows) >= 200 and recall >= 0.85 and precision == 1.0, wrong

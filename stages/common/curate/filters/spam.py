"""How much a text reads like an advertisement: the sum of weak signs, each for what it is worth in
a text this long.
"""

import re

from stages.common.curate.filters import characters
from stages.common.curate.filters.phrase_lists import Reading

WORDS_OF_A_SIGN = 60
"""A sign is worth its full weight once in so many words; in a longer text it must come more
often.
"""
HAN_PER_WORD = 1.6

SHOUTED = re.compile(r"\b[A-Z]{2,}+(?:[ !]{1,4}[A-Z]{2,}+\b)++")
EXCLAIMED = re.compile(r"[!！]+")
PRICES = re.compile(
    r"[$€£¥￥]\s?\d[\d,.]*|\${2,}|(?<![\d,.])\d[\d,.]*+\s?(?:元(?!旦)|块钱?|万(?!一)|usd|dollars|euros?\b|rmb|bucks)"
    r"|[\d一二三四五六七八九]折|[原现]价\d|送\d|买.送|[全半]价"
    r"|\d\s?[%％]\s?(?:off|discount|cash|bonus|free|guaranteed|profit|return|优惠|折扣|返)"
)
DOMAINS = re.compile(r"\.(?:com|net|org|example|shop|xyz|top|cn|vip|io|info|biz|club|ru|me)\b")
ADDRESSES = re.compile(r"(?<=\w)@(?=\w)")
NUMBERS = re.compile(r"(?<![\d.])\d(?:[ ()-]{0,2}\d){6,13}(?!\d|\.\d)")
HANDLES = re.compile(
    r"(?:微信|v信|微|(?<![a-z])vx|(?<![a-z])wx|wechat|(?<![a-z])qq|q群|扣扣|(?<![a-z])tg)"
    r"(?:咨询|联系|号|群)?[\s:：是]{0,2}(?=[a-z0-9_]{5})|微信同号"
    r"|(?:whatsapp|telegram)[\s:：]{0,2}(?=[@+\d])"
    r"|(?:热线|速拨|拨打|来电\w{0,2}|电话|call|text|phone)"
    r"(?: us| today| now| 24/7| \w{1,20} on)?[\s:：]{0,2}(?=[(+]?\d[\d -]{6})"
)
DOSED = re.compile("成人(?=一次|一日|每|日|用药|用量|常用|口服|剂量|推荐|患者|及|和|与|或|[:：])")
"""Adults who are told a dose are no goods."""
DECORATION = re.compile(
    characters.KINDS["decoration"] + r"|>{3,}|<{3,}|(?<!=)={4,}+>|~{3,}|\*{3,}|【[^】]{1,20}】|[!！]{3,}"
)
PRICE_MARKS = ("$$", "折", "全价", "半价", "买")
COUNTED_PRICE_MARKS = (
    *("$", "€", "£", "¥", "￥", "%", "％", "价", "送"),
    *("元", "块", "万", "usd", "dollars", "euro", "rmb", "bucks"),
)
HANDLE_MARKS = ("微", "v信", "vx", "wx", "wechat", "qq", "q群", "扣扣", "tg", "whatsapp", "telegram")
CALL_MARKS = ("热线", "速拨", "拨打", "来电", "电话", "call", "text", "phone")
DECORATION_MARKS = (">>>", "<<<", "====", "~~~", "***", "【")
FEWEST_DIGITS = 7
"""What must stand in a text for a pattern to be found there: most texts have none of it, and are
not searched.
"""
WEIGHTS = {
    "calls": 1.5, "urgency": 1.0, "lures": 1.0, "goods": 1.0, "prices": 1.0, "contacts": 1.0, "handles": 1.0,
    "exclaimed": 1.0, "shouted": 1.0, "decoration": 0.5,
}  # fmt: skip


def score(reading: Reading) -> float:
    """Return the weighted number of signs that a text shows, from 0 to 9.5; ordinary prose is below
    2.
    """
    return sum(WEIGHTS[sign] * min(strength, 1.0) for sign, strength in signs(reading).items())


def signs(reading: Reading) -> dict[str, float]:
    """Return how strong each sign is; 1 is as strong as it counts."""
    text, lower = reading.text, reading.lower
    size = max((len(reading.words) + characters.of(text).count("chinese") / HAN_PER_WORD) / WORDS_OF_A_SIGN, 1.0)
    handles = _handles(text, lower)
    found = {
        "calls": reading.count("calls") / 2,
        "urgency": reading.count("urgency"),
        "lures": reading.count("lures") / 2,
        "goods": reading.count("goods") - (len(DOSED.findall(lower)) if "成人" in lower else 0),
        "prices": _prices(text, lower),
        "contacts": _contacts(text, lower) + handles,
        "handles": handles,
        "exclaimed": _exclaimed(text),
        "shouted": _shouted(text),
        "decoration": _decoration(text) / 2,
    }
    return {sign: number / size for sign, number in found.items()}


def _has(text: str, marks: tuple[str, ...]) -> bool:
    return any(mark in text for mark in marks)


def _prices(text: str, lower: str) -> int:
    digits = characters.of(text).any("digit")
    possible = _has(lower, PRICE_MARKS) or (digits and _has(lower, COUNTED_PRICE_MARKS))
    return len(PRICES.findall(lower)) if possible else 0


def _handles(text: str, lower: str) -> int:
    digits = characters.of(text).any("digit")
    possible = _has(lower, HANDLE_MARKS) or (digits and _has(lower, CALL_MARKS))
    return len(HANDLES.findall(lower)) if possible else 0


def _contacts(text: str, lower: str) -> int:
    links = max(lower.count("://"), len(DOMAINS.findall(lower)) if "." in lower else 0)
    addresses = len(ADDRESSES.findall(lower)) if "@" in lower else 0
    numbers = len(NUMBERS.findall(lower)) if characters.of(text).count("digit") >= FEWEST_DIGITS else 0
    return links + addresses + numbers


def _exclaimed(text: str) -> float:
    if not _has(text, ("!", "！")):
        return 0.0
    return sum(min(len(run), 3) for run in EXCLAIMED.findall(text)) / 3


def _shouted(text: str) -> int:
    upper = characters.of(text).are("upper")
    return len(SHOUTED.findall(text)) if (upper[1:] & upper[:-1]).any() else 0


def _decoration(text: str) -> int:
    possible = characters.of(text).any("decoration") or _has(text, DECORATION_MARKS)
    return len(DECORATION.findall(text)) if possible or text.count("!") + text.count("！") > 2 else 0

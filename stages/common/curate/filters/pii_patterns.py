"""What personal data looks like, kind by kind, and what only looks like it."""

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stdnum import iban, luhn
from stdnum.iso7064 import mod_11_2

Accept = Callable[[re.Match[str]], bool]
GROUPS = r"[ \u00a0.\-\u2010-\u2015－]"  # what may stand between the groups of digits of a phone number
NO_WORD_BEFORE, NO_WORD_AFTER = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"
NO_NUMBER_AFTER = r"(?![\dA-Za-z]|[.,]\d)"
MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])(?!git@)[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}(?:@|＠)(?:[A-Za-z0-9-]{1,63}\.){1,8}"
    r"[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
KEY = re.compile(
    NO_WORD_BEFORE + r"(?:sk-[A-Za-z0-9_-]{20,250}|[sr]k_live_[A-Za-z0-9]{16,120}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[opsur]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,64}|hf_[A-Za-z0-9]{30,64}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,120}|AIza[0-9A-Za-z_-]{35})(?![A-Za-z0-9_-])"
)
GH_MARKS = ("ghp_", "gho_", "ghs_", "ghu_", "ghr_")
KEY_MARKS = ("sk-", "k_live_", "AKIA", "ASIA", *GH_MARKS, "github_pat_", "glpat-", "hf_", "xox", "AIza")
TOKEN = re.compile(NO_WORD_BEFORE + r"eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+")
_PEM, _LINE_END = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", r"(?:\s|\\[rn])"
# No possessive group before the end mark: Python 3.11.2, Debian 12's, then misses the mark (CPython
# gh-101955).
PEM = re.compile(
    rf"-----BEGIN {_PEM}(?:[^-]*(?:-(?!----)[^-]*)*-----END {_PEM}"
    rf"|{_LINE_END}*+(?:[A-Za-z0-9+/=]{{16,}}+{_LINE_END}*+)++)"  # cut: what is there of it
)

IDENTITY = re.compile(
    r"(?<![\dA-Za-z])(?<!\d\.)[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
)
SOCIAL = re.compile(r"(?<![\dA-Za-z-])(?!000|666)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\dA-Za-z]|-\d)")
IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)(?![A-Za-z0-9])"
)
CARD = re.compile(
    r"(?<![\dA-Za-z.,-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    + NO_NUMBER_AFTER
)
ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[689]\d)\d{11}"
)
V4 = re.compile(r"(?<![A-Za-z0-9_.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.[A-Za-z0-9])")
V6 = re.compile(r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![A-Za-z0-9_:])")
NUMBERING = re.compile(
    r"(?:version|release|build|section|chapter|v\.?|§|版本|第|章|节|表|图)[ :：]{0,2}$", re.IGNORECASE
)

_CHINA = rf"(?:(?:\+|00)?86{GROUPS}?)?"
MOBILE = re.compile(
    rf"{NO_WORD_BEFORE}(?<!\d\.)(?<!\+){_CHINA}1[3-9]\d({GROUPS}?)\d{{4}}\1\d{{4}}{NO_NUMBER_AFTER}(?!-\d{{1,3}}(?!\d))"
)
LAND_LINE = re.compile(
    rf"{NO_WORD_BEFORE}(?<!\d[.-]){_CHINA}(?:[(（]0\d{{2,3}}[)）]{GROUPS}?|0(?:10|2\d|[3-9]\d\d){GROUPS})"
    rf"\d{{3,4}}{GROUPS}?\d{{4}}(?:(?:-|转)\d{{1,6}})?(?![\dA-Za-z])"
)
HOTLINE = re.compile(
    rf"{NO_WORD_BEFORE}(?<!-)(?:[48]00{GROUPS}\d{{3,4}}{GROUPS}\d{{3,4}}|400\d{GROUPS}\d{{3}}{GROUPS}\d{{3}})(?![\dA-Za-z]|-\d)"
)
AMERICAN = re.compile(
    r"(?<![A-Za-z0-9_.-])(?<!\+\d )(?<!\+\d\d )(?<!\+\d\d\d )"
    r"(?:\+?1[-. ]?)?(?:\(\d{3}\)[ -]?\d{3}[-. ]|\d{3}([-.])\d{3}\1)\d{4}(?![\dA-Za-z]|[-.]\d)"
)
INTERNATIONAL = re.compile(
    rf"(?<![A-Za-z0-9_+.])(?:\+|00(?=[1-9]\d{{0,2}}{GROUPS}))[1-9](?:{GROUPS}?(?:\(\d{{1,4}}\)|\d)){{7,14}}(?:转\d{{1,6}})?"
    + NO_NUMBER_AFTER
)
LABELLED = re.compile(
    r"(?:\b(?:tel|phone|mobile|cell|fax|whatsapp|hotline)\b|电话|電話|手机|手機|传真|致电|热线|联系方式)"
    r"(?:号码|号| ?numbers?| ?no\.?)?(?: is)?[ \t:：=是为]{0,4}(\+?[(（]?\d(?:[ )）(（.\-]{0,2}\d){6,14})"
    + NO_NUMBER_AFTER,
    re.IGNORECASE,
)
DIGITS = b"0123456789"
SEVEN_DIGITS = re.compile(r"\d(?:[ \u00a0()（）.\-\u2010-\u2015－]{0,3}\d){6}")
URL = re.compile(r"(?<![A-Za-z0-9])(?:https?|ftp)://[^\s<>\"'，。；）】]{1,2000}+")
OPERATOR_BEFORE = re.compile(
    r"(?:\d\s{0,3}[-+·^]|\d\s{1,3}[/−–]|[*×÷=≈¥￥$€£]|[=≈]\s{0,3}[-−+]|[加减乘除][以去上]?|\b(?:plus|minus|times))\s{0,3}$"
)
COLUMN = re.compile(r"\d\s{0,3}\n\s{0,8}[-+−×*]?\s{0,3}$")
"""What stands before a number that is written under another one, to be added up."""
REGISTERED = re.compile(
    r"(?:(?:门诊|住院|病历|报告|订单|运单|快递|流水|编|序列|批|文|工|学|案|单|货|型|合同|产品|专利|准字|序|证书)[号號]码?|编码|批次"
    r"|\b(?:order|invoice|ticket|case|part|serial|model|tracking|batch)(?: (?:no\.?|numbers?|id))?)[ :：#是为]{0,3}$",
    re.IGNORECASE,
)
"""Words before a number that things are registered by."""
FILES = re.compile(r".*\.(?:png|jpe?g|gif|svg|webp|ico|css|scss|jsx?|tsx?|json|html?|py|md|pdf|zip)", re.IGNORECASE)
RESERVED = re.compile(
    r".*\.(?:local|localhost|localdomain|internal|lan|test|invalid|example)"
    r"|.*[@＠.]example(?:\.(?:com?|net|org|edu|gov|ac|info|biz))?(?:\.[a-z]{2})?",
    re.IGNORECASE,
)
"""Names that stand for no host of the internet (RFC 2606, RFC 6762), and `example.*`."""
DOCUMENTATION = ((192, 0, 2), (198, 51, 100), (203, 0, 113))
"""Networks for examples (RFC 5737); of version 6: RFC 3849, RFC 9637."""
DOCUMENTATION6 = (ipaddress.IPv6Network("2001:db8::/32"), ipaddress.IPv6Network("3fff::/20"))
CALCULATED = re.compile(r"(?<!\d)\d(?:[ -]?\d){6,18}(?!\d)")
OPERATOR_AFTER = re.compile(
    r"\s{0,3}(?:[*×÷=≈^%‰℃°]|[-+/−]\s{1,3}\d|元(?![旦宵])|[美欧日]元|人民币|亿|吨|公里|票|[加减乘除]|是(?:不是)?(?:一个)?[质素合奇偶]数"
    r"|(?:k[mg]|dollars|USD|people|years|mod|ms|plus|minus|times|divided"
    r"|leaves? (?:a |no )?remainder|is (?:a |not )?(?:prime|even|odd))\b)"
)


class Span(NamedTuple):
    """Where a piece of personal data stands, and of what kind it is."""

    start: int
    end: int
    kind: str


def spans(text: str) -> Iterator[Span]:
    """Yield everything in `text` that looks like personal data, the surest kinds first; spans may
    overlap.
    """
    if "-----BEGIN" in text:
        yield from _found(PEM, "key", text, _always)
    if "eyJ" in text:
        yield from _found(TOKEN, "key", text, _always)
    if any(mark in text for mark in KEY_MARKS):
        yield from _found(KEY, "key", text, _random)
    if "@" in text or "＠" in text:
        yield from _found(MAIL, "mail", text, _mail)
    digits = not text.isascii() or len(text.encode().translate(None, DIGITS)) < len(text)
    if digits and text.count(".") > 2:
        yield from _found(V4, "ip", text, _address)
    if "::" in text or text.count(":") > 6:
        yield from _found(V6, "ip", text, _address6)
    if digits and SEVEN_DIGITS.search(text):
        yield from _numbers(text)


def _numbers(text: str) -> Iterator[Span]:
    links = [match.span() for match in URL.finditer(text)] if "://" in text else []
    starts = [start for start, _ in links]

    sums = {_digits(match[0]) for match in CALCULATED.finditer(text) if _counted(match)}

    def written(match: re.Match[str]) -> bool:
        place = bisect_left(starts, match.start() + 1)
        return not (place and match.start() < links[place - 1][1]) and _digits(match[0]) not in sums

    yield from (span for match in IBAN.finditer(text) if written(match) for span in _account(match))
    yield from _found(IDENTITY, "id", text, lambda match: written(match) and mod_11_2.is_valid(match[0].upper()))
    yield from _found(CARD, "card", text, lambda match: written(match) and _card(match))
    yield from _found(SOCIAL, "id", text, lambda match: written(match) and not _counted(match))
    for pattern in (MOBILE, AMERICAN, INTERNATIONAL, LAND_LINE, HOTLINE):
        yield from _found(pattern, "phone", text, lambda match: written(match) and _phone(match))
    yield from _found(LABELLED, "phone", text, written, group=1)


def _found(pattern: re.Pattern[str], kind: str, text: str, accept: Accept, group: int = 0) -> Iterator[Span]:
    return (Span(*match.span(group), kind) for match in pattern.finditer(text) if accept(match))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _mail(match: re.Match[str]) -> bool:
    """Whether an address is one that post can reach: no file such as `name@2x.png`, no host of a
    network inside, no example.
    """
    return not (FILES.fullmatch(match[0]) or RESERVED.fullmatch(match[0]))


def _always(_: re.Match[str]) -> bool:
    return True


def _random(match: re.Match[str]) -> bool:
    """Whether a key's body is drawn, not words: digits and letters (`sk-` also begins ordinary
    hyphenated names).
    """
    body = match[0][4:]
    return any(char.isdigit() for char in body) and any(char.isalpha() for char in body) and len(set(body)) > 7


def _address(match: re.Match[str]) -> bool:
    """Whether four numbers are a person's or a machine's address: not a section, a version, a mask,
    loopback, an address that every network inside a house has, or one of documentation.
    """
    octets = [int(part) for part in match[0].split(".")]
    if max(octets) > 255 or any(len(part) > 1 and part[0] == "0" for part in match[0].split(".")):
        return False
    if octets[0] in (0, 10, 127, 255) or max(octets[0], octets[3]) < 10:  # 5.64.52.9 is 5.6 by 4.5 by 2.9
        return False
    inside = (octets[0], octets[1]) in ((192, 168), (169, 254)) or (octets[0] == 172 and 16 <= octets[1] <= 31)
    if inside or tuple(octets[:3]) in DOCUMENTATION:
        return False
    before = match.string[max(match.start() - 12, 0) : match.start()]
    heads_a_line = not before or before[-1] == "\n"
    return not NUMBERING.search(before) and not (heads_a_line and max(octets) < 40)


def _address6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    inside = (
        address.is_loopback or address.is_unspecified or address.is_link_local or match[0][:2].lower() in ("fc", "fd")
    )
    return len(match[0].split(":")[0]) > 2 and not inside and not any(address in one for one in DOCUMENTATION6)


def _account(match: re.Match[str]) -> Iterator[Span]:
    """Yield the account number (IBAN) that the match begins with, if any: capitalised words may
    follow it.

    Check digits of single countries are not asked for: published examples lack them.
    """
    number = match[0]
    while number and not iban.is_valid(number, check_country=False):
        number = number.rpartition(" ")[0]
    if number:
        yield Span(match.start(), match.start() + len(number), "iban")


def _card(match: re.Match[str]) -> bool:
    digits = _digits(match[0])
    return bool(ISSUERS.fullmatch(digits)) and luhn.is_valid(digits) and len(set(digits)) > 1 and not _counted(match)


def _phone(match: re.Match[str]) -> bool:
    """Whether a number is dialled rather than counted or calculated with."""
    digits = _digits(match[0])
    if not 7 <= len(digits) <= 16 or digits.endswith("000000"):
        return False
    before = match.string[max(match.start() - 24, 0) : match.start()]
    if REGISTERED.search(before):
        return False
    separators = re.sub(r"\d", "", match[0].lstrip("+0"))
    return separators != "." and not _counted(match)


def _counted(match: re.Match[str]) -> bool:
    before = match.string[max(match.start() - 24, 0) : match.start()]
    after = OPERATOR_AFTER.match(match.string, match.end())
    return bool(after or OPERATOR_BEFORE.search(before[-8:]) or COLUMN.search(before))

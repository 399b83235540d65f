"""An encoding is named only where the bytes prove it; otherwise the file is UTF-8 with
faulty rows.
"""

import io

import pytest

from stages.common.ingest.files.encodings import as_utf_8, detect
from tests.support.real_data import REAL, needs_real_data

CHINESE = "春天来了，花园里的花都开了。\n孩子们在草地上跑来跑去，老人坐在树下说话。\n" * 3
TRADITIONAL = "春天來了，花園裡的花都開了。\n孩子們在草地上跑來跑去，老人坐在樹下說話。\n" * 3
KOREAN = "봄이 왔습니다. 정원에 꽃이 피었습니다.\n아이들이 풀밭에서 뛰어놀고 있습니다.\n" * 3
JAPANESE = "春が来ました。庭の花が咲きました。\n子供たちが草の上で走っています。ニュースを見ました。\n" * 3
RUSSIAN = "Пришла весна, и в саду расцвели цветы.\nДети бегают по траве, старики сидят под деревом.\n" * 3
CZECH = "Přišlo jaro a v zahradě rozkvetly květiny.\nDěti běhají po trávě, staří lidé sedí pod stromem.\n" * 3
TURKISH = "Bahar geldi, bahçede çiçekler açtı.\nÇocuklar çimenlerde koşuyor, yaşlılar ağacın altında.\n" * 3
POLISH = "Przyszła wiosna, w ogrodzie zakwitły kwiaty.\nDzieci biegają po trawie, żółte słońce świeci.\n" * 3
GERMAN = (
    "Der Frühling kam, und im Garten blühten die Blumen.\nDie Kinder liefen über die Wiese, müde.\nGröße: ß. Vögel.\n"
    * 4
)
FRENCH = (
    "Le printemps est arrivé, les fleurs ont éclos.\nÀ l’école, les élèves étaient très gais.\nLà où naît l’été.\n" * 4
)


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "utf-8-sig", "utf-8-sig"),
        (CHINESE, "utf-16", "utf-16"),
        (CHINESE, "utf-32", "utf-32"),
        (CHINESE, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (GERMAN, "cp1252", "cp1252"),
        (FRENCH, "cp1252", "cp1252"),
        (GERMAN, "ascii", "utf-8"),
        (KOREAN, "euc-kr", "utf-8"),
        (JAPANESE, "euc-jp", "utf-8"),
        (JAPANESE, "shift-jis", "utf-8"),
        (RUSSIAN, "cp1251", "utf-8"),
        (RUSSIAN, "koi8-r", "utf-8"),
        (CZECH, "cp1250", "utf-8"),
        (POLISH, "cp1250", "utf-8"),
        (TURKISH, "cp1254", "utf-8"),
    ],
)
def test_what_is_proved_is_named_and_nothing_else(text: str, encoding: str, found: str) -> None:
    data = text.encode(encoding, "ignore")
    assert detect(data, whole=True) == found
    assert detect(data[:-1], whole=False) == found


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (("语言\n" * 30).encode() + CHINESE.encode("gb18030")[:40], "most other lines are UTF-8"),
        (b"plain\n" * 50 + b"one \xe9 only\n", "too little to go by"),
        (b"word\xe9\xe9\xe9\xe9 again\n" * 50, "damage, not letters"),
        (b"a w\xe9rd again\n" * 50, "one letter alone"),
        ("a dash – and another — in “English”\n".encode("gb18030") * 50, "marks, not characters"),
        (b"\xff\xfd\xfe\x81" * 50, "no text"),
        (bytes(range(256)) * 20, "no text"),
        ("文字".encode("gb18030"), "too little to go by"),
    ],
)
def test_without_proof_a_file_is_utf_8(data: bytes, why: str) -> None:
    assert detect(data, whole=True) == "utf-8", why


@needs_real_data
@pytest.mark.parametrize("encoding", ["gb18030", "big5"])
@pytest.mark.parametrize("name", ["fever.txt", "dpo_zh_500.jsonl", "glaive_toolcall_zh_demo.jsonl"])
def test_real_chinese_files_are_known_in_either_encoding(name: str, encoding: str) -> None:
    text = (REAL / "medicalgpt" / name).read_text(encoding="utf-8")[:100_000]
    assert detect(text.encode(encoding, "ignore"), whole=False) == encoding


def test_a_sample_cut_inside_a_character_is_still_utf_8() -> None:
    assert detect("语言".encode()[:-1], whole=False) == "utf-8"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "gb18030", "big5"])
def test_any_length_of_text_comes_out_whole(encoding: str) -> None:
    text = TRADITIONAL * 2000
    stream = as_utf_8(io.BufferedReader(io.BytesIO(text.encode(encoding))), encoding)
    assert stream.read().decode() == text


def test_what_cannot_be_decoded_is_marked_where_it_stands() -> None:
    data = "好".encode("gb18030") + b"\xff\n" + "好".encode("gb18030")
    stream = as_utf_8(io.BufferedReader(io.BytesIO(data)), "gb18030")
    assert stream.read() == "好".encode() + b"\xff\n" + "好".encode()
    cut = "hi\n".encode("utf-16") + b"\x00\xd8"
    assert as_utf_8(io.BufferedReader(io.BytesIO(cut)), "utf-16").read() == b"hi\n\xff"

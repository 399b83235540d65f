"""The encoding of a file: by its byte order mark, by strict UTF-8, or by what its bytes can only
mean.

Where the lines that are not ASCII are mostly UTF-8, the file is UTF-8 and the others are faulty
rows. Otherwise these are known by their bytes, each with evidence that its neighbours cannot give:

- UTF-16 without its mark: zeros, which text has nowhere else, stand on one side of its pairs;
- GB18030: nearly all double bytes lie in GB 2312's common half (lead B0-D7) or punctuation, spread
  over all of it (Korean EUC-KR stops at C8; Japanese EUC-JP is half kana, lead A4-A5; Big5 has
  trails below A1);
- Big5: nearly all double bytes lie in its common half (lead A4-C6), many with a trail below 7F,
  which no EUC has;
- Windows-1252 (Latin-1): nearly all high bytes are letters and quotes of western Europe, several
  different ones, few in a row and rare among ASCII letters (Cyrillic and Greek stand in whole
  words, Czech and Turkish need other letters).

With less evidence the file counts as UTF-8 and its undecodable rows go to quarantine: nothing is
guessed.
"""

import codecs
import io
import re

from stages.common.ingest.files.unpack import Stream

UTF_8 = "utf-8"
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LEAST_EVIDENCE, LEAST_LEADS, LEAST_LETTERS = 10, 7, 4
MOST, DECODABLE = 0.95, 0.9
HIGH = re.compile(rb"[\x80-\xff]")
DOUBLE = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]|[\x80-\xff]")
WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüßœÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒ¡¿«»‘’“”„‹›–—…€£§°ºª·")
HIGH_CHARACTERS = re.compile(r"[^\x00-\x7f]+")
LETTER = re.compile(r"[^\W\d_]")
UNDECODABLE = "\udcff"
DECODED_AT_ONCE = 1 << 14
LEAST_ASCII, MANY_NULS = 0.02, 0.6


def detect(sample: bytes, whole: bool) -> str:
    """Return the encoding of a file that begins with `sample`, under Python's name; `whole` if it
    is all of it.
    """
    for mark, name in BOMS:
        if sample.startswith(mark):
            return name
    for name in ("utf-16-be", "utf-16-le"):
        if _is_utf_16(sample, name):
            return name
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(sample, whole)
        return UTF_8
    except UnicodeDecodeError:
        lines = sample.split(b"\n") if whole else sample.split(b"\n")[:-1] or [sample]
    high = [line for line in lines if HIGH.search(line)]
    foreign = [line for line in high if not decodable(line, UTF_8)]
    if 2 * len(foreign) <= len(high):
        return UTF_8
    for name, is_it in (("gb18030", _is_gb18030), ("big5", _is_big5), ("cp1252", _is_western)):
        good = [line for line in foreign if decodable(line, name)]
        if len(good) >= DECODABLE * len(foreign) and is_it(b"\n".join(good)):
            return name
    return UTF_8


def decodable(data: bytes, encoding: str) -> bool:
    """Whether `data` is text in that encoding."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def as_utf_8(stream: Stream, encoding: str) -> Stream:
    """Return `stream`, at its start, as UTF-8 without byte order mark; what cannot be decoded
    becomes the byte FF.
    """
    if encoding == UTF_8:
        return stream
    if encoding == "utf-8-sig":
        stream.read(len(codecs.BOM_UTF8))
        return stream
    return io.BufferedReader(Recoded(stream, encoding), 1 << 16)


class Recoded(io.RawIOBase):
    """A stream of any encoding as UTF-8; FF, which UTF-8 never has, marks what could not be
    decoded.
    """

    def __init__(self, stream: Stream, encoding: str) -> None:
        codecs.register_error("lathe-undecodable", lambda error: (UNDECODABLE, _end(error)))
        self.stream, self.decoder = stream, codecs.getincrementaldecoder(encoding)("lathe-undecodable")
        self.waiting = b""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has a private buffer type
        """Fill `buffer`; what does not fit waits: a byte can become three, and a decoder holds some
        back.
        """
        while not self.waiting:
            data = self.stream.read(DECODED_AT_ONCE)
            self.waiting = self.decoder.decode(data, not data).encode(UTF_8, "surrogateescape")
            if not data:
                break
        part, self.waiting = self.waiting[: len(buffer)], self.waiting[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _end(error: UnicodeError) -> int:
    assert isinstance(error, UnicodeDecodeError)
    return error.end


def _is_utf_16(sample: bytes, name: str) -> bool:
    """Whether the bytes are UTF-16 without its mark: every character is text, several different
    ones are ASCII, and the zeros that these bring are not a few in a text of another kind.
    """
    if sample.count(0) < LEAST_EVIDENCE:
        return False
    if sample.count(0) < MANY_NULS * len(sample) / 2 and decodable(sample[: sample.rfind(b"\n") + 1] or sample, UTF_8):
        return False
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return False
    ascii_characters = [character for character in text if character < "\x80"]
    if len(ascii_characters) < LEAST_ASCII * len(text) or len(set(ascii_characters)) < LEAST_LETTERS:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def _is_gb18030(data: bytes) -> bool:
    pairs = DOUBLE.findall(data)
    common = [pair for pair in pairs if len(pair) == 2 and pair[1] >= 0xA1 and 0xB0 <= pair[0] <= 0xD7]
    marks = sum(len(pair) == 2 and pair[1] >= 0xA1 and 0xA1 <= pair[0] <= 0xA3 for pair in pairs)
    beyond_korean = sum(pair[0] >= 0xC9 for pair in common)
    return _is_varied(common) and len(common) + marks >= MOST * len(pairs) and beyond_korean >= 0.15 * len(common)


def _is_big5(data: bytes) -> bool:
    pairs = DOUBLE.findall(data)
    common = [pair for pair in pairs if len(pair) == 2 and 0xA4 <= pair[0] <= 0xC6]
    marks = sum(len(pair) == 2 and 0xA1 <= pair[0] <= 0xA3 for pair in pairs)
    low = sum(pair[1] <= 0x7E for pair in common)
    return _is_varied(common) and len(common) + marks >= MOST * len(pairs) and low >= 0.15 * len(common)


def _is_varied(pairs: list[bytes]) -> bool:
    """Whether Chinese characters come from all over their table, as they do in text."""
    return len(pairs) >= LEAST_EVIDENCE and len({pair[0] for pair in pairs}) >= LEAST_LEADS


def _is_western(data: bytes) -> bool:
    text = data.decode("cp1252")
    high = HIGH_CHARACTERS.findall(text)
    letters = LETTER.findall(text)
    foreign = sum(letter > "\x7f" for letter in letters)
    western = sum(WESTERN.issuperset(run) and len(run) <= 3 and len(set(run)) == len(run) for run in high)
    return (
        western >= 2 * LEAST_EVIDENCE
        and len(set(high)) >= LEAST_LETTERS
        and western >= MOST * len(high)
        and foreign <= 0.3 * len(letters)
    )

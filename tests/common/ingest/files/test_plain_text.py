"""Text files as documents: no paragraph lost, no heading alone."""

import io

from hypothesis import given
from hypothesis import strategies as st

from stages.common.ingest.files.plain_text import Document, Paragraph, Unreadable, documents, is_heading, paragraphs
from stages.common.ingest.files.raw_files import lines
from stages.common.ingest.files.rows import Row


def rows(text: str | bytes) -> list[Row]:
    data = text.encode() if isinstance(text, str) else text
    return list(lines(io.BufferedReader(io.BytesIO(data))))


def read(text: str | bytes, characters: int = 100) -> list[Paragraph | Unreadable]:
    return list(paragraphs(rows(text), characters))


def joined(*texts: str, characters: int = 100) -> list[str]:
    parts = [Paragraph(number, text, True) for number, text in enumerate(texts, 1)]
    return [document.text for document in documents(parts, characters)]


def test_blank_lines_separate_paragraphs() -> None:
    assert read("One\ntwo.\n \n\nThree.\n") == [Paragraph(1, "One\ntwo.", False), Paragraph(5, "Three.", True)]


def test_without_blank_lines_each_line_is_a_paragraph() -> None:
    assert read("\nOne.\nTwo.\n\n") == [Paragraph(2, "One.", False), Paragraph(3, "Two.", False)]


def test_a_block_longer_than_a_document_is_read_by_line() -> None:
    found = read("Intro.\n\nOne.\nTwo.\nThree.\n\nEnd\nof it.", characters=12)
    assert found == [
        Paragraph(1, "Intro.", False),
        Paragraph(3, "One.", True),
        Paragraph(4, "Two.", False),
        Paragraph(5, "Three.", False),
        Paragraph(7, "End\nof it.", True),
    ]


def test_a_paragraph_that_is_not_utf_8_is_refused_alone() -> None:
    first, second, third = read(b"One.\n\nT\xffwo\nlines.\n\nThree.")
    assert (first, third) == (Paragraph(1, "One.", False), Paragraph(6, "Three.", True))
    assert second == Unreadable(Row(3, b"T\xffwo\nlines."), "not UTF-8")


def test_paragraphs_are_joined_to_the_wanted_length_as_they_stand() -> None:
    found = paragraphs(rows("A" * 40 + ".\n\n" + "B" * 40 + ".\nb.\n\n" + "C" * 40 + "."), 100)
    parts = [part for part in found if isinstance(part, Paragraph)]
    assert list(documents(parts, 100)) == [
        Document(1, "A" * 40 + ".\n\n" + "B" * 40 + ".\nb.", 2),
        Document(6, "C" * 40 + ".", 1),
    ]


def test_lines_are_joined_by_one_line_end() -> None:
    parts = [part for part in read("一。\n二。\n三。") if isinstance(part, Paragraph)]
    assert list(documents(parts, 100)) == [Document(1, "一。\n二。\n三。", 3)]


def test_a_heading_opens_a_document_and_never_closes_one() -> None:
    assert joined("A" * 90 + ".", "= Part two =", "B" * 90 + ".") == [
        "A" * 90 + ".",
        "= Part two =\n\n" + "B" * 90 + ".",
    ]


def test_a_heading_at_the_end_stays_with_the_text_before_it() -> None:
    assert joined("A" * 99 + ".", "The end") == ["A" * 99 + ".\n\nThe end"]


def test_a_list_without_sentences_is_still_cut() -> None:
    assert [len(text) for text in joined(*["word" * 10] * 6)] == [82, 82, 82]


def test_a_long_paragraph_stays_whole() -> None:
    assert joined("Short.", "L" * 500 + ".", "Short.") == ["Short.", "L" * 500 + ".", "Short."]


def test_what_a_heading_is() -> None:
    assert is_heading("= = Description = =") and is_heading("第一章 总论") and is_heading("Contents:")
    assert not is_heading("It ends.") and not is_heading("它结束了。") and not is_heading("two\nlines")


@given(st.binary(max_size=400), st.integers(1, 60))
def test_every_line_of_any_bytes_is_in_one_paragraph_and_every_paragraph_in_one_document(
    data: bytes, size: int
) -> None:
    found = read(data, size)
    good = [part for part in found if isinstance(part, Paragraph)]
    texts = [part.text.encode() for part in good] + [part.row.data for part in found if isinstance(part, Unreadable)]
    read_lines = [row.data for row in rows(data) if row.data.strip()]
    assert sorted(line for text in texts for line in text.split(b"\n")) == sorted(read_lines)
    made = list(documents(good, size))
    assert sum(document.paragraphs for document in made) == len(good)
    assert [line for document in made for line in document.text.split("\n") if line] == [
        line for part in good for line in part.text.split("\n")
    ]
    alone = [document for document in made if is_heading(document.text)]
    assert not alone or all(is_heading(line) for document in made for line in document.text.split("\n") if line)

"""A round on the page is the round that `rank` waits for: the same samples, each person's own
order, whole rankings.
"""

from pathlib import Path

import pytest

from stages import rank
from stages.common.annotation import feedback, queue, ranking_store
from stages.common.annotation.queue import Round
from stages.common.core import records
from stages.common.ranking import samples
from stages.common.ranking.eligibility import Wanted
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text.parquet_writer import Shards

WANTED = Wanted(least_best=3)


def drawn(number: int, responses: list[str]) -> records.Record:
    return {
        "id": f"prompts.jsonl:{number}",
        "source": "prompts.jsonl",
        "messages": [records.message("user", f"What is the capital of France, {number}?")],
        "reference": "Paris.",
        "category": "capital/en",
        "responses": responses,
        "cut": [False] * len(responses),
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A round of 40 prompts to rank in training and ten held out; three more have no good or no
    other answer.
    """
    folder = tmp_path / "samples/r1"
    rows = [drawn(number, [f"Paris, {number}.", "Paris.", "Rome.", "Rome."]) for number in range(50)]
    rows += [drawn(50, ["Rome.", "Oslo."]), drawn(51, ["Paris.", "Paris."]), drawn(52, ["Rome.", "Oslo."])]
    with Shards({folder / split: samples.SCHEMA for split in ("train", "validation")}) as shards:
        for number, row in enumerate(rows):
            shards.add(folder / ("validation" if number < 10 else "train"), row)
    return tmp_path


def load(work: Path, settings: Wanted = WANTED) -> Round:
    return queue.load(work / "samples", work / "annotations", "r1", settings)


def annotate(of: Round, who: str, count: int) -> None:
    for _ in range(count):
        id = queue.to_rank(of, queue.given(of), who, ())
        shown = queue.blind(who, of.samples[id])
        feedback.append(of.file, queue.save(of, who, id, list(range(1, len(shown) + 1)), [[]] * len(shown)))


def test_what_is_shown_is_what_rank_waits_for(work: Path) -> None:
    of = load(work, Wanted(least_best=3, human_share=0.55))
    assert (len(of.samples), of.needed) == (50, 28)
    annotate(of, "ada", 28)
    settings = rank.Params(annotators=["human"], least_best=3, human_share=0.55)
    report = rank.rank(settings, work / "samples/r1", work / "out", of.file, None)
    assert report["comparisons"]["none_good"] == 2
    assert report["comparisons"]["train"] + report["comparisons"]["validation"] == 28


def test_the_settings_are_those_of_section_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "params.yaml"
    file.write_text("rank: {annotators: [human], least_best: 3, human_share: 0.5}\n", encoding="utf-8")
    assert Wanted.of_params() == Wanted(least_best=3, human_share=0.5)
    file.write_text("rank: {human_share: 2}\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"rank\.human_share"):
        Wanted.of_params()
    file.write_text("run: {name: a}\n", encoding="utf-8")
    assert Wanted.of_params() == Wanted()


def test_everybody_sees_some_prompts_and_the_others_are_shared_out(work: Path) -> None:
    of = load(work)
    for who in ("ada", "bob"):
        annotate(of, who, 25)
    given = queue.given(of)
    both = given["ada"].keys() & given["bob"].keys()
    assert 0 < len(both) < 12 and len(given["ada"].keys() | given["bob"].keys()) == 50 - len(both)
    assert queue.agreement(given, of, "ada").keys() == {"bob"}
    assert queue.agreement(given, of, "ada")["bob"]["prompts"] == len(both)
    assert queue.agreement(given, of, "cyd") == {}
    annotate(of, "ada", 25)
    assert queue.to_rank(of, queue.given(of), "ada", ()) == ""


def test_what_is_skipped_comes_last(work: Path) -> None:
    of = load(work)
    skipped: list[str] = []
    for _ in range(50):
        skipped.append(queue.to_rank(of, {}, "ada", skipped))
    assert len(set(skipped)) == 50
    assert queue.to_rank(of, {}, "ada", skipped) == skipped[0]


def test_answers_are_shuffled_for_each_person_and_always_alike(work: Path) -> None:
    of = load(work)
    orders = {who: [queue.blind(who, one) for one in of.samples.values()] for who in ("ada", "bob")}
    again = load(work)
    assert orders["ada"] == [queue.blind("ada", one) for one in again.samples.values()]
    assert orders["ada"] != orders["bob"]
    firsts = [order.index("Rome.") for order in orders["ada"]]
    assert all(8 <= firsts.count(place) <= 26 for place in range(3)), "every place is as likely"


def test_a_ranking_is_kept_whole_or_not_at_all(work: Path) -> None:
    of = load(work)
    id = "prompts.jsonl:3"
    for wrong in ([1, 2], [1, 2, None], [1, 2, 4], [0, 1, 2], [1, True, 2], [1, 2, "3"], []):
        with pytest.raises(DataError, match="every answer needs a rank from 1 to 3"):
            queue.save(of, "ada", id, wrong, [])  # type: ignore[arg-type]  # what a client may send
    for unknown in ("", "prompts.jsonl:50", "../x"):
        with pytest.raises(DataError, match="not in the round"):
            queue.save(of, "ada", unknown, [1, 2, 3], [])
    forged = [["rude", "<b>"], ["truthful"], []]
    kept = queue.save(of, "ada", id, [2, 1, 2, 9, None], forged)  # type: ignore[arg-type]
    assert (kept.ranks, kept.marks) == ([2, 1, 2], [["rude"], ["truthful"], []])
    feedback.append(of.file, kept)
    counts = ranking_store.marks(of.file, list(of.samples.values()))
    assert counts == {"answers": 3, "answers the question": 0, "truthful": 1, "harmful": 0, "rude": 1}


@pytest.mark.parametrize("name", ["r2", "", "..", "../samples/r1", "r1/train", "/etc", "r1\0"])
def test_a_round_is_one_of_those_there_are(work: Path, name: str) -> None:
    assert queue.rounds(work / "samples") == ["r1"] and queue.rounds(work / "none") == []
    with pytest.raises(DataError, match="no samples of a round"):
        queue.load(work / "samples", work / "annotations", name, WANTED)


@pytest.mark.parametrize(
    ("given", "name"),
    [(" Ada  Lovelace ", "Ada Lovelace"), ("李雷", "李雷"), ("o'neil-2.b_", "o'neil-2.b_"), ("a\0", "a")],
)
def test_a_name_is_made_uniform(given: str, name: str) -> None:
    assert queue.person(given) == name


@pytest.mark.parametrize("name", ["a" * 41, "<b>ada</b>", "../ada", "[a](b)", "'ada"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="a name has"):
        queue.person(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_who_says_no_name_is_told_to(name: str) -> None:
    with pytest.raises(DataError, match="type your name first"):
        queue.person(name)


def test_answers_are_written_first_where_none_is_good_and_never_to_what_is_held_out(work: Path) -> None:
    of, store = load(work), work / "feedback/demonstrations.jsonl"
    assert len(of.prompts) == 43 and not {f"prompts.jsonl:{number}" for number in range(10)} & of.prompts.keys()
    order = []
    for _ in range(5):
        order.append(queue.to_write(of, queue.written(store, of), "ada", ()))
        feedback.append(store, queue.demonstration(of, "ada", order[-1], f" Paris, said {len(order)}. "))
    assert set(order[:3]) == {f"prompts.jsonl:{number}" for number in (50, 51, 52)}
    assert queue.written(store, of) == {"ada": {id: f"Paris, said {at}." for at, id in enumerate(order, 1)}}
    assert queue.to_write(of, queue.written(store, of), "bob", ()) not in order
    for answer in ("", " \n", "a" * 1_000_000):
        with pytest.raises(DataError, match="an answer has 1 to"):
            queue.demonstration(of, "ada", order[0], answer)
    with pytest.raises(DataError, match="not in the round"):
        queue.demonstration(of, "ada", "prompts.jsonl:3", "held out")


def test_more_answers_than_a_page_shows_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "samples/r1"
    with Shards({folder / split: samples.SCHEMA for split in ("train", "validation")}) as shards:
        shards.add(folder / "train", drawn(1, [f"Paris, {number}." for number in range(10)]))
        shards.add(folder / "validation", drawn(2, ["Paris.", "Rome."]))
    with pytest.raises(DataError, match="10 answers, a page shows 9"):
        queue.load(tmp_path / "samples", tmp_path, "r1", Wanted())

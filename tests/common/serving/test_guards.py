"""Which requests count as foreign, who knows the token, how often one may ask."""

import base64

import pytest

from stages.common.serving.guards import CLIENTS_REMEMBERED, Limiter, client, is_here, knows_token
from stages.common.serving.origins import is_foreign

TOKEN = "correct horse battery"


@pytest.mark.parametrize(
    ("headers", "method", "foreign"),
    [
        ({"host": "127.0.0.1:7860"}, "GET", False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, "POST", False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7861"}, "POST", True),
        ({"host": "127.0.0.1:7860", "origin": "null"}, "GET", True),
        ({"host": "127.0.0.1:7860", "origin": "http://[::1"}, "GET", True),
        ({"host": "a", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, "POST", False),
        ({"host": "a", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, "GET", False),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "GET", False),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "POST", True),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", True),
        ({"host": "a", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, "GET", True),
    ],
)
def test_which_requests_count_as_foreign(headers: dict[str, str], method: str, foreign: bool) -> None:
    assert is_foreign(headers, method) is foreign


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ([f"Bearer {TOKEN}"], True),
        ([f"bearer {TOKEN}"], True),
        ([basic(f"anybody:{TOKEN}")], True),
        ([basic(TOKEN)], False),
        ([basic(f"{TOKEN}:")], False),
        ([], False),
        ([""], False),
        (["Bearer "], False),
        ([f"Bearer {TOKEN}x"], False),
        ([f"Bearer {TOKEN[:-1]}"], False),
        ([f"Token {TOKEN}"], False),
        ([TOKEN], False),
        (["Basic !!!"], False),
        (["Bearer \xff"], False),
        (["Bearer wrong", f"Bearer {TOKEN}"], False),
    ],
)
def test_who_knows_the_token(given: list[str], known: bool) -> None:
    headers = [(b"authorization", value.encode("latin-1")) for value in given]
    assert knows_token(headers, TOKEN) is known


def test_a_bucket_empties_and_fills_evenly() -> None:
    limiter = Limiter(60)
    assert [limiter.wait("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert limiter.wait("a", 0.0) == pytest.approx(1.0)
    assert limiter.wait("b", 0.0) == 0.0
    assert limiter.wait("a", 0.5) == pytest.approx(0.5)
    assert limiter.wait("a", 1.0) == 0.0
    assert limiter.wait("a", 1.0) > 0
    assert [limiter.wait("a", 1e6) for _ in range(61)][-2:] == [0.0, pytest.approx(1.0)]


def test_many_clients_do_not_fill_the_memory() -> None:
    limiter = Limiter(1)
    for number in range(CLIENTS_REMEMBERED + 10):
        limiter.wait(str(number), 0.0)
    assert len(limiter._buckets) == CLIENTS_REMEMBERED


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::/64"), ("2001:db8::ffff:1", "2001:db8::/64"), ("x", "x")],
)
def test_who_a_client_is(address: str, expected: str) -> None:
    assert client({"client": (address, 1), "headers": [(b"x-forwarded-for", b"10.0.0.1")]}) == expected


@pytest.mark.parametrize(
    ("address", "header", "here"),
    [
        ("127.0.0.1", b"x-a", True),
        ("127.9.9.9", b"x-a", True),
        ("::1", b"x-a", True),
        ("192.0.2.7", b"x-a", False),
        ("x", b"x-a", False),
        ("127.0.0.1", b"x-forwarded-for", False),
        ("127.0.0.1", b"forwarded", False),
    ],
)
def test_who_sits_at_this_machine(address: str, header: bytes, here: bool) -> None:
    assert is_here({"client": (address, 1), "headers": [(header, b"192.0.2.9")]}) is here

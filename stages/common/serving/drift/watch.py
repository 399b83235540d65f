"""Drift is watched beside the engine: answers go into a bounded queue, a thread counts them and
compares; what does not fit is dropped and counted.

Perplexity of a prompt is that of its text under the champion itself, which is in memory: another
model would be a second one. It costs a forward pass, so it is worked out only while nobody waits
for an answer, and for a twentieth of the time at most.
"""

import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.common.core import chat
from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.serving.drift import days, distances, histograms, reference
from stages.common.serving.drift.distances import Drift, Level
from stages.common.serving.drift.histograms import TEXT_AT_MOST, Profile
from stages.common.serving.drift.reference import Reference
from stages.common.serving.engine.champions import Champion, Champions, Question
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.requests import Request, pieces

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FOLDER = Path(".lathe/drift")
PAGE = "stages.common.serving.drift.page"
WAITING_AT_MOST = 256
SAVE_SECONDS, WAKE_SECONDS = 60.0, 0.5
SCORED_PROMPTS, SCORED_TOKENS = 200, 256
SCORING_SHARE = 1 / 20


class Answered(NamedTuple):
    """A question and its answer, in memory until they are counted."""

    champion: Champion
    prompt: str
    answer: str
    tokens: int
    cut: bool


class Watch:
    """Compares what `champions` are asked with their own data."""

    def __init__(self, champions: Champions, settings: Drift, folder: Path = FOLDER) -> None:
        self.champions, self.settings, self.folder = champions, settings, folder
        self.dropped = 0
        self.levels: list[Level] = []
        self.window: Profile = {}
        self.reference: Reference | None = None
        self._queue: queue.Queue[Answered] = queue.Queue(WAITING_AT_MOST)
        self._ended = threading.Event()
        self._days = days.read(folder)
        self._followed: Champion | None = None
        self._unscored: list[str] = []
        self._scored: Profile = {}
        self._score_after = self._saved = 0.0
        self._day = today()
        self._page: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="drift", daemon=True)

    def start(self) -> "Watch":
        """Begin to count."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Count what waits, and write it down."""
        self._ended.set()
        self._thread.join(10)

    def note(self, champion: Champion, question: Question, answer: str, tokens: int, cut: bool) -> None:
        """Take an answer to a person's message; never waits."""
        if question.plain is not None or not question.messages or question.messages[-1]["role"] != "user":
            return
        prompt = str(question.messages[-1]["content"])[:TEXT_AT_MOST]
        try:
            self._queue.put_nowait(Answered(champion, prompt, answer[:TEXT_AT_MOST], tokens, cut))
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        warned = ""
        while not self._ended.is_set() or not self._queue.empty():
            try:
                self._follow(self.champions.current)
                with suppress(queue.Empty):
                    self._count(self._queue.get(timeout=WAKE_SECONDS))
                self._between()
            except Exception as error:  # the thread's boundary: a server answers whatever happens here
                what = f"{type(error).__name__}: {error}"
                if what != warned:
                    log.warning("drift is not counted: %s", what)
                    log.debug("traceback", exc_info=True)
                warned = what
        with suppress(OSError):
            self._days.write(self.folder, self.settings.days)

    def _follow(self, champion: Champion) -> None:
        """Take the reference of a new champion, from its file or its data."""
        if champion is self._followed:
            return
        self._followed, self._unscored, self._scored, self.reference = champion, [], {}, None
        weights, tokenizer = champion.facts()["weights_sha256"], champion.engine.tokenizer
        self._days.of(weights)
        found = reference.read(self.folder, weights)
        if found is None and (found := reference.made(weights, tokenizer)):
            found.write(self.folder)
        self.reference = found
        if found is None:
            what = "version %s has no data here to compare its questions with: drift is counted, not judged"
            log.info(what, champion.version.number)
        elif "prompt_perplexity" not in found.profile and isinstance(champion.engine, Engine):
            self._unscored = reference.prompts()[:SCORED_PROMPTS]
        self._look()

    def _count(self, one: Answered) -> None:
        if one.champion is not self._followed:
            return  # one that has left
        bins = histograms.of_prompt(one.prompt, one.champion.engine.tokenizer)
        bins |= histograms.of_answer(one.answer, one.tokens, one.cut)
        bins |= self.reference.known.bins(one.prompt) if self.reference else {}
        perplexity = self._perplexity(one.champion.engine, one.prompt)
        if perplexity is not None:
            bins["prompt_perplexity"] = histograms.number(perplexity)
        self._days.add(today(), bins)
        if self._days.counted >= max(1, self.settings.window // days.BLOCKS):
            self._days.turn()
            self._look()

    def _look(self) -> None:
        """Compare the window with the reference; say once what has drifted, and once that it no
        longer has.
        """
        window = self._days.window()
        levels = distances.levels(self.reference.profile, window, self.settings) if self.reference else []
        self.window, self.levels = window, levels
        before, now = self._days.drifted, [one.quantity for one in self.levels if one.is_drifted]
        for one in self.levels:
            if one.quantity in now and one.quantity not in before:
                log.warning("drift of %s; lathe drift writes what to do", one)
            elif one.quantity in before and one.quantity not in now:
                log.info("no more drift of %s", one)
        self._days.drifted = now

    def _between(self) -> None:
        """Do what is due: score a prompt of the reference, write the counts, or a day's page."""
        if self._unscored and self._followed:
            found = self._perplexity(self._followed.engine, self._unscored[-1])
            if found is not None:
                self._unscored.pop()
                histograms.add(self._scored, {"prompt_perplexity": histograms.number(found)})
            if not self._unscored and self.reference:
                self.reference = Reference(
                    self.reference.weights_sha256, self.reference.profile | self._scored, self.reference.known
                )
                self.reference.write(self.folder)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._days.write(self.folder, self.settings.days)
            self._saved = time.monotonic()
        if self._page and self._page.poll() is not None:
            self._page = None
        if self._day != today() and self._page is None:
            self._day, self._saved = today(), time.monotonic()
            self._days.write(self.folder, self.settings.days)
            command = [sys.executable, "-m", PAGE, "--folder", str(self.folder)]
            self._page = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _perplexity(self, engine: Any, text: str) -> float | None:
        """Return the perplexity of a text under the champion, None where it would keep somebody
        waiting, or has no second token.
        """
        started = time.monotonic()
        if not isinstance(engine, Engine) or started < self._score_after or engine.load() != (0, 0):
            return None
        tokens = chat.encode_texts(engine.tokenizer, [text])[0][: min(SCORED_TOKENS, engine.context or SCORED_TOKENS)]
        if len(tokens) < 2:
            return 1.0
        try:
            ticket, told = pieces(engine.submit, Request(tokens, 0, scores_prompt=True))
            for _ in told:
                pass
        except StageError:  # busy, or closed
            return None
        finally:
            self._score_after = time.monotonic() + (time.monotonic() - started) / SCORING_SHARE
        known = [score.logprob for score in ticket.prompt_scores or () if score.logprob is not None]
        return math.exp(min(50.0, -sum(known) / len(known))) if known else None

    def register(self, registry: "CollectorRegistry") -> None:
        """Export what is known on /metrics."""
        registry.register(self)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, as Prometheus' client asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield CounterMetricFamily("lathe_drift_dropped", "Answers that were not looked at", value=self.dropped)
        expected = self.reference.profile if self.reference else {}
        for name, about, profile in (
            ("lathe_drift_share", "Share of each bin in the window", self.window),
            ("lathe_drift_expected_share", "Share of each bin in the champion's own data", expected),
        ):
            family = GaugeMetricFamily(name, about, labels=["quantity", "bin"])
            for quantity, counts in profile.items():
                for found, share in histograms.shares(counts).items():
                    family.add_metric([quantity, found], share)
            yield family
        records = GaugeMetricFamily("lathe_drift_records", "Records of the window", labels=["quantity"])
        for quantity, counts in self.window.items():
            records.add_metric([quantity], sum(counts.values()))
        psi = GaugeMetricFamily("lathe_drift_psi", "Population stability index", labels=["quantity"])
        alarm = GaugeMetricFamily("lathe_drift_alarm", "Whether it has drifted", labels=["quantity"])
        for one in self.levels:
            psi.add_metric([one.quantity], one.psi)
            alarm.add_metric([one.quantity], float(one.is_drifted))
        yield from (records, psi, alarm)


def today() -> str:
    """Return the date here."""
    return time.strftime("%Y-%m-%d")

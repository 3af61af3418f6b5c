"""The step of the demo with text: the same questions by vector, by text, and by both, and how often each finds the
answer."""

from __future__ import annotations

from typing import Any

from qvec.collection.open import open as open_collection
from qvec.common.console import print_table
from qvec.common.text_tables import shortened
from qvec.demo.steps import SHOWN, Step, say
from qvec.quality.relevance_report import FUSED, shown

K = 10
TITLE_WIDTH = 22
WAYS = ("vector", "text", FUSED)


class Hybrid(Step):
    """Adds a text field, chooses the fusion on half of the questions, and measures it on the other half."""

    name = "hybrid"

    @property
    def title(self) -> str:
        return f"Search by vector, by text and by both: {len(self.corpus.questions)} questions"

    def run(self) -> dict[str, Any]:
        texts = [question.text for question in self.corpus.questions]
        passages = [question.passage for question in self.corpus.questions]
        with open_collection(self.demo.store) as db:
            db.add_field("text", "text")
            choice = db.tune_fusion(self.corpus.queries, texts=texts, relevant=passages, k=K)
            answers = []
            for row in SHOWN:
                query, text = self.corpus.queries[row], texts[row]
                found = db.search(query, 1), db.search(text=text, k=1), db.search(query, 1, text=text)
                titles = [hits[0].payload["title"] if len(hits) else "" for hits in found]
                right = [len(hits) > 0 and hits[0].id == passages[row] for hits in found]
                answers.append({"question": text, "titles": dict(zip(WAYS, titles, strict=True)), "right": right})
        return {
            "fusion": shown(choice.fusion),
            "proved": choice.proved,
            "n_queries": choice.report.n_queries,
            "rows": choice.report.to_dicts(),
            "answers": answers,
        }

    def show(self, result: dict[str, Any]) -> None:
        cells = [
            (
                shortened(answer["question"], TITLE_WIDTH),
                *(
                    ("✓ " if right else "  ") + shortened(answer["titles"][way], TITLE_WIDTH - 6)
                    for way, right in zip(WAYS, answer["right"], strict=True)
                ),
            )
            for answer in result["answers"]
        ]
        print_table("", ("question", *(f"first by {way}" for way in WAYS)), cells)
        rows = [(row["search"], *(f"{row[name]:.3f}" for name in ("hit", "mrr", "ndcg"))) for row in result["rows"]]
        print_table("", ("search", f"hit@{K}", "MRR", "nDCG"), rows)
        gain = result["rows"][-1]
        say(f"Fusion ({result['fusion']}) was chosen on half of the questions; the figures are of the others.")
        interval = f"{gain['gain_hit_low']:+.3f} to {gain['gain_hit_high']:+.3f}"
        say(f"hit@{K} of fused search, minus that of the best single one: {gain['gain_hit']:+.3f} (95 %: {interval}).")

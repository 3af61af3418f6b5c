"""An adapter trained with fake quantization, compared with one trained without it and quantized afterwards.

Cross-validation over the answerable questions of $QVEC_DATA/wiki-minilm-384, with folds that share no passage: each
question is tested once per seed, by a map trained without it and without its passage. Seeds change the rotation, the
folds and the batches; the outcomes of a question are averaged over seeds before the bootstrap over questions. For
comparison, the best code of the same size that is not trained on questions is measured too.

    QVEC_DATA=... python benchmarks/bench_qat.py --code binary --seeds 2
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from qvec.codes.adapters import Adapter, adapted_config
from qvec.codes.configs import CodeConfig, Mixed
from qvec.codes.registry import make_config, train
from qvec.codes.transforms import Transform
from qvec.qat import Options
from qvec.qat.codes import CODES, FLOAT
from qvec.qat.examples import Examples, make_examples
from qvec.qat.training import Trainer
from qvec.quality.recall import recall_of_rows

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Outcomes = dict[str, npt.NDArray[np.float64]]
K, FOLDS, BOOTSTRAPS = 10, 5, 10_000
CONTRAST = 1.0
SAME_BYTES: dict[str, CodeConfig] = {"binary": Mixed(bytes=32), "rabitq1": Mixed(bits=1), "ternary": Mixed(bits=2)}


def load() -> tuple[Floats, Floats, Rows]:
    """Passages [n, dim], questions [m, dim], both of unit length, and the row that answers each question."""
    folder = Path(os.environ["QVEC_DATA"]) / "wiki-minilm-384"
    lines = (folder / "answerable.jsonl").read_text().splitlines()
    answers = np.array([json.loads(line)["passage"] for line in lines])
    unit = Transform(384, True, None, None)
    base, questions = (np.load(folder / f"{name}.npy").astype(np.float32) for name in ("base", "answerable"))
    return unit.apply(base), unit.apply(questions), answers


def found(base: Floats, questions: Floats, config: CodeConfig, adapter: Adapter | None, seed: int) -> Rows:
    """The first ten hits of each question by the store's own codes and kernels, without re-ranking: [m, 10]."""
    own = train(base, "cosine", config, seed) if adapter is None else adapter.quantizer(base[:0], config)
    codes = np.vstack([own.encode(base[i : i + 8192]) for i in range(0, len(base), 8192)])
    prepared = own.prepare(questions)
    keys = np.vstack([own.codec.score(prepared[i : i + 50], codes) for i in range(0, len(prepared), 50)])
    return np.argpartition(keys, K, axis=1)[:, :K]


def trained(examples: Examples, code: str, options: Options, seed: int, quantized: bool) -> tuple[Adapter, float]:
    """The map after all steps, and the training time in seconds."""
    start = time.perf_counter()
    config = adapted_config(make_config(code))
    trainer = Trainer(examples, CODES[code] if quantized else FLOAT, config, options, seed)
    trainer.fit()
    return trainer.last(), time.perf_counter() - start


def interval(values: npt.NDArray[np.float64]) -> str:
    """Mean and 95 % bootstrap interval over questions."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", default="rabitq1", choices=sorted(CODES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=Options().steps)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run(args.code, args.seeds, args.steps)


def run(code: str, seeds: int, steps: int) -> None:
    base, questions, answers = load()
    truth = np.argsort(-(questions @ base.T), axis=1, kind="stable")[:, :K]
    names = ("post-training", "mixed, same bytes", "float", "float, contrast", "quantization-aware")
    hit = {name: np.zeros(len(questions)) for name in names}
    recall = {name: np.zeros(len(questions)) for name in names}
    seconds = []

    def measure(name: str, rows: Rows, adapter: Adapter | None, config: CodeConfig, seed: int) -> None:
        ids = found(base, questions[rows], config, adapter, seed)
        hit[name][rows] += (ids == answers[rows, None]).any(axis=1) / seeds
        recall[name][rows] += recall_of_rows(ids, truth[rows], questions[rows], base, "cosine") / seeds

    for seed in range(seeds):
        fold = np.random.default_rng(100 + seed).permutation(len(base))[answers] % FOLDS
        for name, config in ((names[0], make_config(code)), (names[1], SAME_BYTES[code])):
            measure(name, np.arange(len(questions)), None, config, seed)
        for k in range(FOLDS):
            test, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
            examples = make_examples(base, questions[rest], np.stack((np.arange(len(rest)), answers[rest]), 1), seed)
            for name, quantized, contrast in (
                (names[2], False, 0.0),
                (names[3], False, CONTRAST),
                (names[4], True, 0.0),
            ):
                options = Options(steps=steps, check_every=steps, contrast=contrast)
                adapter, spent = trained(examples, code, options, seed, quantized)
                measure(name, test, adapter, adapter.code, seed)
                seconds += [spent] if quantized else []
            print(f"seed {seed} fold {k}: {seconds[-1]:.0f} s", flush=True)
    report(code, names, hit, recall, seconds)


def report(code: str, names: tuple[str, ...], hit: Outcomes, recall: Outcomes, seconds: list[float]) -> None:
    last = names[-1]
    print(f"\n{code}: {len(hit[last])} questions, {np.mean(seconds):.0f} s a training, at most {max(seconds):.0f}")
    for name in names:
        print(f"{name:20} hit@10 {hit[name].mean():.4f}  recall@10 {recall[name].mean():.4f}")
    for name in names[:-1]:
        gains = (interval(outcome[last] - outcome[name]) for outcome in (hit, recall))
        print(f"{last} less {name}: hit@10 {next(gains)}, recall@10 {next(gains)}")


if __name__ == "__main__":
    main()

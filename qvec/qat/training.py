"""The training loop of an adapter: batches, losses, early stopping on held-out queries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qvec.codes.adapters import Adapter
from qvec.codes.configs import CodeConfig
from qvec.codes.registry import train
from qvec.codes.samples import mean_of
from qvec.codes.transforms import Transform
from qvec.common.types import Float32Array, Metric
from qvec.qat.codes import FakeCode
from qvec.qat.examples import Examples
from qvec.qat.options import Options
from qvec.quality.recall import recall

METRIC: Metric = "cosine"
K = 10
CHECKED_DOCUMENTS = 20_000  # held-out recall is measured among this many documents and the right answers

Progress = Callable[[int, int, float], None]


class LinearAdapter(torch.nn.Module):
    """``(x - mean) M`` with M = W, or ``I + U V^T`` of a rank, followed by the rotation R; M starts as the identity."""

    def __init__(self, dim: int, rank: int | None, mean: Tensor | None, rotation: Tensor | None) -> None:
        super().__init__()
        self.mean, self.rotation = mean, rotation
        self.eye = torch.eye(dim)
        if rank is None:
            self.factors = torch.nn.ParameterList([torch.eye(dim)])
        else:
            first = torch.nn.init.normal_(torch.empty(dim, rank), std=dim**-0.5)
            self.factors = torch.nn.ParameterList([first, torch.zeros(rank, dim)])  # LoRA, arXiv:2106.09685, 4.1

    @property
    def matrix(self) -> Tensor:
        """float32[dim, dim]."""
        if len(self.factors) == 1:
            return torch.as_tensor(self.factors[0])
        return self.eye + self.factors[0] @ self.factors[1]

    def forward(self, x: Tensor) -> Tensor:
        """Float32[n, dim] to rotated float32[n, padded]."""
        whole = self.matrix if self.rotation is None else self.matrix @ self.rotation
        return (x if self.mean is None else x - self.mean) @ whole


class Trainer:
    """Trains an adapter; ``seed`` determines all random choices."""

    def __init__(self, examples: Examples, code: FakeCode, config: CodeConfig, options: Options, seed: int) -> None:
        self.code, self.config, self.options, self.seed = code, config, options, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.documents = torch.from_numpy(examples.documents)
        self.queries = torch.from_numpy(examples.queries)
        self.answers = torch.from_numpy(examples.answers)
        self.nearest = torch.from_numpy(examples.nearest)
        self.training = torch.from_numpy(np.flatnonzero(~examples.held))
        self.held = torch.from_numpy(np.flatnonzero(examples.held))
        self.paired = options.contrast > 0 and bool((examples.answers >= 0).all())
        self.mean = mean_of(examples.documents) if config.kind == "binary" else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = self._new_adapter(examples.documents.shape[1])

    def _new_adapter(self, dim: int) -> LinearAdapter:
        code = train(np.empty((0, dim), np.float32), METRIC, self.config, self.seed)
        rotation = None
        if code.transform is not None and code.transform.seed is not None:
            turned = Transform(dim, False, None, code.transform.seed).apply(np.eye(dim, dtype=np.float32))
            rotation = torch.from_numpy(turned)
        mean = None if self.mean is None else torch.from_numpy(self.mean)
        return LinearAdapter(dim, self.options.rank, mean, rotation)

    def fit(self, progress: Progress | None = None) -> Adapter:
        """Train; return the map with the best held-out recall, which may be the untrained one."""
        o = self.options
        optimizer = torch.optim.Adam(self.adapter.parameters(), lr=o.learning_rate)
        warmup = max(1, o.steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, (o.steps - step) / max(1, o.steps - warmup))
        )
        best, kept, waited = self.held_out_recall(), self._matrix(), 0
        for step in range(1, o.steps + 1):
            optimizer.zero_grad()
            self.loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if step % o.check_every and step != o.steps:
                continue
            reached = self.held_out_recall()
            best, kept, waited = (reached, self._matrix(), 0) if reached > best else (best, kept, waited + 1)
            if progress is not None:
                progress(step, o.steps, reached)
            if waited >= o.patience:
                break
        return self._export(kept)

    def last(self) -> Adapter:
        """Return the map after the last step."""
        return self._export(self._matrix())

    def _matrix(self) -> Float32Array:
        matrix: Float32Array = self.adapter.matrix.detach().numpy().copy()
        return matrix

    def _export(self, matrix: Float32Array) -> Adapter:
        dim = len(matrix)
        transform = Transform(dim, self.mean is not None, self.mean, None, None, matrix)
        return Adapter(METRIC, self.config, self.seed, transform)

    # --- losses ---

    def loss(self) -> Tensor:
        """Return the loss of a random batch."""
        o = self.options
        rows = self.training[torch.randperm(len(self.training), generator=self.generator)[: o.batch]]
        documents, answers = self._candidates(rows)
        queries, x = self.queries[rows], self.documents[documents]
        scores = self.code.queries(self.adapter(queries)) @ self.code.documents(self.adapter(x)).T
        loss = o.distil * divergence(scores, queries @ x.T, o.temperature)
        if self.paired:
            loss = loss + o.contrast * contrast(scores, answers, o.temperature)
        return loss

    def _candidates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct documents of a batch, and the position of each query's answer among them."""
        o, g = self.options, self.generator
        near = self.nearest[rows]
        near = near[:, torch.randperm(near.shape[1], generator=g)[: o.negatives]]
        random = torch.randint(len(self.documents), (o.pool,), generator=g)
        answers = self.answers[rows] if self.paired else near[:, :0].reshape(-1)
        documents = torch.unique(torch.cat((answers, near.reshape(-1), random)))
        return documents, torch.searchsorted(documents, answers)

    # --- measuring ---

    def held_out_recall(self) -> float:
        """Return recall@10 by code of held-out queries; with answers, the share of answers among the ten hits."""
        with torch.no_grad():
            return self._recall(self.held)

    def _recall(self, rows: Tensor) -> float:
        wanted = self.answers[rows, None] if self.paired else self.nearest[rows, :K]
        g = torch.Generator().manual_seed(self.seed)
        others = torch.randperm(len(self.documents), generator=g)[:CHECKED_DOCUMENTS]
        documents = torch.unique(torch.cat((wanted.reshape(-1), others)))
        codes = self.code.documents(self.adapter(self.documents[documents]))
        scores = self.code.queries(self.adapter(self.queries[rows])) @ codes.T
        found = documents[scores.topk(min(K, scores.shape[1]), dim=1).indices]
        if self.paired:
            return float((wanted == found).any(1).float().mean())
        neighbors = (found[:, :, None] == self.nearest[rows, None, :]).any(2)  # not the query's own document
        distances = torch.where(neighbors, self._distances(rows, found), torch.inf)
        return float(recall(distances.numpy(), self._distances(rows, wanted).numpy()).mean())

    def _distances(self, rows: Tensor, documents: Tensor) -> Tensor:
        """Exact distances of documents int64[m, k] from queries int64[m]: float32[m, k]."""
        return 1 - torch.einsum("md,mkd->mk", self.queries[rows], self.documents[documents])


def divergence(scores: Tensor, exact: Tensor, temperature: float) -> Tensor:
    """KL(softmax(exact / t) || softmax(scores / t)), the mean over queries: both float32[b, n].

    Distillation (Hinton, Vinyals and Dean, arXiv:1503.02531, section 2) of the float scores into the code's.
    """
    target = torch.softmax(exact / temperature, 1)
    return F.kl_div(torch.log_softmax(scores / temperature, 1), target, reduction="batchmean")


def contrast(scores: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al., arXiv:1807.03748, eq. 4) over the batch's answers only.

    scores: float32[b, n]; answers: int64[b], columns of ``scores``. Other documents do not serve as negatives: if the
    answers differ from them as a group, the map would learn the difference of the groups.
    """
    columns = torch.unique(answers)
    return F.cross_entropy(scores[:, columns] / temperature, torch.searchsorted(columns, answers))

"""EK-FAC influence through the kronfluence library, an optional extra.

The Hessian is replaced by a Gauss-Newton matrix whose eigenvectors factor by layer (George et al.
2018; Grosse et al. 2023, https://arxiv.org/abs/2308.03296), which has no negative curvature. Only
Linear and Conv2d modules have such factors: all else in the scope is left out, and named.
"""

import copy
import hashlib
import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.fingerprints import key_hash
from influence_core.models.classifier import Batch, Classifier, Rows, Scope

Labels = Literal["sampled", "true"]
STAGES = (
    "covariances",
    "eigenvectors",
    "eigenvalues",
    "pairwise scores",
    "training rows' self-influence",
    "queries' self-influence",
)


@dataclass(frozen=True)
class EkfacScores:
    """Scores of Q queries over N training rows; positive = proponent (see `attribution.base`)."""

    pairwise: np.ndarray  # [Q, N] g_zᵀ (F + δ)⁻¹ g_x
    queries: np.ndarray  # [Q] self-influence of the queries, with their target labels
    train: np.ndarray  # [N] self-influence of the training rows
    modules: tuple[str, ...]  # with factors
    left_out: tuple[str, ...]  # parameters of the scope that no factored module owns


def library(module: str) -> Any:
    """Import one of kronfluence's modules; raises `UserError` saying how to install it."""
    try:
        return importlib.import_module(f"kronfluence.{module}")
    except ImportError as error:
        raise UserError(
            f"EK-FAC needs the kronfluence library ({error}): run pip install -r requirements-ekfac.txt"
        ) from None


def ekfac(
    classifier: Classifier,
    scope: Scope,
    train: Rows,
    queries: Rows,
    sample: Rows,
    folder: Path,
    *,
    damping: float | None = None,
    labels: Labels = "sampled",
    seed: int = 0,
    batch_size: int = 32,
) -> Iterator[Progress | EkfacScores]:
    """Fit factors on ``sample``, then score; yields `Progress` after each stage and `EkfacScores` last.

    ``queries`` carry their target labels. F is the Fisher matrix of the mean loss, the Gauss-Newton matrix of a
    softmax, with labels drawn from the model's predictions ("sampled", seeded), or the empirical one with the rows'
    own labels ("true"), which is another matrix. ``damping`` is δ; None takes kronfluence's 0.1 × the mean
    eigenvalue of each module. Factors and scores stay in ``folder`` under names made from all that they depend on,
    so a repeated or interrupted call takes up what is there. Memory: batch_size × the scope's parameters, twice.

    Raises:
        UserError: kronfluence is not installed, no module has factors, no rows, or the damping is negative.
    """
    analyzer_module, arguments, data = library("analyzer"), library("arguments"), library("utils.dataset")
    if damping is not None and not damping >= 0:
        raise UserError(f"damping = {damping}: give a number of at least 0, or none for a tenth of the mean eigenvalue")
    for what, rows in (("training rows", train), ("queries", queries), ("rows for the factors", sample)):
        if len(rows) == 0:
            raise UserError(f"EK-FAC got no {what}: give at least one")
    names = factored_modules(classifier, scope)
    task = _Task(classifier, names)
    analyzer_module.prepare_model(task.tracked.module, task)
    analyzer = analyzer_module.Analyzer(
        analysis_name="ekfac",
        model=task.tracked.module,
        task=task,
        cpu=classifier.device.type == "cpu",
        log_level=logging.ERROR,
        disable_tqdm=True,
        output_dir=str(folder),
    )
    analyzer.set_dataloader_kwargs(data.DataLoaderKwargs(collate_fn=lambda items: _collate(classifier, items)))
    kind = torch.promote_types(classifier.dtype, torch.float32)
    of_factors = arguments.FactorArguments(
        use_empirical_fisher=labels == "true",
        activation_covariance_dtype=kind,
        gradient_covariance_dtype=kind,
        per_sample_gradient_dtype=kind,
        lambda_dtype=kind,
    )
    of_scores = arguments.ScoreArguments(
        damping_factor=damping, per_sample_gradient_dtype=kind, precondition_dtype=kind, score_dtype=kind
    )
    key: dict[str, Any] = {
        "model": _digest(classifier.module.state_dict()),
        "modules": names,
        "sample": _digest_rows(sample),
    }
    key |= {"labels": labels, "seed": seed, "batch_size": batch_size}
    factors = key_hash(key)
    key |= {"damping": damping, "train": _digest_rows(train), "queries": _digest_rows(queries)}
    scores = key_hash(key)
    fit = {"factors_name": factors, "factor_args": of_factors}
    score = {"factors_name": factors, "score_args": of_scores, "per_device_train_batch_size": batch_size}
    stages: tuple[Callable[[], None], ...] = (
        lambda: analyzer.fit_covariance_matrices(dataset=_items(sample), per_device_batch_size=batch_size, **fit),
        lambda: analyzer.perform_eigendecomposition(**fit),
        lambda: analyzer.fit_lambda_matrices(dataset=_items(sample), per_device_batch_size=batch_size, **fit),
        lambda: analyzer.compute_pairwise_scores(
            scores_name=scores,
            query_dataset=_items(queries),
            train_dataset=_items(train),
            per_device_query_batch_size=batch_size,
            **score,
        ),
        lambda: analyzer.compute_self_scores(scores_name=f"{scores}-train", train_dataset=_items(train), **score),
        lambda: analyzer.compute_self_scores(scores_name=f"{scores}-queries", train_dataset=_items(queries), **score),
    )
    devices = [classifier.device] if classifier.device.type == "cuda" else []
    for number, (name, stage) in enumerate(zip(STAGES, stages, strict=True)):
        with torch.random.fork_rng(devices=devices), torch.enable_grad():  # labels are drawn
            torch.manual_seed(seed + number)
            stage()
        yield Progress(phase=f"EK-FAC: {name}", done=number + 1, total=len(STAGES), unit="stages")
    tracked = {parameter for name in names for parameter in _own(name, classifier.module.get_submodule(name))}
    yield EkfacScores(
        pairwise=_array(analyzer.load_pairwise_scores(scores)),
        queries=_array(analyzer.load_self_scores(f"{scores}-queries")),
        train=_array(analyzer.load_self_scores(f"{scores}-train")),
        modules=tuple(names),
        left_out=tuple(name for name in scope.parameters if name not in tracked),
    )


def factored_modules(classifier: Classifier, scope: Scope) -> list[str]:
    """Name the scope's Linear and Conv2d modules, in order; raises `UserError` if there are none."""
    wanted = set(scope.parameters)
    found = [
        name
        for name, module in classifier.module.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d) and wanted.issuperset(_own(name, module))
    ]
    if not found:
        raise UserError(
            f"scope {scope.name} has no Linear or Conv2d module, the only ones EK-FAC has factors for: "
            "choose a larger scope"
        )
    return found


class _Task:
    """What kronfluence asks of a task (its ``Task`` has these methods): sums of losses, and the padding."""

    enable_post_process_per_sample_gradient = False

    def __init__(self, classifier: Classifier, modules: list[str]) -> None:
        self.classifier, self.modules = classifier, modules
        self.tracked = copy.deepcopy(classifier)  # kronfluence replaces modules in place and watches their passes

    def get_influence_tracked_modules(self) -> list[str]:
        return self.modules

    def compute_train_loss(self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        given = _batch(batch)
        if sample:
            with torch.no_grad():
                drawn = torch.multinomial(self.classifier.logits(given).float().softmax(1), 1)
            given = given.relabelled(drawn[:, 0])
        return self.tracked.losses(given).sum()

    def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)

    def get_attention_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return 1 for tokens and 0 for padding, [B, T], from the prepared additive mask [B, 1, 1, T]."""
        mask = batch.get("attention_mask")
        return (mask[:, 0, 0] == 0).long() if mask is not None and mask.dim() == 4 else None


def _items(rows: Rows) -> list[tuple[Any, int]]:
    return list(zip(rows.items, rows.labels.tolist(), strict=True))


def _collate(classifier: Classifier, items: list[tuple[Any, int]]) -> dict[str, Tensor]:
    batch = classifier.collate([item for item, _ in items], [label for _, label in items])
    return {"labels": batch.labels, **batch.inputs}


def _batch(given: dict[str, Tensor]) -> Batch:
    return Batch({name: value for name, value in given.items() if name != "labels"}, given["labels"])


def _own(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{local}" if name else local for local, _ in module.named_parameters(recurse=False)]


def _array(scores: dict[str, Tensor]) -> np.ndarray:
    return scores["all_modules"].double().numpy()


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name}\x1f{value.dtype}\x1f{tuple(value.shape)}\x1e".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest_rows(rows: Rows) -> str:
    digest = hashlib.sha256(rows.labels.tobytes())
    for item in rows.items:
        array = np.ascontiguousarray(item)
        digest.update(f"{array.dtype}\x1f{array.shape}\x1e".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

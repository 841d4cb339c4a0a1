"""Judges and PU classifiers for images of any size: ResNets, from fresh weights or ImageNet's, and Inception for FID.

PU diffusion (arXiv 2503.03789) counts the sensitive samples of a set with a ResNet that was fine-tuned on its labels. `fit_judge` makes such
a judge, and `evaluation` measures with it as with the shipped one. Nothing here downloads: weights that are not at hand are None.
"""

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from .data import DataError, check_count, read_file, sha256, to_bytes
from .evaluation import frechet_distance
from .prior import FOLD_SEED, Scores, classifier_risk
from .rivals import Sieve, check_sievable, sieve_from
from .training import CheckpointError, device, fill_weights, read_tensors, save_weights

SMALL = 64  # pixels of a side: ResNet's first layers divide it by 4, which leaves too little of smaller images
N_FEATURES = 512
LR, LR_TUNING = 1e-3, 3e-4  # peaks, from fresh weights and from ImageNet's
BATCH_UNLABELED, BATCH_SENSITIVE = 64, 32  # of the sieve
Weights = dict[str, Tensor]


class ResNetJudge(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) as a judge: images [n, *shape] in [-1, 1] -> log p [n, n_classes].

    Results lie where the images do, whatever device the network is on.

    Args:
        shape: (channels, height, width) of an image; 1 channel is taken for three equal ones.
        n_classes: number of labels.
        imagenet: whether its weights will be ImageNet's. They need the first layers as they are, so images below `SMALL` pixels are enlarged;
            otherwise these get a 3x3 convolution of stride 1 and no pooling in place of the first layers, as in section 4.2 of the paper.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Sequence[int], n_classes: int, imagenet: bool = False) -> None:
        super().__init__()
        self.shape, self.config = tuple(shape), {"shape": list(shape), "n_classes": n_classes, "imagenet": imagenet}
        self.body, self.head = resnet18(), nn.Linear(N_FEATURES, n_classes)
        self.body.fc = nn.Identity()
        small = min(self.shape[1:]) < SMALL
        self.size = [max(SMALL, side) for side in self.shape[1:]] if small and imagenet else None
        if small and not imagenet:
            self.body.conv1, self.body.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
            nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision starts the others
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)  # ImageNet's
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations, [n, 512]: the space of the Fréchet distance."""
        return self._activations(images).to(images.device)

    def forward(self, images: Tensor) -> Tensor:
        """log p of each class, [n, n_classes]."""
        return F.log_softmax(self.head(self._activations(images)), 1).to(images.device)

    def _activations(self, images: Tensor) -> Tensor:
        x = ((images.to(self.mean) + 1) / 2 - self.mean) / self.std
        return self.body(x if self.size is None else F.interpolate(x, size=self.size, mode="bilinear", align_corners=False))


# ---------------------------------------------------------------------------------------- weights at hand


def pretrained_resnet() -> Weights | None:
    """ImageNet weights of ResNet-18 from torch hub's cache, which torchvision fills; None where they are not there.

    Raises:
        DataError: the file is corrupt.
    """
    path = _in_hub(ResNet18_Weights.DEFAULT.url)
    if path is None:
        return None
    if not sha256(path).startswith(path.stem.split("-")[-1]):  # the name ends in the first digits
        raise DataError(f"{path} is corrupt: its SHA-256 does not begin as its name ends; delete it")
    return torch.load(path, map_location="cpu", weights_only=True)


def inception() -> nn.Module | None:
    """The network of FID: uint8 images [n, 3, h, w] -> features [n, 2048]; None without torch-fidelity, or its weights in torch hub's cache.

    (torchmetrics' copy of the Inception v3 of Heusel et al. 2017, arXiv 1706.08500.)

    Raises:
        DataError: the weights file is corrupt.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    except ImportError:
        return None
    path = _in_hub(URL_INCEPTION_V3)
    if path is None:
        return None
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to load

    try:
        metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(path))  # a path, or it would download
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is corrupt, or holds other weights; delete it ({error})") from error
    return metric.inception.to(device())


def _in_hub(url: str) -> Path | None:
    """The file that torch hub's cache has of a URL."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    return path if path.is_file() else None


@torch.no_grad()
def fid(samples: Tensor, reference: Tensor, extractor: nn.Module, batch: int = 64) -> float:
    """Fréchet distance between the features of two sets of images: FID, with `inception` as the extractor.

    It falls with the number of images, so compare equal numbers; fewer than there are features give no more than a rough order.

    Args:
        samples, reference: [n, c, h, w] and [m, c, h, w] in [-1, 1], of 1 or 3 channels and any size.
        extractor: uint8 images [n, 3, h, w] -> features [n, d].
        batch: images at once.

    Raises:
        ValueError: images that are not float and finite, of another shape, or fewer than 2 on a side.
    """
    features = []
    for name, images in (("samples", samples), ("reference", reference)):
        _check_images(name, images, 2)
        here = next((p.device for p in extractor.parameters()), images.device)
        parts = [extractor(_as_bytes(part).to(here)) for part in images.split(check_count(batch, "batch"))]
        features.append(torch.cat(parts).cpu())
    return frechet_distance(*features)


def _as_bytes(images: Tensor) -> Tensor:
    """[n, c, h, w] in [-1, 1] -> uint8 [n, 3, h, w] in 0 … 255, as they are in files."""
    return to_bytes(images.float()).expand(-1, 3, -1, -1)


# --------------------------------------------------------------------------------------------- the judge


def fit_judge(
    images: Tensor, labels: Tensor, n_classes: int, steps: int = 4000, seed: int = 0, weights: Weights | None = None, flip: bool = True, batch: int = 128
) -> ResNetJudge:
    """Train a judge with cross-entropy on images that no one else's samples are compared with, on `training.device`.

    It comes back frozen, in evaluation mode. The same seed gives the same judge, on a CPU bit for bit.

    Args:
        images: [n, c, h, w] in [-1, 1], of 1 or 3 channels.
        labels: int [n], each in 0 … n_classes - 1.
        n_classes: >= 2.
        steps: of AdamW, >= 2, at a rate that rises and falls.
        seed: of first weights and batches.
        weights: to start from, as `pretrained_resnet` gives them; fresh ones when None.
        flip: whether a mirrored image is as good as another; not so for digits.
        batch: images in a step, >= 2.

    Raises:
        ValueError: an argument outside its range, or not one label for each image.
    """
    _check_images("images", images, 1)
    n_classes, steps, batch = check_count(n_classes, "n_classes", 2), check_count(steps, "steps", 2), check_count(batch, "batch", 2)
    labels = _checked_labels(labels, len(images), n_classes)
    judge, generator = _network(images.shape[1:], n_classes, weights, seed), torch.Generator().manual_seed(seed)

    def cross_entropy() -> Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator)
        seen = _varied(images[rows].to(judge.mean.device), flip, generator)
        return F.nll_loss(judge(seen), labels[rows].to(seen.device))

    return _trained(judge, cross_entropy, steps, LR if weights is None else LR_TUNING)


def _network(shape: tuple[int, ...], n_classes: int, weights: Weights | None, seed: int) -> ResNetJudge:
    """A network on `training.device`, its first weights drawn from `seed`, but for those that are given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_count(seed, "seed", 0))
        network = ResNetJudge(shape, n_classes, imagenet=weights is not None)
    if weights is not None:
        try:
            network.body.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("fc.")})
        except RuntimeError as error:
            raise ValueError(f"weights must be those of torchvision's resnet18; {error}") from error
    return network.to(device())


def _varied(images: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image [n, c, h, w] shifted by up to an eighth of its sides, and mirrored by chance where `flip` says so."""
    n, _, h, w = images.shape
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        images = torch.where(mirrored.view(n, 1, 1, 1).to(images.device), images.flip(3), images)
    padded = F.pad(images, [w // 8, w // 8, h // 8, h // 8], mode="reflect")
    down, right = (torch.randint(2 * (side // 8) + 1, (n, 1), generator=generator) + torch.arange(side) for side in (h, w))
    rows = torch.arange(n).view(n, 1, 1)
    return padded.movedim(1, 3)[rows, down[:, :, None], right[:, None, :]].movedim(3, 1)


def _trained(network: ResNetJudge, risk: Callable[[], Tensor], steps: int, lr: float) -> ResNetJudge:
    """The network after `steps` steps down the risk of ever new batches, frozen."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    network.train()
    for step in range(steps):
        value = risk()
        if not torch.isfinite(value):
            raise FloatingPointError(f"the risk is {value.item()} at step {step + 1}; check the images, whose values should be about [-1, 1]")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def save_judge(path: Path | str, judge: ResNetJudge) -> None:
    """Write a judge to a safetensors file, atomically, with its digest."""
    save_weights(path, judge, judge=judge.config)


def load_judge_file(path: Path | str) -> ResNetJudge:
    """The judge that `save_judge` wrote, frozen, on the CPU.

    Raises:
        DataError: the file is missing.
        CheckpointError: it is corrupt, or holds no judge.
    """
    tensors, facts = read_tensors(read_file(Path(path), "restore it, or make it anew by `fit_judge` and `save_judge`"), path)
    if "judge" not in facts:
        raise CheckpointError(f"{path} holds no judge; `save_judge` writes one")
    judge = ResNetJudge(**facts["judge"])
    fill_weights(judge, tensors, path)
    return judge.eval().requires_grad_(False)


# --------------------------------------------------------------------------------------- the PU classifier


def colour_sieve(
    unlabeled: Tensor,
    sensitive: Tensor,
    prior: float,
    seed: int = 0,
    folds: int = 3,
    steps: int = 1000,
    weights: Weights | None = None,
    flip: bool = True,
) -> Sieve:
    """`rivals.sieve` for images of any size: cross-fitted ResNets in place of the small networks on edges.

    Each image of U and of S is scored by a network that has not trained on it, with the nnPU risk (`prior.classifier_risk`).

    Args:
        unlabeled, sensitive: [n, c, h, w] and [m, c, h, w] in [-1, 1], of 1 or 3 channels.
        prior: share of sensitive images in U, in (0, 1).
        seed: of folds, first weights and batches.
        folds: networks, >= 2.
        steps: of each, >= 2.
        weights, flip: as in `fit_judge`.

    Raises:
        ValueError: an argument outside its range.
        CollapseError: the scores are all the same.
    """
    prior, folds, steps = check_sievable(prior), check_count(folds, "folds", 2), check_count(steps, "steps", 2)
    for name, images in (("unlabeled", unlabeled), ("sensitive", sensitive)):
        _check_images(name, images, folds)
    if unlabeled.shape[1:] != sensitive.shape[1:]:
        raise ValueError(f"unlabeled and sensitive must have images of one shape; got {list(unlabeled.shape)} and {list(sensitive.shape)}")
    generator = torch.Generator().manual_seed(FOLD_SEED + check_count(seed, "seed", 0))  # at random, and not as U was shuffled; see `prior.prepare`
    both = [(images, torch.randperm(len(images), generator=generator) % folds) for images in (unlabeled, sensitive)]
    networks, scores = [], [torch.zeros(len(images)) for images, _ in both]
    for k in range(folds):
        rows_u, rows_s = (torch.nonzero(fold != k).flatten() for _, fold in both)
        networks.append(_fit_scorer(unlabeled, sensitive, rows_u, rows_s, prior, seed * 1009 + k, steps, weights, flip))
        for mine, (images, fold) in zip(scores, both):
            mine[fold == k] = _mean_score(networks[-1:], images, torch.nonzero(fold == k).flatten())
    return sieve_from(Scores(*scores), partial(score_colour, networks), prior)


def _fit_scorer(
    unlabeled: Tensor, sensitive: Tensor, rows_u: Tensor, rows_s: Tensor, prior: float, seed: int, steps: int, weights: Weights | None, flip: bool
) -> ResNetJudge:
    """A network of two labels, normal and sensitive, trained on those rows of U and of S."""
    network, generator = _network(unlabeled.shape[1:], 2, weights, seed), torch.Generator().manual_seed(seed)

    def risk() -> Tensor:
        u, s = (rows[torch.randint(len(rows), (n,), generator=generator)] for rows, n in ((rows_u, BATCH_UNLABELED), (rows_s, BATCH_SENSITIVE)))
        batch = torch.cat([unlabeled[u], sensitive[s]]).to(network.mean.device)
        score_u, score_s = _log_odds(network, _varied(batch, flip, generator)).split([BATCH_UNLABELED, BATCH_SENSITIVE])
        return classifier_risk(score_u, score_s, prior)

    return _trained(network, risk, steps, LR if weights is None else LR_TUNING)


def _log_odds(network: ResNetJudge, images: Tensor) -> Tensor:
    """log p(sensitive | x) / p(normal | x), [n, c, h, w] -> [n]."""
    normal, sensitive = network(images).unbind(1)
    return sensitive - normal


def score_colour(networks: list[ResNetJudge], images: Tensor) -> Tensor:
    """Scores of images that no network has seen, [n, c, h, w] in [-1, 1] -> [n]: means over networks.

    Raises:
        ValueError: images that are not float and finite, of another shape than the networks', or none.
    """
    _check_images("images", images, 1)
    if tuple(images.shape[1:]) != networks[0].shape:
        raise ValueError(f"images must have shape {['n', *networks[0].shape]}; got {list(images.shape)}")
    return _mean_score(networks, images, torch.arange(len(images)))


@torch.no_grad()
def _mean_score(networks: list[ResNetJudge], images: Tensor, rows: Tensor, batch: int = 64) -> Tensor:
    """The mean score of some rows of the images, on the CPU."""
    return torch.cat([torch.stack([_log_odds(network, images[some]) for network in networks]).mean(0).cpu() for some in rows.split(batch)])


# -------------------------------------------------------------------------------------------------- checks


def _check_images(name: str, images: Tensor, least: int) -> None:
    shape = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"{name} must be a float tensor [n, c, h, w] of 1 or 3 channels; got {shape} of {getattr(images, 'dtype', 'no dtype')}")
    if len(images) < least:
        raise ValueError(f"{name} must hold at least {least} image{'s' if least > 1 else ''}; got {len(images)}")
    if not torch.isfinite(images).all():
        raise ValueError(f"{name} has pixels that are nan or infinite; allowed are finite values, about [-1, 1]")


def _checked_labels(labels: Tensor, n: int, n_classes: int) -> Tensor:
    """`labels` as int64 [n] on the CPU."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != (n,):
        raise ValueError(f"labels must be whole numbers, one for each of the {n} images; got {list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must be in 0 … {n_classes - 1}; got {labels.min()} … {labels.max()}")
    return labels.long().cpu()

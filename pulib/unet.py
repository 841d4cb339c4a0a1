"""The small U-Net of the course: two resolutions, time embedding, one attention layer."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of t at `width`/2 frequencies from 1 to 1e-4 (Vaswani et al. 2017), [B, width]."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def prior_embedding(prior: Tensor, largest: float, waves: int = 8) -> Tensor:
    """The assumed prior as 2 prior / `largest`, with sines and cosines of it at `waves` frequencies, [B] -> [B, 2 waves + 1]."""
    share = prior[:, None].float() / largest
    angles = share * torch.arange(1, waves + 1, device=prior.device) * (math.pi / 2)
    return torch.cat([2 * share, angles.sin(), angles.cos()], 1)


def _silence(layer: nn.Module) -> None:
    """Set all weights of a layer to 0: at first it adds nothing."""
    for p in layer.parameters():
        nn.init.zeros_(p)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a shift by the time embedding, plus a shortcut: [B, c_in, h, w] -> [B, c_out, h, w]."""

    def __init__(self, c_in: int, c_out: int, c_time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(c_time, 2 * c_out)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        _silence(self.conv2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, c_out, h, w] from `x` [B, c_in, h, w] and the time embedding [B, c_time]."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Self-attention over the pixels, with a shortcut: [B, c, h, w] -> the same shape."""

    def __init__(self, c: int, heads: int = 4) -> None:
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(8, c), heads
        self.qkv, self.out = nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)
        _silence(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Each pixel with what it gathers from all others, [B, c, h, w]."""
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, h, w)
        return x + self.out(mixed)


class UNet(nn.Module):
    """U-Net on pixel-unshuffled images: [B, channels, h, w] with h, w divisible by 4, t int64 [B] -> the same shape.

    A 28 x 28 image is first folded to 14 x 14 with four times the channels, which makes a step on a CPU
    several times cheaper; the network then works at 14 x 14 and 7 x 7.

    With `prior_max` it is conditioned on the assumed prior of each image, float [B] in [0, prior_max], by an embedding that is
    added to that of the time. The embedding's last layer starts at 0: a fresh embedding changes nothing.

    Args:
        channels: of the image.
        widths: channels at the two resolutions, multiples of 8.
        prior_max: the largest assumed prior, in (0, 1); None for a network that knows of none.

    Raises:
        ValueError: an argument outside its range, an input's height or width that is not divisible by 4, or a prior that is
            missing, superfluous or outside [0, prior_max].
    """

    def __init__(self, channels: int = 1, widths: tuple[int, int] = (32, 96), prior_max: float | None = None) -> None:
        super().__init__()
        if len(widths) != 2 or any(w % 8 or w < 8 for w in widths):
            raise ValueError(f"widths must be two multiples of 8; got {widths!r}")
        if prior_max is not None and not 0 < prior_max < 1:
            raise ValueError(f"prior_max must be in (0, 1), or None; got {prior_max!r}")
        self.config: dict[str, Any] = {"channels": channels, "widths": list(widths), "prior_max": prior_max}
        a, b = widths
        c_time = 2 * b
        self.time = nn.Sequential(nn.Linear(a, c_time), nn.SiLU(), nn.Linear(c_time, c_time), nn.SiLU())
        self.enter = nn.Conv2d(4 * channels, a, 3, padding=1)
        self.down1, self.down2 = ResBlock(a, a, c_time), ResBlock(a, a, c_time)
        self.shrink = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.mid1, self.attention, self.mid2 = ResBlock(b, b, c_time), Attention(b), ResBlock(b, b, c_time)
        self.grow = nn.Conv2d(b, a, 3, padding=1)
        self.up1, self.up2 = ResBlock(2 * a, a, c_time), ResBlock(2 * a, a, c_time)
        self.norm, self.leave = nn.GroupNorm(8, a), nn.Conv2d(a, 4 * channels, 3, padding=1)
        if prior_max is not None:
            self.prior = nn.Sequential(nn.Linear(17, c_time), nn.SiLU(), nn.Linear(c_time, c_time))
            _silence(self.prior[2])
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, prior: Tensor | None = None) -> Tensor:
        """What the network puts out for `x` [B, channels, h, w] at `t` int64 [B], told `prior` [B] if it has a `prior_max`.

        Raises:
            ValueError: height or width not divisible by 4, or a prior that is missing, superfluous or outside [0, prior_max].
        """
        if x.shape[-1] % 4 or x.shape[-2] % 4:
            raise ValueError(f"image height and width must be divisible by 4; got {tuple(x.shape[-2:])}")
        time = self.time(time_embedding(t, self.config["widths"][0]))
        self._check_prior(prior)
        if prior is not None:
            time = time + self.prior(prior_embedding(prior, self.config["prior_max"]))
        x0 = self.enter(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        x1 = self.down1(x0, time)
        x2 = self.down2(x1, time)
        h = self.mid2(self.attention(self.mid1(self.shrink(x2), time)), time)
        h = self.grow(F.interpolate(h, scale_factor=2.0))
        h = self.up1(torch.cat([h, x2], 1), time)
        h = self.up2(torch.cat([h, x1], 1), time)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), 2)

    def _check_prior(self, prior: Tensor | None) -> None:
        largest = self.config["prior_max"]
        if (largest is None) != (prior is None):
            allowed = "None, as this network has no prior_max" if largest is None else f"one number in [0, {largest:.4g}] per image"
            raise ValueError(f"prior must be {allowed}; got {prior!r}")
        if prior is not None and not (prior.min() >= 0 and prior.max() <= largest * (1 + 1e-6)):
            raise ValueError(f"prior must be in [0, {largest:.4g}]; got {prior.min():.4g} … {prior.max():.4g}")

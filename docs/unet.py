"""srpipe's networks in PyTorch. Copy this file next to your script; it needs torch and safetensors.

    import torch
    from unet import load, enlarge

    model, config = load("runs/quickstart/latest/attention/ema.safetensors")
    small = torch.rand(1, 3, 8, 8) * 2 - 1          # B×3×H×W in [-1, 1]
    large = enlarge(model, config, small)           # one sample of each image

The model takes images of shape B×6×H×W (the noisy image and the bicubically enlarged small image) and times t/T in [0, 1).
srpipe's tests compare every kind of network with numbers that `tests/fixtures/make_models.py` computes with this file.
"""
import json
import math

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn


def load(path):
    """Returns the model of a checkpoint and its configuration."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["srpipe"])
        model = UNet(config["image_size"], config["scale"], **config["model"])
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    return model.eval(), config


@torch.no_grad()
def enlarge(model, config, small, steps=25):
    """Samples with DDIM, clamping each estimate of the clean image; a regression model needs one pass."""
    diffusion = config["diffusion"]
    up = F.interpolate(small, scale_factor=config["scale"], mode="bicubic", antialias=True)  # Keys, a = -0.5
    residual = diffusion["target"] == "residual"
    offset, scale = (up, diffusion["residual_scale"]) if residual else (0, 1)
    if diffusion["objective"] == "regression":
        x = model(torch.cat([torch.zeros_like(up), up], 1), torch.zeros(len(up)))
        return (x / scale + offset).clamp(-1, 1)
    T, bars, x = diffusion["timesteps"], alpha_bars(diffusion), torch.randn_like(up)
    times = [round(T * (steps - i) / steps) - 1 for i in range(steps)]
    for t, following in zip(times, times[1:] + [None]):
        a, s = math.sqrt(bars[t]), math.sqrt(1 - bars[t])
        y = model(torch.cat([x, up], 1), torch.full((len(up),), t / T))
        x0 = {"eps": lambda: (x - s * y) / a, "x0": lambda: y, "v": lambda: a * x - s * y}[diffusion["objective"]]()
        x0 = ((x0 / scale + offset).clamp(-1, 1) - offset) * scale
        bar = 1.0 if following is None else bars[following]
        x = math.sqrt(bar) * x0 + math.sqrt(1 - bar) * (x - a * x0) / s
    return (x / scale + offset).clamp(-1, 1)


def alpha_bars(diffusion):
    """Returns alpha-bar at every time: the cumulative products of 1 - beta."""
    T, kind = diffusion["timesteps"], diffusion["schedule"]
    first, last = diffusion["beta_start"], diffusion["beta_end"]
    line = lambda a, b: torch.linspace(a, b, T, dtype=torch.float64)
    if kind == "linear":
        betas = line(first, last) * 1000 / T
    elif kind == "quadratic":
        betas = line(math.sqrt(first), math.sqrt(last)) ** 2 * 1000 / T
    else:
        u = torch.arange(T + 1, dtype=torch.float64) / T
        f = ((u + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        if kind == "sigmoid":
            f = 1 / (1 + math.exp(-3)) - torch.sigmoid(6 * u - 3)
        betas = 1 - f[1:] / f[:-1]
    return (1 - betas.clamp(max=0.999)).cumprod(0).tolist()


def norm(channels):
    return nn.GroupNorm(next(g for g in range(8, 0, -1) if channels % g == 0), channels)


def positions(channels, height, width, cell):
    n = -(-channels // 4)
    waves = 100.0 ** (-torch.arange(n, dtype=torch.float64) / n)
    y = ((torch.arange(height) + 0.5) * cell)[:, None, None] * waves + torch.zeros(height, width, n)
    x = ((torch.arange(width) + 0.5) * cell)[None, :, None] * waves + torch.zeros(height, width, n)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 2)[:, :, :channels].permute(2, 0, 1).float()


def zero(layer):
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    return layer


class SaganAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, channels // 8, 1), nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x, image):
        q, k, v = (f(x).flatten(2).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.gamma * F.scaled_dot_product_attention(q, k, v).transpose(1, 2).view_as(x) + x


class Attention(nn.Module):
    def __init__(self, channels, kind, heads, scale):
        super().__init__()
        self.kind, self.heads, self.scale = kind, heads, scale
        self.norm = norm(channels)
        if kind == "cross":
            self.tokens = nn.Conv2d(3, channels, 1)
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x, image):
        b, c, h, w = x.shape
        query_input = key_input = self.norm(x)
        if self.kind == "cross":
            tokens = self.tokens(F.avg_pool2d(image[:, 3:], self.scale))
            key_input = tokens + positions(c, tokens.shape[2], tokens.shape[3], self.scale)
            query_input = query_input + positions(c, h, w, image.shape[2] // h)
        split_heads = lambda v: v.view(b, self.heads, c // self.heads, -1).transpose(2, 3)
        q, k, v = split_heads(self.query(query_input)), split_heads(self.key(key_input)), split_heads(self.value(key_input))
        if self.kind == "uniform":
            y = v.mean(2, keepdim=True).expand_as(v)
        elif self.kind == "linear":
            y = q.softmax(3) @ (k.softmax(2).transpose(2, 3) @ v)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(y.transpose(2, 3).reshape(b, c, h, w))


class ConvControl(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.norm = norm(channels)
        self.conv1, self.conv2 = nn.Conv2d(channels, width, 1), zero(nn.Conv2d(width, channels, 1))

    def forward(self, x, image):
        return x + self.conv2(F.silu(self.conv1(self.norm(x))))


def attention(channels, scale, kind, heads=4, matches="mhsa"):
    if kind in ("sagan", "seed"):  # checkpoints contain the older name, "seed"
        return SaganAttention(channels)
    if kind == "conv_control":
        count = sum(p.numel() for p in attention(channels, scale, matches, heads).parameters())
        return ConvControl(channels, round((count - 3 * channels) / (2 * channels + 1)))
    return Attention(channels, kind, heads, scale)


class PlainBlock(nn.Sequential):
    def __init__(self, inputs, outputs, time):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs), nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1), norm(outputs), nn.SiLU())
        if time:
            self.film = nn.Linear(time, 2 * outputs)

    def forward(self, x, time):
        x = self[4](self[3](self[2](self[1](self[0](x)))))
        return F.silu(film(self, x, time))


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, time):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        if time:
            self.film = nn.Linear(time, 2 * outputs)
        if inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, time):
        y = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return self.conv2(F.silu(film(self, y, time))) + (self.skip(x) if hasattr(self, "skip") else x)


def film(block, x, time):
    if not hasattr(block, "film"):
        return x
    scale, shift = block.film(time)[:, :, None, None].chunk(2, 1)
    return x * (1 + scale) + shift


class UNet(nn.Module):
    def __init__(self, size, scale, base_channels=32, channel_mults=(1, 2, 4), blocks_per_level=1, block="residual",
                 time_embedding="sinusoidal", zero_output=True, attention=None):
        super().__init__()
        self.channels = channels = [base_channels * m for m in channel_mults]
        self.repeats, self.sinusoidal = blocks_per_level, time_embedding == "sinusoidal"
        at = dict(attention or {"kind": "none"})
        resolutions = at.pop("resolutions", [8]) if at["kind"] != "none" else []
        make = PlainBlock if block == "plain" else ResidualBlock
        time = 4 * base_channels if self.sinusoidal else 0
        if self.sinusoidal:
            self.time_embed = nn.Sequential(nn.Linear(base_channels + base_channels % 2, time), nn.SiLU(), nn.Linear(time, time))
        else:
            self.time_embed = nn.Sequential(nn.Linear(1, base_channels), nn.SiLU(), nn.Linear(base_channels, channels[-1]))
        inputs = 6
        if block == "residual":
            self.stem, inputs = nn.Conv2d(6, channels[0], 3, padding=1), channels[0]
        add_level = lambda name, level, attention_name: self.add_blocks(name, inputs, channels[level], make, time, (size >> level) in resolutions, attention_name, at, scale)
        for level in range(len(channels) - 1):
            add_level(f"enc{level + 1}", level, f"enc{level + 1}_attention")
            inputs = channels[level]
        add_level("bottleneck", -1 % len(channels), "attention")
        for level in reversed(range(len(channels) - 1)):
            self.add_module(f"upconv{level + 1}", nn.ConvTranspose2d(channels[level + 1], channels[level], 2, 2))
            inputs = 2 * channels[level]
            add_level(f"dec{level + 1}", level, f"dec{level + 1}_attention")
        if block == "residual":
            self.out_norm = norm(channels[0])
        self.out = nn.Conv2d(channels[0], 3, 1)
        if zero_output:
            zero(self.out)

    def add_blocks(self, name, inputs, outputs, make, time, attend, attention_name, at, scale):
        for i in range(self.repeats):
            self.add_module(name if i == 0 else f"{name}_{i + 1}", make(inputs if i == 0 else outputs, outputs, time))
        if attend:
            self.add_module(attention_name, attention(outputs, scale, **at))

    def forward(self, image, t):
        time = None
        if self.sinusoidal:
            n = self.time_embed[0].in_features // 2
            waves = (1000 * 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)).float()
            angles = t[:, None] * waves
            time = F.silu(self.time_embed(torch.cat([angles.sin(), angles.cos()], 1)))

        def level(x, name, attention_name, add_time=False):
            for i in range(self.repeats):
                x = getattr(self, name if i == 0 else f"{name}_{i + 1}")(x, time)
            if add_time:
                x = x + self.time_embed(t[:, None])[:, :, None, None]
            return getattr(self, attention_name)(x, image) if hasattr(self, attention_name) else x

        residual = hasattr(self, "stem")
        x, skips = self.stem(image) if residual else image, []
        for number in range(1, len(self.channels)):
            x = level(x, f"enc{number}", f"enc{number}_attention")
            skips.append(x)
            x = F.avg_pool2d(x, 2) if residual else F.max_pool2d(x, 2)
        x = level(x, "bottleneck", "attention", not self.sinusoidal)
        for number in range(len(self.channels) - 1, 0, -1):
            x = torch.cat([getattr(self, f"upconv{number}")(x), skips[number - 1]], 1)
            x = level(x, f"dec{number}", f"dec{number}_attention")
        return self.out(F.silu(self.out_norm(x)) if residual else x)

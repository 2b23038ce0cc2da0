#!/usr/bin/env python3
"""Compares `srpipe bench` with PyTorch on the same work, interleaved: the tutorial's U-Net, 32×32 pixels, f32.

    cargo build --release
    pip install torch
    python benches/against_pytorch.py --base-channels 32 [--attention seed] [--threads 2] [--avx2] [--rounds 3]

Every round runs one process of each. A process measures training steps (forward, loss, backward, Adam) and forward
passes for some seconds and reports medians. PyTorch measures both memory formats, and the faster one counts. The last
line is a row of a Markdown table: medians over the rounds, and the median of the rounds' ratios.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SRPIPE = Path(__file__).resolve().parent.parent / "target" / "release" / "srpipe"
MEASURES = ("train_images_per_s", "forward_images_per_s")


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--base-channels", type=int, default=32)
    ap.add_argument("--attention", choices=["none", "seed"], default="none", help="in the bottleneck")
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--avx2", action="store_true", help="disable AVX-512 on both sides")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--seconds", type=float, default=3.0, help="duration of each measurement")
    ap.add_argument("--device", default="cpu", help="the device of both, such as cuda")
    ap.add_argument("--srpipe", type=Path, default=SRPIPE)
    ap.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    return ap.parse_args()


def main(args):
    environment = dict(os.environ)
    if args.avx2:
        environment |= {"SRPIPE_SIMD": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    work = ["--base-channels", args.base_channels, "--attention", args.attention, "--batch", args.batch]
    work += ["--threads", args.threads, "--seconds", args.seconds, "--device", args.device]

    def output(*command):
        return subprocess.run([str(c) for c in command], env=environment, check=True, stdout=subprocess.PIPE).stdout

    rounds = []
    for number in range(1, args.rounds + 1):
        ours = json.loads(output(args.srpipe, "bench", "--json", *work))
        theirs = json.loads(output(sys.executable, __file__, "--peer", *work))
        ratios = {m: ours[m] / theirs[m] for m in MEASURES}
        print(f"round {number}: " + ", ".join(
            f"{m.split('_')[0]} {ours[m]:.0f} against {theirs[m]:.0f} images/s, {ratios[m]:.2f} ×" for m in MEASURES
        ), flush=True)
        rounds.append((ours, theirs, ratios))

    def median(side, key):
        return statistics.median(r[side][key] for r in rounds)

    what = f"base {args.base_channels}" + ("" if args.attention == "none" else " with attention")
    what += f", {args.threads} thread{'s' * (args.threads > 1)}" + ", AVX2" * args.avx2
    cells = [what]
    for m in MEASURES:
        cells += [f"{median(1, m):.0f}", f"{median(0, m):.0f}", f"{median(2, m):.2f} ×"]
    cells += [f"{median(1, 'peak_rss_mib'):.0f}", f"{median(0, 'peak_rss_mib'):.0f}"]
    print("| work | PyTorch trains | srpipe | ratio | PyTorch forward | srpipe | ratio | PyTorch MiB | srpipe |")
    print("| " + " | ".join(cells) + " |")


def peer(args):
    """Prints one JSON object: each measure for the faster memory format, and the peak memory of the process."""
    import resource

    import torch
    import torch.nn.functional as F
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.query, self.key = nn.Conv2d(channels, channels // 8, 1), nn.Conv2d(channels, channels // 8, 1)
            self.value, self.gamma = nn.Conv2d(channels, channels, 1), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            b, c, h, w = x.shape
            q, k, v = (f(x).flatten(2) for f in (self.query, self.key, self.value))
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c // 8), dim=-1)
            return self.gamma * (v @ weights.transpose(1, 2)).view(b, c, h, w) + x

    def block(inputs, outputs):
        layers = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.enc1, self.enc2, self.bottleneck = block(6, c), block(c, 2 * c), block(2 * c, 4 * c)
            self.attention = Attention(4 * c) if args.attention == "seed" else nn.Identity()
            self.upconv2, self.dec2 = nn.ConvTranspose2d(4 * c, 2 * c, 2, 2), block(4 * c, 2 * c)
            self.upconv1, self.dec1 = nn.ConvTranspose2d(2 * c, c, 2, 2), block(2 * c, c)
            self.out = nn.Conv2d(c, 3, 1)
            self.time_embed = nn.Sequential(nn.Linear(1, c), nn.SiLU(), nn.Linear(c, 4 * c))

        def forward(self, x, t):
            e1 = self.enc1(x)
            e2 = self.enc2(F.max_pool2d(e1, 2))
            z = self.bottleneck(F.max_pool2d(e2, 2)) + self.time_embed(t.view(-1, 1))[:, :, None, None]
            d2 = self.dec2(torch.cat([self.upconv2(self.attention(z)), e2], 1))
            return self.out(self.dec1(torch.cat([self.upconv1(d2), e1], 1)))

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    def synchronize():
        if args.device != "cpu":
            torch.cuda.synchronize()

    def images_per_s(call):
        for _ in range(3):
            call()
        synchronize()
        times, end = [], time.perf_counter() + args.seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            synchronize()
            times.append(time.perf_counter() - start)
        return args.batch / statistics.median(times)

    best = dict.fromkeys(MEASURES, 0.0)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = UNet(args.base_channels).to(args.device, memory_format=memory_format)
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
        x = torch.randn(args.batch, 6, 32, 32).to(args.device, memory_format=memory_format)
        target, t = torch.randn(args.batch, 3, 32, 32).to(args.device), torch.rand(args.batch).to(args.device)

        def train():
            optimizer.zero_grad()
            F.mse_loss(model(x, t), target).backward()
            optimizer.step()

        @torch.no_grad()
        def forward():
            model(x, t)

        for measure, call in zip(MEASURES, (train, forward)):
            best[measure] = max(best[measure], images_per_s(call))
    print(json.dumps(best | {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    arguments_given = arguments()
    (peer if arguments_given.peer else main)(arguments_given)

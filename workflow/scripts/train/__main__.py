"""Train a network, or write what was trained to ``resources/models``.

    python -m train TASK FOLDER [--steps N] [--seed S]
    python -m train TASK FOLDER --export

Checkpoints go to FOLDER; the same command goes on from the last one. Nothing of it is needed to run
a study. Each head has a seed of its own, so that the seeds alone say what the network saw.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from corelab.learned.infarct import volume_spread
from corelab.learned.unet import STEP_MM
from corelab.provenance.places import own_weights
from train.heads import brain_sample
from train.infarcts import infarct_sample
from train.unet import UNet

Sample = Callable[[int], tuple[NDArray[np.float32], NDArray[np.uint8]]]


@dataclass(frozen=True)
class Task:
    """What a network learns: its heads, its channels and classes.

    ``weight`` is how often the cross entropy counts a voxel of a class but the first, at the start
    of the training; it falls to 1. Lesions are a thousandth of a head: a network that finds none is
    right nearly everywhere, and stays so. Of the ``kept`` last heads one is learnt from a second
    time with each new one, where ``mirrored`` half of the time as its mirror image.
    """

    sample: Sample
    inputs: int
    classes: int
    widths: tuple[int, ...] = (16, 32, 32)
    rate: float = 2e-3
    weight: float = 1.0
    kept: int = 64
    mirrored: bool = False


TASKS = {
    "brain": Task(brain_sample, 1, 2),
    "infarct": Task(infarct_sample, 2, 2, (16, 32, 48), weight=15.0, kept=256, mirrored=True),
}
#: Heads that judge: seeds that training never reaches.
HELD_OUT, JUDGED = 1_000_000_000, 24
#: Heads that limits of volumes are chosen on, and heads that judge them; so many of each.
CHOSEN_ON, JUDGED_ON, CALIBRATED = 1_100_000_000, 1_200_000_000, 200
#: Of the networks' grid.
VOXEL_ML = STEP_MM**3 / 1000


class Heads(torch.utils.data.IterableDataset[Any]):
    """Heads of consecutive seeds."""

    def __init__(self, sample: Sample, first: int, count: int) -> None:
        self.sample, self.first, self.count = sample, first, count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        step = worker.num_workers if worker else 1
        for number in range(worker.id if worker else 0, self.count, step):
            image, labels = self.sample(self.first + number)
            image = image[None] if image.ndim == 3 else image
            yield torch.from_numpy(image), torch.from_numpy(labels)


def loss_of(score: Tensor, truth: Tensor, weight: float) -> Tensor:
    """Cross entropy and one minus the mean Dice of the classes but the first.

    Without the classes that a head does not have: their Dice would teach to find nothing anywhere.
    """
    truth = truth.long()
    share = score.softmax(1)[:, 1:]
    wanted = one_hot(truth, score.shape[1]).movedim(-1, 1)[:, 1:].to(share.dtype)
    axes = (0, 2, 3, 4)
    overlap = 2 * (share * wanted).sum(axes) + 1
    dice = overlap / (share.sum(axes) + wanted.sum(axes) + 1)
    present = (wanted.sum(axes) > 0).to(dice.dtype)
    lost = ((1 - dice) * present).sum() / present.sum().clamp(min=1)
    weights = torch.tensor([1.0, *[weight] * (score.shape[1] - 1)])
    return cross_entropy(score, truth, weights) + lost


def dice_of(score: Tensor, truth: Tensor) -> list[float]:
    """Dice of each class but the first."""
    label = score.argmax(1)
    found = []
    for one in range(1, score.shape[1]):
        a, b = label == one, truth == one
        found.append(float(2 * (a & b).sum() / max(1, int(a.sum() + b.sum()))))
    return found


def judged(network: UNet, task: Task) -> list[float]:
    """Median and least Dice over the held-out heads that have the first class."""
    network.eval()
    dice = []
    with torch.no_grad():
        for image, truth in Heads(task.sample, HELD_OUT, JUDGED):
            if (truth == 1).any():
                score = network(image[None].to(memory_format=torch.channels_last_3d))
                dice.append(dice_of(score, truth[None])[0])
    network.train()
    return [float(np.median(dice)), min(dice)]


def train(name: str, folder: Path, steps: int, seed: int, workers: int) -> None:
    """Train to ``steps`` heads, from the last checkpoint if there is one."""
    task = TASKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = UNet(task.inputs, task.classes, task.widths)
    network = network.to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), lr=task.rate, weight_decay=1e-4)
    done, place = 0, folder / "checkpoint.pt"
    if place.is_file():
        state = torch.load(place, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["done"]
    first = seed * 10_000_000
    heads = torch.utils.data.DataLoader(
        Heads(task.sample, first + done, steps - done), batch_size=1, num_workers=workers,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    again, choose = [], np.random.default_rng([seed, done])
    begun, sums = time.time(), []
    for head in heads:
        rate = task.rate * min(1, (done + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done / steps))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, 1e-5)
        # Making a head takes longer than learning from it: each new one comes with a recent one.
        again = [*again[-task.kept + 1 :], head]
        weight = 1 + (task.weight - 1) * (1 - done / steps) ** 2
        sums.append(learn(network, optimiser, weight, *head))
        image, truth = again[choose.integers(len(again))]
        if task.mirrored and choose.random() < 0.5:
            image, truth = image.flip(2), truth.flip(1)
        learn(network, optimiser, weight, image, truth)
        done += 1
        if done % 50 == 0 or done == steps:
            row: dict[str, Any] = {"step": done, "seconds": round(time.time() - begun, 1)}
            row["loss"], row["dice"] = (round(float(v), 4) for v in np.mean(sums, 0)[:2])
            if done % 500 == 0 or done == steps:
                row["held_out"] = judged(network, task)
            print(json.dumps(row), flush=True)
            with (folder / "curve.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            sums = []
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "done": done}, folder / "new.pt")
            (folder / "new.pt").replace(place)


def learn(
    network: UNet, optimiser: torch.optim.Optimizer, weight: float, image: Tensor, truth: Tensor
) -> tuple[float, ...]:
    """One step; loss and Dice before it."""
    image = image.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = network(image)
    score = score.float()
    loss = loss_of(score, truth, weight)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return (float(loss.detach()), *dice_of(score.detach(), truth))


def residuals(name: str, network: UNet, first: int) -> NDArray[np.float64]:
    """Errors of the volumes of simulated scans, in units of their spread."""
    found = []
    with torch.no_grad():
        for image, truth in Heads(TASKS[name].sample, first, CALIBRATED):
            turned = torch.stack([image, image.flip(1)])
            score = network(turned.to(memory_format=torch.channels_last_3d)).numpy()
            one, other = np.clip(score[:, 1] - score[:, 0], -4, 4)
            other = other[::-1]
            error = int((truth > 0).sum()) - int((one + other > 0).sum())
            found.append(abs(error) * VOXEL_ML / volume_spread(one, other, VOXEL_ML))
    return np.array(found)


def limits(name: str, network: UNet) -> dict[str, float]:
    """Factor whose limits hold 90 % of volumes, and the share that they hold of other scans."""
    network.eval()
    chosen, others = (residuals(name, network, first) for first in (CHOSEN_ON, JUDGED_ON))
    factor = round(float(np.quantile(chosen, 0.9)), 2)
    return {"factor": factor, "judged": round(float((others <= factor).mean()), 3)}


def export(name: str, folder: Path) -> Path:
    """Write weights (half precision) and facts of the training; docs/models.md has the rest."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    half = {key: value.numpy().astype(np.float16) for key, value in state["network"].items()}
    packed = io.BytesIO()
    np.savez(packed, **half)
    target = own_weights(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(packed.getvalue())
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    facts: dict[str, Any] = {
        "task": name,
        "licence": "GPL-3.0-or-later",
        "data": "synthesised heads of workflow/scripts/train; no patient",
        "card": "docs/models.md: domain, figures on real scans, failure cases",
        "sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
        "parameters": sum(value.size for value in half.values()),
        "widths": TASKS[name].widths,
        "heads": state["done"],
        "steps": 2 * state["done"],
        "loss": f"cross entropy (weight {TASKS[name].weight:g} to 1) + 1 - mean Dice",
        "optimiser": f"AdamW, rate {TASKS[name].rate}, cosine",
        "held_out_heads": JUDGED,
        "torch": torch.__version__,
        "curve": [[row["step"], row["loss"], row["dice"]] for row in curve],
        "held_out": [[row["step"], *row["held_out"]] for row in curve if "held_out" in row],
    }
    if name != "brain":
        network = UNet(TASKS[name].inputs, TASKS[name].classes, TASKS[name].widths)
        network.load_state_dict({key: torch.from_numpy(half[key]).float() for key in half})
        facts["limits"] = limits(name, network)
    path = target.with_name("training.json")
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", action="store_true", help="write resources/models/TASK")
    given = parser.parse_args()
    if given.export:
        print(export(given.task, given.folder))
        return
    torch.set_num_threads(given.threads)
    train(given.task, given.folder, given.steps, given.seed, given.workers)


if __name__ == "__main__":
    main()

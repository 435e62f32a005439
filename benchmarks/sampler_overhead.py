"""What the sampling loop costs beside the network, and what the loops of others cost.

Backs the claim: the loop costs at most 2 % over the bare network calls at batch 64 on the shipped
model for every sampler. Beside it are diffusers' and k-diffusion's loops on the same network in the
same run.

A run is one whole trajectory as users get it: grid, noise streams, precision, static threshold,
w = 0. Theirs is `set_timesteps` (or `get_sigmas`) and the loop, with x0 clipped only where they
clip by default. Their noise comes from one generator for the whole batch, or in k-diffusion's SDE
solvers from a Brownian tree; "a seed an image" is diffusers with a list of generators, which gives
what our noise streams give: an image that does not depend on its batch. Every loop is measured in
two ways:

* Alone: in the network's place is a module that returns a ready output at once, so what remains is
  the loop. `overhead_share` is this time an evaluation, over that of a bare network call. It is
  the claim's figure, because it is hardly touched by the noise of the network's time.
  `loop_over_loop` compares two such times, `run_over_run` what they and the bare calls add up to.
* On the network: `whole_over_bare` is the whole run over as many bare calls, made right before or
  after it; `share_in_run` is the time outside the network over that inside it, in the same run,
  where caches are as cold as the network leaves them.

Measure on an idle machine, for a quarter of an hour: where another process holds a core, every
operation that torch shares among threads may wait milliseconds for its turn, and small operations
are then all that is measured. `load_average_before` tells.

An evaluation is one of the whole batch; RK45, which evaluates parts of it, is charged for the
parts. It needs the test requirements.

    python benchmarks/sampler_overhead.py [--batch 64] [--steps 6] [--repetitions 9] [--out FILE]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loop_timing import ROUNDS_ALONE, Pair, Timing, measure_alone, measure_on_network
from measuring import Spread, environment, spread
from sampling_loops import GRID, PEERS, Loop, Subject, make_subject, our_run, our_samplers

CLAIMED_SHARE = 0.02


@dataclass(frozen=True)
class Cost:
    """What one loop costs an evaluation."""

    evaluations: float
    loop_microseconds: Spread
    overhead_share: float
    share_in_run: Spread
    loop_microseconds_in_run: Spread
    whole_over_bare: Spread


def cost(alone: Sequence[Timing], pairs: Sequence[Pair], network_seconds: float) -> Cost:
    loop = spread([1e6 * timing.loop for timing in alone])
    return Cost(
        pairs[0].whole.evaluations,
        loop,
        1e-6 * loop.median / network_seconds,
        spread([pair.whole.total / pair.whole.inside - 1 for pair in pairs]),
        spread([1e6 * pair.whole.loop for pair in pairs]),
        spread([pair.whole.total / pair.bare for pair in pairs]),
    )


def bare_seconds(pairs: Sequence[Pair]) -> Spread:
    """Of one bare call of a whole batch."""
    return spread(
        [pair.bare / pair.whole.evaluations for pair in pairs if pair.whole.in_whole_batches]
    )


def over_peer(ours: Sequence[Timing], theirs: Sequence[Timing]) -> Spread:
    """The time of our loop over theirs, an evaluation, round by round."""
    if ours[0].evaluations != theirs[0].evaluations:
        raise RuntimeError(
            f"{ours[0].evaluations:g} evaluations beside their {theirs[0].evaluations:g}: "
            "choose other --steps"
        )
    return spread([mine.loop / peer.loop for mine, peer in zip(ours, theirs, strict=True)])


def report(subject: Subject, repetitions: int) -> dict[str, Any]:
    """Everything that is measured, as the JSON file has it."""
    surroundings = environment("diffusers", "k-diffusion", "torchsde")
    ours = {
        name: Loop(f"underone {name}", partial(our_run, subject, sampler))
        for name, sampler in our_samplers(subject.model).items()
    }
    theirs = {peer.title: peer.loop(subject) for peer in PEERS}
    loops = [*ours.values(), *theirs.values()]
    alone = measure_alone(subject, loops, repetitions * ROUNDS_ALONE)
    pairs = measure_on_network(subject, loops, repetitions)
    bare = bare_seconds([pair for name in pairs for pair in pairs[name]])
    costs = {title: cost(alone[title], pairs[title], bare.median) for title in alone}
    samplers = {
        name: {
            **asdict(costs[loop.title]),
            "peers": {
                peer.title: {
                    "loop_over_loop": asdict(over_peer(alone[loop.title], alone[peer.title])),
                    "run_over_run": (1 + costs[loop.title].overhead_share)
                    / (1 + costs[peer.title].overhead_share),
                }
                for peer in PEERS
                if name in peer.beside
            },
        }
        for name, loop in ours.items()
    }
    most = max(ours, key=lambda name: costs[ours[name].title].overhead_share)
    return {
        "claim": {
            "largest_overhead_share": costs[ours[most].title].overhead_share,
            "of": most,
            "claimed": CLAIMED_SHARE,
            "largest_share_in_run": max(
                costs[loop.title].share_in_run.median for loop in ours.values()
            ),
            "loops_slower_than_a_peer": [
                f"{name} than {title}"
                for name, figures in samplers.items()
                for title, ratios in figures["peers"].items()
                if ratios["loop_over_loop"]["median"] > 1
            ],
            "largest_run_over_run": max(
                ratios["run_over_run"]
                for figures in samplers.values()
                for ratios in figures["peers"].values()
            ),
        },
        "environment": surroundings,
        "network_dtype": str(subject.dtype or torch.float32).removeprefix("torch."),
        "model": {"name": subject.model.name, "sha256": subject.model.sha256},
        "batch": subject.batch,
        "steps": subject.steps,
        "grid": GRID,
        "repetitions": repetitions,
        "network_seconds": asdict(bare),
        "samplers": samplers,
        "peers": {title: asdict(costs[title]) for title in theirs},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def table(results: dict[str, Any]) -> str:
    """The share of every loop in the network's time, and its time over that of others' loops."""
    rows = [
        f"In {results['network_dtype']}, batches of {results['batch']}:",
        "",
        "| sampler | its loop, of the network's time | its time over another's loop |",
        "| --- " * 3 + "|",
    ]
    for name, found in results["samplers"].items():
        peers = ", ".join(
            f"{each['loop_over_loop']['median']:.2f} ({peer})"
            for peer, each in found["peers"].items()
        )
        rows.append(f"| {name} | {found['overhead_share']:.1%} | {peers} |")
    claim = results["claim"]
    slower, count = len(claim["loops_slower_than_a_peer"]), peers_of(results)
    rows += [
        "",
        f"Above 1 ours is the slower: {slower} of {count} times. The whole run, network included, "
        f"takes at most {claim['largest_run_over_run'] - 1:.1%} longer than theirs.",
    ]
    return "\n".join(rows)


def peers_of(results: dict[str, Any]) -> int:
    return sum(len(found["peers"]) for found in results["samplers"].values())


def main() -> None:
    given = arguments()
    figures = report(make_subject(given.batch, given.steps), given.repetitions)
    print(table(figures))
    claim, network = figures["claim"], figures["network_seconds"]
    print(f"\na bare call: {1e3 * network['median']:.1f} ms")
    print(f"largest overhead: {claim['largest_overhead_share']:.2%}, of {claim['of']}")
    print(f"largest share outside the network, in runs: {claim['largest_share_in_run']:.2%}")
    print(f"largest run over a peer's run, network included: {claim['largest_run_over_run']:.4f}")
    slower = claim["loops_slower_than_a_peer"]
    print(
        "\n".join(["loops alone that are slower than a peer's:", *slower, f"{len(slower)} in all"])
    )
    given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

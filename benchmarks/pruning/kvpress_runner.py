"""NVIDIA's kvpress on prompts that standard input names: how well a model's own answer is read through its caches.

Runs in an environment of its own, which has kvpress and nothing of Vivace's.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> int:
    """Read the work, and print a line of JSON for each prompt."""
    import torch
    from kvpress import ExpectedAttentionPress, SnapKVPress
    from transformers import AutoModelForCausalLM

    asked = json.load(sys.stdin)
    model = AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32).eval()
    for job in asked["jobs"]:
        found = {}
        for ratio in asked["ratios"]:
            presses = {
                "kvpress SnapKVPress": SnapKVPress(ratio, window_size=asked["window"], kernel_size=asked["kernel"]),
                "kvpress ExpectedAttentionPress": ExpectedAttentionPress(ratio),
            }
            for name, press in presses.items():
                found[f"{name}|{ratio}"] = _nats(model, press, job["ids"], job["answer"])
        print(json.dumps({"name": job["name"], "nats": found}), flush=True)
    return 0


def _nats(model: Any, press: Any, ids: list[int], answer: list[int]) -> float:
    """The mean negative log probability of an answer behind a prompt whose cache was pressed, in nats."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    with torch.inference_mode():
        with press(model):
            first = model(torch.tensor([ids]), past_key_values=cache).logits[:, -1:]
        places = torch.arange(len(ids), len(ids) + len(answer) - 1)[None]
        along = [first]
        for place, token in enumerate(answer[:-1]):
            put = {"position_ids": places[:, place : place + 1], "past_key_values": cache}
            along.append(model(torch.tensor([[token]]), **put).logits)
        chances = torch.cat(along, 1)[0].double().log_softmax(-1)
    return -float(chances[range(len(answer)), answer].mean())


if __name__ == "__main__":
    sys.exit(main())

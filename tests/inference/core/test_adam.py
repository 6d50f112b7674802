"""Adam is torch's."""

from __future__ import annotations

import torch

from avse_ppl.inference.core.adam import Adam


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    start = [torch.randn(5, 7), torch.randn(3), torch.randn(2)]
    target = [torch.randn_like(x) for x in start]
    ours, theirs = ([x.clone().requires_grad_() for x in start] for _ in range(2))
    adam = Adam(ours, betas=(0.9, 0.95))
    reference = torch.optim.Adam(theirs, betas=(0.9, 0.95))
    for step in range(30):
        rate = 0.1 / (1 + step)
        for group in reference.param_groups:
            group["lr"] = rate
        adam.clear_gradients()
        reference.zero_grad()
        for points in (ours, theirs):
            # The last one never has a gradient.
            pairs = zip(points[:2], target[:2], strict=True)
            sum((x - y).abs().pow(1.5).sum() for x, y in pairs).backward()
        adam.step(rate)
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(ours[2], start[2])
    assert not torch.equal(ours[0], start[0])

"""Scores on tensors small enough to check by hand; tokens with higher scores are kept."""

import pytest
import torch

from pipeline.model.pruning import scores

PATCHES = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [5.0, 12.0]]])


def test_l2_of_known_vectors():
    assert scores.l2(PATCHES).tolist() == [[5.0, 2.0, 13.0]]


def test_l2_is_taken_in_float32():
    # 300^2 overflows fp16, and a sum in bf16 would make similar norms equal
    score = scores.l2(torch.full((1, 1, 64), 300.0, dtype=torch.float16))
    assert score.dtype == torch.float32
    assert score.item() == 2400.0


def test_only_outliers_are_pinned():
    patches = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    patches[1, 7] *= 40
    robust, plain = scores.l2_robust(patches), scores.l2(patches)
    assert torch.equal(robust[0], plain[0])
    assert robust[1, 7] == torch.inf
    assert torch.isfinite(robust[1, torch.arange(50) != 7]).all()


def test_class_attention_equals_the_full_matrix():
    heads = torch.randn(3, 2, 4, 6, 5, generator=torch.Generator().manual_seed(3))  # q, k, v: B H N E
    query, keys, values = heads
    full = (query @ keys.transpose(-1, -2) / 5**0.5).softmax(-1)  # every token's row; the first is the class token's
    logits = (query[:, :, :1] @ keys.transpose(-1, -2))[:, :, 0] / 5**0.5
    row = scores.cls_attn(logits)
    torch.testing.assert_close(row, full[:, :, 0].mean(1))
    torch.testing.assert_close(row.sum(1), torch.ones(2))
    torch.testing.assert_close(scores.cls_attn_v(logits, values), (full[:, :, 0] * values.norm(dim=-1)).sum(1))


def test_duplicates_score_lowest():
    patches = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    assert scores.redundancy(patches)[0].tolist() == pytest.approx([-1.0, -1.0, -0.8, -0.8])
    crowd = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]]])
    assert scores.energy(crowd, 0.5)[0].argmax() == 3


def test_l2_cls_takes_the_better_rank():
    # ranks by norm 1, 0, 2 and by attention 0, 2, 1
    assert scores.l2_cls(torch.tensor([[[0.0, 5.0, 1.0]]]), PATCHES)[0].tolist() == pytest.approx([1.0, 2.0, 2 + 1 / 3])


def test_controls():
    assert torch.equal(scores.random(2, 9, torch.device("cpu")), scores.random(2, 9, torch.device("cpu")))
    best = scores.grid(torch.arange(64)[None], 8, 8)[0].topk(16).indices
    quarters = {(int(n) // 8 // 4, int(n) % 8 // 4) for n in best}
    assert len(quarters) == 4  # any share of the grid covers the image
    some = torch.tensor([[5, 0, 63]])
    assert torch.equal(scores.grid(some, 8, 8), scores.grid(torch.arange(64)[None], 8, 8)[:, some[0]])


def test_clip_sem_is_a_cosine():
    semantic = scores.clip_sem(torch.tensor([[1.0, 0.0]]), torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]]))
    assert semantic.tolist() == [[1.0, 0.0, -1.0]]


def test_each_seed_of_the_random_score_gives_another_order():
    cpu = torch.device("cpu")
    assert torch.equal(scores.random(2, 9, cpu, seed=0), scores.random(2, 9, cpu))
    assert not torch.equal(scores.random(2, 9, cpu, seed=1), scores.random(2, 9, cpu))

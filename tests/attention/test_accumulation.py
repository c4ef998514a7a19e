"""Accumulated maps and the hybrid loss, by the figures of the OAA page."""

from __future__ import annotations

import itertools

import pytest
import torch

from wsi_attention.attention import accumulation as acc


def random_maps(count: int, shape: tuple[int, ...] = (2, 3, 4, 5)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.rand(shape, generator=generator) for _ in range(count)]


def always(shape: tuple[int, int] = (2, 3)) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def classes(*present: int, count: int = 8) -> torch.Tensor:
    labels = torch.zeros(1, count, dtype=torch.bool)
    labels[0, list(present)] = True
    return labels


def ranking(*order: int, count: int = 8) -> torch.Tensor:
    scores = torch.linspace(0.1, 0.0, count)[None]
    scores[0, list(order)] = torch.linspace(0.9, 0.5, len(order))
    return scores


def test_maximum_only_grows_and_stays_in_range() -> None:
    memory = acc.empty_maps((2, 3, 4, 5))
    for maps in random_maps(4):
        after = acc.accumulate_maximum(memory, maps, always())
        assert (after.values >= memory.values).all()
        assert after.values.min() >= 0
        assert after.values.max() <= 1
        memory = after
    assert torch.equal(memory.updates, torch.full((2, 3), 4))


def test_maximum_is_idempotent_and_knows_no_order() -> None:
    maps = random_maps(3)
    results = []
    for order in itertools.permutations(maps):
        memory = acc.empty_maps((2, 3, 4, 5))
        for one in (*order, order[0]):
            memory = acc.accumulate_maximum(memory, one, always())
        results.append(memory.values)
    assert all(torch.equal(one, results[0]) for one in results)


@pytest.mark.parametrize("rule", [acc.accumulate_maximum, acc.accumulate_mean])
def test_first_map_is_copied_and_a_rejected_one_leaves_every_bit(rule) -> None:  # type: ignore[no-untyped-def]
    first, second = random_maps(2)
    memory = rule(acc.empty_maps((2, 3, 4, 5)), first, always())
    assert torch.equal(memory.values, first)
    accepted = torch.tensor([[True, False, True], [False, False, False]])
    after = rule(memory, second, accepted)
    assert torch.equal(after.values[~accepted], memory.values[~accepted])
    assert not torch.equal(after.values[accepted], memory.values[accepted])
    assert torch.equal(after.updates, 1 + accepted.long())


def test_mean_is_the_arithmetic_mean_of_accepted_maps() -> None:
    maps = random_maps(4)
    gates = [torch.tensor([[i != 2, True, i == 1], [True, i > 1, True]]) for i in range(4)]
    memory = acc.empty_maps((2, 3, 4, 5))
    for one, accepted in zip(maps, gates, strict=True):
        memory = acc.accumulate_mean(memory, one, accepted)
    share = torch.stack(gates)[..., None, None].float()
    expected = (torch.stack(maps) * share).sum(0) / share.sum(0)
    torch.testing.assert_close(memory.values, expected)


def test_blend_is_the_weighted_harmonic_mean() -> None:
    mean, maximum = torch.tensor([0.2, 0.5, 0.0, 0.3]), torch.tensor([0.4, 0.5, 0.0, 1.0])
    expected = torch.tensor([3 / (1 / 0.2 + 2 / 0.4), 0.5, 0.0, 3 / (1 / 0.3 + 2)])
    torch.testing.assert_close(acc.blended(mean, maximum), expected)


def test_memory_gets_no_gradient() -> None:
    maps = random_maps(1)[0].requires_grad_()
    assert not acc.accumulate_maximum(acc.empty_maps((2, 3, 4, 5)), maps, always()).values.requires_grad


def test_gate_is_a_rank_rule() -> None:
    assert torch.equal(acc.gate(ranking(5, 2), classes(2, 5)), classes(2, 5))
    assert torch.equal(acc.gate(ranking(5, 1, 2), classes(2, 5)), classes(5))
    assert torch.equal(acc.gate(ranking(3, 4), classes(4)), classes())
    assert torch.equal(acc.gate(ranking(4, 3), classes(4)), classes(4))
    assert not acc.gate(ranking(4, 3), classes()).any()


def test_gate_of_a_single_class_is_half() -> None:
    found = acc.gate(torch.tensor([[0.6], [0.4], [0.6]]), torch.tensor([[True], [True], [False]]))
    assert found.flatten().tolist() == [True, False, False]


def test_gate_breaks_ties_towards_the_lower_class() -> None:
    assert torch.equal(acc.gate(torch.full((1, 8), 0.125), classes(0)), classes(0))
    assert not acc.gate(torch.full((1, 8), 0.125), classes(1)).any()


def test_warm_up_writes_nothing_and_the_last_epoch_leaves_no_gap() -> None:
    labels, accepted = classes(2, 5), classes(5)
    none, some = torch.zeros(1, 8, dtype=torch.int64), classes(2).long()
    assert not acc.acceptance(accepted, labels, none, epoch=0, epochs=3).any()
    assert torch.equal(acc.acceptance(accepted, labels, none, epoch=1, epochs=3), accepted)
    assert torch.equal(acc.acceptance(accepted, labels, none, epoch=2, epochs=3), labels)
    assert torch.equal(acc.acceptance(accepted, labels, some, epoch=2, epochs=3), accepted)


def test_glimpses_become_coverage() -> None:
    memory = acc.empty_cells((2, 6))
    memory = acc.accumulate_cells(memory, torch.tensor([1, 4, 1]), torch.tensor([[0.2, 0.0, 0.5], [0.1, 0.0, 0.0]]))
    memory = acc.accumulate_cells(memory, torch.tensor([4, 0]), torch.tensor([[0.3, 0.1], [0.0, 0.9]]))
    expected = torch.tensor([[0.1, 0.5, 0.0, 0.0, 0.3, 0.0], [0.9, 0.1, 0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(memory.values, expected)
    assert memory.updates[1].tolist() == [1, 2, 0, 0, 2, 0]


def test_coarser_display_takes_the_maximum_and_counts_all_visits() -> None:
    memory = acc.Memory(torch.tensor([[0.1, 0.4, 0.2, 0.0, 0.0, 0.3]]), torch.tensor([[1, 2, 1, 0, 0, 5]]))
    found = acc.coarser(memory, (2, 3), 2)
    assert torch.equal(found.values, torch.tensor([[0.4, 0.3]]))
    assert torch.equal(found.updates, torch.tensor([[3, 6]]))


def test_bytes_do_not_drift() -> None:
    stored = torch.arange(256, dtype=torch.uint8)
    for _ in range(3):
        assert torch.equal(acc.to_bytes(acc.from_bytes(stored)), stored)
        stored = acc.to_bytes(acc.from_bytes(stored))
    assert acc.to_bytes(torch.tensor([0.0, 1.0])).tolist() == [0, 255]


def by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    logits = torch.tensor([0.8, 0.6, 0.3], dtype=torch.float64).logit().reshape(1, 1, 1, 3)
    return logits, target


def test_hybrid_loss_by_hand() -> None:
    logits, target = by_hand()
    assert float(acc.integral_loss(logits, target)) == pytest.approx(0.595953, abs=1e-6)
    assert float(acc.integral_loss(logits[..., :2], target[..., :2])) == pytest.approx(0.239278, abs=1e-6)
    assert float(acc.integral_loss(logits[..., 2:], target[..., 2:])) == pytest.approx(0.356675, abs=1e-6)


def test_each_image_has_its_own_sets() -> None:
    logits, target = by_hand()
    empty = torch.zeros_like(target)
    both = acc.integral_loss(torch.cat([logits, logits]), torch.cat([target, empty]))
    alone = acc.integral_loss(logits, target) + acc.integral_loss(logits, empty)
    torch.testing.assert_close(both, alone / 2)


def test_positions_that_do_not_count_belong_to_no_set() -> None:
    logits, target = by_hand()
    more, outside = torch.cat([logits, logits + 3], -1), torch.cat([target, target.flip(-1)], -1)
    counted = torch.tensor([True] * 3 + [False] * 3).reshape(1, 1, 1, 6)
    torch.testing.assert_close(acc.integral_loss(more, outside, counted), acc.integral_loss(logits, target))
    nothing = acc.integral_loss(logits, target, torch.zeros_like(target, dtype=torch.bool))
    assert float(nothing) == 0.0


@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_one_empty_set_stays_finite_at_extreme_logits(fill: float) -> None:
    logits = torch.tensor([-2e4, 2e4, 0.0]).reshape(1, 1, 1, 3).requires_grad_()
    loss = acc.integral_loss(logits, torch.full((1, 1, 1, 3), fill))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_optimum_inside_is_one_not_the_target() -> None:
    logits = torch.zeros(1, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    acc.integral_loss(logits, torch.tensor([0.1, 1.0]).double().reshape(1, 1, 1, 2)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad < 0).all()
    at_target = torch.tensor([0.1], dtype=torch.float64).logit().reshape(1, 1, 1, 1).requires_grad_()
    acc.integral_loss(at_target, torch.full((1, 1, 1, 1), 0.1).double()).backward()  # type: ignore[no-untyped-call]
    assert at_target.grad is not None
    assert float(at_target.grad) < 0

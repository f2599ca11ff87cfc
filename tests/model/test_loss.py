"""The loss in pieces equals the loss at once."""

import pytest
import torch
import torch.nn.functional as F

from miniflamingo.model import loss as pieces_of_loss
from miniflamingo.model.loss import Labelled, summed_loss, token_losses


@pytest.fixture
def work():
    """Seven positions and eleven words, in double precision; the last two words are new."""
    torch.manual_seed(0)
    head = torch.randn(9, 4).double()
    hidden = torch.randn(7, 4).double().requires_grad_()
    rows = torch.randn(2, 4).double().requires_grad_()

    def project(hidden, rows):
        return 3 * torch.tanh(torch.cat([hidden @ head.T, hidden @ rows.T], dim=-1) / 3)

    return project, Labelled(hidden, rows, torch.tensor([0, 10, 9, 3, 3, 10, 8]), 11)


@pytest.mark.parametrize("at_once", [1, 22, 50, 2**24])  # rows of 1, 2, 4 and all
def test_pieces_change_nothing(work, at_once, monkeypatch):
    monkeypatch.setitem(pieces_of_loss.LOGITS_AT_ONCE, "cpu", at_once)
    project, read = work
    expected = F.cross_entropy(project(read.hidden, read.rows), read.labels, reduction="none")
    (0.25 * expected.sum()).backward()
    gradients = [read.hidden.grad.clone(), read.rows.grad.clone()]
    read.hidden.grad = read.rows.grad = None

    torch.testing.assert_close(token_losses(project, read).double(), expected, rtol=1e-6, atol=0)
    total = summed_loss(project, read)
    torch.testing.assert_close(total.double(), expected.sum(), rtol=1e-6, atol=0)
    (0.25 * total).backward()
    # Logits are taken to fp32 on the way.
    torch.testing.assert_close(read.hidden.grad, gradients[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(read.rows.grad, gradients[1], rtol=1e-5, atol=1e-6)


def test_without_a_graph_the_sum_is_the_same(work):
    project, read = work
    with torch.no_grad():
        plain = summed_loss(project, read)
    assert not plain.requires_grad
    torch.testing.assert_close(plain, summed_loss(project, read).detach())


def test_nothing_to_predict(work):
    project, read = work
    nothing = Labelled(read.hidden[:0], read.rows, read.labels[:0], 11)
    total = summed_loss(project, nothing)
    total.backward()
    assert total == 0
    assert not read.rows.grad.any()
    assert token_losses(project, nothing).shape == (0,)


def test_logits_are_never_kept(work):
    project, read = work
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    hidden, rows = read.hidden.detach().requires_grad_(), read.rows.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = summed_loss(project, Labelled(hidden, rows, read.labels, 11))
    assert total.requires_grad
    assert max(kept[-2:]) <= hidden.numel()  # what outlives the call

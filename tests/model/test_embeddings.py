"""Rows of the two new tokens beside the frozen table, by hand."""

import pytest
import torch
from torch import nn

from miniflamingo.model.embeddings import TokenRows
from miniflamingo.tokens import MediaTokens


def make_rows(image, end):
    rows = TokenRows(2, MediaTokens(image, end))
    rows.input_rows.data = torch.tensor([[10.0, 11.0], [20.0, 21.0]])
    rows.output_rows.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return rows


@pytest.mark.parametrize(("image", "end"), [(3, 4), (9, 7), (1, 0)])  # behind, far behind, inside
def test_new_tokens_have_rows_of_their_own(image, end):
    table = nn.Embedding.from_pretrained(torch.tensor([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]))
    embedded = make_rows(image, end).embed(torch.tensor([[2, image, end]]), table)
    assert embedded.tolist() == [[[2.0, 2.5], [10.0, 11.0], [20.0, 21.0]]]


def test_logits_stand_where_the_ids_are():
    hidden, known = torch.tensor([[5.0, 6.0]]), torch.tensor([[0.1, 0.2, 0.3]])
    inf = float("inf")
    cases = {
        (3, 4): [0.1, 0.2, 0.3, 5.0, 6.0],
        (6, 4): [0.1, 0.2, 0.3, -inf, 6.0, -inf, 5.0],  # ids that no token has cannot be written
        (1, 0): [6.0, 5.0, 0.3],  # a vocabulary that has room for them already
    }
    for (image, end), expected in cases.items():
        rows = make_rows(image, end)
        logits = rows.place(known.clone(), hidden @ rows.output_rows.T)
        torch.testing.assert_close(logits, torch.tensor([expected]))


def test_new_rows_start_from_what_the_language_model_knows():
    rows = make_rows(3, 4)
    table = torch.tensor([[0.0, 2.0], [2.0, 4.0], [4.0, 9.0]], dtype=torch.bfloat16)
    rows.start_from(table, table + 1, end_token=1)
    assert rows.input_rows.tolist() == [[2.0, 5.0], [2.0, 4.0]]
    assert rows.output_rows.tolist() == [[3.0, 6.0], [3.0, 5.0]]


def test_a_fresh_model_starts_so(build):
    model = build()
    table = model.get_input_embeddings().weight
    end = model.language.config.eos_token_id
    torch.testing.assert_close(model.token_rows.input_rows[0], table.mean(0))
    assert torch.equal(model.token_rows.input_rows[1], table[end])
    assert torch.equal(model.token_rows.output_rows[1], table[end])  # the head is tied

"""A packed row against the models' own padded forward: the slow twin of both functions that know of segments."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, OPTConfig, OPTModel, PreTrainedModel

from cpadapt.bank import packing
from cpadapt.bank.packing import Components, RowCapacity, Segments, adapter_product, pack


def opt() -> PreTrainedModel:
    return OPTModel(
        OPTConfig(
            vocab_size=99, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, word_embed_proj_dim=32,
        )
    )  # fmt: skip


def llama() -> PreTrainedModel:
    return LlamaModel(
        LlamaConfig(
            vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64,
        )
    )  # fmt: skip


def bert() -> PreTrainedModel:
    return BertModel(
        BertConfig(
            vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64,
        ),
        add_pooling_layer=False,
    )  # fmt: skip


LENGTHS = [5, 1, 17, 3, 9, 9, 2, 30]


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    return rng.integers(3, 99, offsets[-1]), rng.integers(0, 2, offsets[-1]), offsets


# BERT numbers the positions of a left-padded row from the padding on, so it has no twin there.
@pytest.mark.parametrize(
    ("build", "side"), [(opt, "right"), (opt, "left"), (llama, "right"), (llama, "left"), (bert, "right")]
)
def test_packed_equals_the_padded_forward(
    build: Callable[[], PreTrainedModel], side: str, examples: tuple[np.ndarray, ...]
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    tokens, types, offsets = examples
    if build is not bert:
        types = None
    row = pack(tokens, types, offsets, np.arange(len(LENGTHS))[None], torch.device("cpu"))

    longest = max(LENGTHS)
    ids, mask, kinds = (torch.zeros(len(LENGTHS), longest, dtype=torch.long) for _ in range(3))
    for i, length in enumerate(LENGTHS):
        at = slice(0, length) if side == "right" else slice(longest - length, longest)
        ids[i, at] = torch.from_numpy(tokens[offsets[i] : offsets[i + 1]])
        kinds[i, at] = torch.from_numpy(examples[1][offsets[i] : offsets[i + 1]])
        mask[i, at] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if types is not None:
        inputs["token_type_ids"] = kinds
    if build is llama:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        padded = model(**inputs).last_hidden_state[mask.bool()]
        model.set_attn_implementation(packing.ATTENTION)
        packed = model(**row.inputs).last_hidden_state[0]
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=0)


def test_rows_know_their_runs_and_examples(examples: tuple[np.ndarray, ...]) -> None:
    tokens, _, offsets = examples
    chosen = np.array([[2, 0], [7, 2], [1, 1]])
    row = pack(tokens, None, offsets, chosen, torch.device("cpu"))
    assert row.token_types is None
    assert row.segments.run_ends == (22, 69, 71)
    assert row.segments.run_offsets.tolist() == [0, 22, 69, 71]
    assert row.segments.lengths.tolist() == [17, 5, 30, 17, 1, 1]
    assert row.segments.longest == 30
    expected = np.concatenate([tokens[offsets[i] : offsets[i + 1]] for i in chosen.ravel()])
    assert row.tokens[0].tolist() == expected.tolist()
    assert row.positions[0, :22].tolist() == [*range(17), *range(5)]


def test_budgets_are_near_and_their_filling_fits() -> None:
    for tokens in (*range(1, 9000, 7), *range(9000, 200_000, 911)):
        for longest in (1, 9, 66, 300, 5000):
            capacity = RowCapacity.for_tokens(tokens, longest)
            assert tokens <= capacity.tokens < tokens + max(128, tokens / 16)
            assert (capacity.tokens - tokens) <= capacity.fillers * longest


def test_rows_of_one_budget_have_one_shape() -> None:
    """Also where the distance between capacities doubles: a recorded row has to take the next one in."""
    capacities = {RowCapacity.for_tokens(tokens, 66) for tokens in range(1, 20_000)}
    assert len({capacity.tokens for capacity in capacities}) == len(capacities)


def test_attention_refuses_what_it_cannot_do() -> None:
    states = torch.randn(1, 2, 5, 4)
    module = torch.nn.Module()
    with pytest.raises(ValueError, match="segments"):
        packing.packed_attention(module, states, states, states, None)
    segments = Segments(torch.tensor([0, 5], dtype=torch.int32), torch.tensor([0, 5], dtype=torch.int32), (5,), 5, 1)
    with pytest.raises(ValueError, match=r"0\.1"):
        packing.packed_attention(module, states, states, states, None, segments=segments, dropout=0.1)


def test_adapter_product_gives_each_run_its_own_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = (4, 4, 11, 15)  # the second run has no tokens in this row
    offsets = torch.tensor([0, *ends], dtype=torch.int32)
    components = Components.of([2, 3, 1, 0], torch.device("cpu"), most=5)  # the last is the head alone
    assert (components.offsets.tolist(), components.host_offsets) == ([0, 2, 5, 6, 6], (0, 2, 5, 6, 6))
    assert components.room.shape[1] >= 5
    x = torch.randn(15, 6, generator=generator)
    up = torch.randn(6, 10, generator=generator)
    down = torch.randn(6, 6, generator=generator)
    got = adapter_product(x, up, down, Segments(offsets, offsets, ends, 7, 4), components)
    expected = [x[:4] @ (up[:2].T @ down[:2]).T, x[4:11] @ (up[5:].T @ down[5:]).T, torch.zeros(4, 10)]
    torch.testing.assert_close(got, torch.cat(expected))

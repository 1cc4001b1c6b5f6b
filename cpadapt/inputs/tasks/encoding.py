"""From texts to tokens."""

import dataclasses
import string
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from cpadapt.errors import InputError
from cpadapt.inputs.tasks.examples import Examples, IntArray
from cpadapt.inputs.tasks.specs import TaskSpec


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as tokens, end to end: those of example k are `tokens[offsets[k] : offsets[k + 1]]`."""

    tokens: IntArray
    """`[total tokens]`"""

    offsets: IntArray
    """`[n + 1]`"""

    token_types: IntArray | None
    """`[total tokens]`, where the tokenizer makes them."""

    labels: IntArray
    """`[n]`: class indices."""

    rows: IntArray
    """`[n]`: row numbers in the source split."""

    def __len__(self) -> int:
        return len(self.rows)


def encode(
    examples: Examples,
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompted: bool,
    max_length: int,
    bos_token_id: int | None = None,
) -> Encoded:
    """Tokenize examples: a filled prompt each for decoders, a text or a pair of texts for encoders.

    An example longer than `max_length` loses tokens at the front of `spec.shortened_column`, and only there:
    a question, a hypothesis and the prompt's own words stay whole.

    Args:
        examples: what to tokenize; there may be none.
        spec: the task they belong to.
        tokenizer: a fast one; its special tokens are added as it adds them.
        prompted: fill the task's prompt, or put its texts on a line each if it has none; otherwise the texts go in
            as they are, two of them as a pair.
        max_length: the most tokens of an example, special ones included.
        bos_token_id: a token that must come first and is put there if the tokenizer did not (OPT's `</s>`).

    Raises:
        InputError: the tokenizer is a slow one; or an example is too long even with
            one token of the shortened column left.
    """
    if not tokenizer.is_fast:
        raise InputError(f"{type(tokenizer).__name__} is a slow tokenizer; cpadapt needs a fast one")
    # Spaces at a text's ends would become tokens of their own, SST-2's trailing ones among them.
    stripped = [tuple(text.strip() for text in texts) for texts in examples.texts]
    at = spec.text_columns.index(spec.shortened_column)
    if prompted:
        prompt = spec.prompt or "\n".join(f"{{{column}}}" for column in spec.text_columns)
        filled = [_fill(prompt, spec.text_columns, texts, at) for texts in stripped]
        inputs = [[text for text, _, _ in filled]]
    else:
        filled = None
        inputs = [list(column) for column in zip(*stripped, strict=True)]
    # verbose=False: that an example is longer than the model's limit is looked after below. A tokenizer takes no empty
    # list.
    encodings = tokenizer(*inputs, padding=False, truncation=False, verbose=False).encodings if stripped else []
    tokens, types = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for k, encoding in enumerate(encodings):
        ids = np.asarray(encoding.ids, np.int64)
        kinds = np.asarray(encoding.type_ids, np.int64)
        first = [] if bos_token_id is None or encoding.ids[:1] == [bos_token_id] else [bos_token_id]
        excess = len(first) + len(ids) - max_length
        if excess > 0:
            if filled is not None:
                losable = list(_inside(encoding.offsets, *filled[k]))
            else:
                losable = [t for t, sequence in enumerate(encoding.sequence_ids) if sequence == at]
            if excess >= len(losable):
                whole, spare = len(first) + len(ids), max(len(losable) - 1, 0)
                raise InputError(
                    f"row {examples.rows[k]} of the task {spec.name!r} takes {whole} tokens, of which"
                    f" {spec.shortened_column!r} can lose {spare}: a max_length of {max_length} is too small,"
                    f" {whole - spare} would do"
                )
            ids = np.delete(ids, losable[:excess])
            kinds = np.delete(kinds, losable[:excess])
        tokens.append(np.concatenate([np.asarray(first, np.int64), ids]))
        types.append(np.concatenate([np.zeros(len(first), np.int64), kinds]))
    return Encoded(
        tokens=np.concatenate(tokens),
        offsets=np.cumsum([len(each) for each in tokens], dtype=np.int64),
        token_types=np.concatenate(types) if "token_type_ids" in tokenizer.model_input_names else None,
        labels=examples.labels,
        rows=examples.rows,
    )


def label_tokens(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token with which each label word begins when it continues the prompt, `[labels]`.

    Raises:
        InputError: the task has no prompt or no label words; a word and the prompt's end make one token together; or
            two words begin with the same token.
    """
    if spec.prompt is None or spec.label_words is None:
        raise InputError(
            f"protocol.readout = 'verbalizer': the task {spec.name!r} needs a prompt and label_words; take 'head'"
        )
    before = spec.prompt.format(**dict.fromkeys(spec.text_columns, "it"))
    prompt = tokenizer(before, add_special_tokens=False).input_ids
    found: dict[int, str] = {}
    for word in spec.label_words:
        whole = tokenizer(before + word, add_special_tokens=False).input_ids
        token = whole[len(prompt)] if whole[: len(prompt)] == prompt and len(whole) > len(prompt) else None
        if token is None or token in found:
            reason = "is no token of its own after the prompt" if token is None else f"begins as {found[token]!r} does"
            raise InputError(
                f"protocol.readout = 'verbalizer': the label word {word!r} of the task {spec.name!r} {reason} in the"
                " backbone's tokenizer; take other label_words, or 'head'"
            )
        found[token] = word
    return list(found)


def _fill(prompt: str, columns: tuple[str, ...], texts: tuple[str, ...], marked: int) -> tuple[str, int, int]:
    """Fill a prompt; return it with the span of characters that column number `marked` takes in it."""
    filled, span = "", (0, 0)
    for literal, field, _, _ in string.Formatter().parse(prompt):
        filled += literal
        if field is not None:
            k = columns.index(field)
            if k == marked:
                span = (len(filled), len(filled) + len(texts[k]))
            filled += texts[k]
    return filled, *span


def _inside(offsets: Sequence[tuple[int, int]], text: str, start: int, end: int) -> range:
    """Positions of the tokens that lie in `text[start:end]`; special ones have no span and lie nowhere."""
    inside = []
    for position, (left, right) in enumerate(offsets):
        # A byte-level token may carry the space before its first word, which is the prompt's.
        while left < min(start, right) and text[left].isspace():
            left += 1
        if start <= left < right <= end:
            inside.append(position)
    # What lies between is inside too: byte-level tokenizers may trim a token of white space to an empty span.
    return range(inside[0], inside[-1] + 1) if inside else range(0)

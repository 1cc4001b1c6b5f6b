"""From texts to tokens."""

import dataclasses
import string
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from cpadapt.errors import InputError
from cpadapt.inputs.tasks.examples import Examples, IntArray
from cpadapt.inputs.tasks.specs import TaskSpec


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as tokens, one after another: example k has `tokens[offsets[k] : offsets[k + 1]]`."""

    tokens: IntArray
    """`[total tokens]`"""

    offsets: IntArray
    """`[n + 1]`"""

    token_types: IntArray | None
    """`[total tokens]`, if the tokenizer makes them."""

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
    """Tokenize examples: for decoders as a filled prompt each, for encoders as a text or a pair of texts.

    An example longer than `max_length` loses tokens at the front of `spec.shortened_column` and nowhere else: a
    question, a hypothesis and the words of the prompt stay whole.

    Args:
        examples: what to tokenize; may be empty.
        spec: the task of the examples.
        tokenizer: a fast tokenizer; it adds its special tokens.
        prompted: fill the task's prompt, or put each text on a line if the task has no prompt. Otherwise take the
            texts as they are, two of them as a pair.
        max_length: the most tokens of an example, special tokens included.
        bos_token_id: a token that must come first; added where the tokenizer does not (OPT's `</s>`).

    Raises:
        InputError: the tokenizer is slow; or an example is too long even with one token of the shortened column left.
    """
    if not tokenizer.is_fast:
        raise InputError(f"{type(tokenizer).__name__} is a slow tokenizer; cpadapt needs a fast one")
    # Spaces around a text would become tokens; SST-2's texts end in one.
    stripped = [tuple(text.strip() for text in texts) for texts in examples.texts]
    shortened = spec.text_columns.index(spec.shortened_column)
    prompts: list[_Prompt] | list[None] = [None] * len(stripped)
    if prompted:
        template = spec.prompt or "\n".join(f"{{{column}}}" for column in spec.text_columns)
        prompts = [_fill(template, spec.text_columns, texts, shortened) for texts in stripped]
        inputs = [[prompt.text for prompt in prompts]]
    else:
        inputs = [list(column) for column in zip(*stripped, strict=True)]
    # verbose=False: texts longer than the model's limit are shortened below. A tokenizer refuses an empty list.
    encodings = tokenizer(*inputs, padding=False, truncation=False, verbose=False).encodings if stripped else []
    # Ids and types of each example, `[2, tokens]`.
    encoded = [np.empty((2, 0), np.int64)]
    for row, encoding, prompt in zip(examples.rows, encodings, prompts, strict=True):
        example = np.array([encoding.ids, encoding.type_ids], np.int64)
        bos = [] if bos_token_id is None or encoding.ids[:1] == [bos_token_id] else [bos_token_id]
        length = len(bos) + len(encoding)
        if length > max_length:
            losable = _losable(encoding, shortened, prompt)
            # One token of the column must stay.
            spare = max(len(losable) - 1, 0)
            if length - max_length > spare:
                raise InputError(
                    f"row {row} of the task {spec.name!r} has {length} tokens, of which {spec.shortened_column!r} can"
                    f" lose {spare}: a max_length of {max_length} is too small; it must be at least {length - spare}"
                )
            example = np.delete(example, losable[: length - max_length], axis=1)
        if bos:
            example = np.insert(example, 0, [*bos, 0], axis=1)
        encoded.append(example)
    tokens, token_types = np.concatenate(encoded, axis=1)
    return Encoded(
        tokens=tokens,
        offsets=np.cumsum([example.shape[1] for example in encoded], dtype=np.int64),
        token_types=token_types if "token_type_ids" in tokenizer.model_input_names else None,
        labels=examples.labels,
        rows=examples.rows,
    )


def label_tokens(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`[labels]`: the first token of each label word, where the word continues the prompt.

    Raises:
        InputError: the task has no prompt or no label words; the tokenizer merges a word with the end of the prompt;
            or two words begin with the same token.
    """
    if spec.prompt is None or spec.label_words is None:
        raise InputError(
            f"protocol.readout = 'verbalizer': the task {spec.name!r} needs a prompt and label_words; use 'head'"
        )
    before = _fill(spec.prompt, spec.text_columns, ("it",) * len(spec.text_columns), 0).text
    prompt = tokenizer(before, add_special_tokens=False).input_ids
    word_by_token: dict[int, str] = {}
    for word in spec.label_words:
        whole = tokenizer(before + word, add_special_tokens=False).input_ids
        token = whole[len(prompt)] if whole[: len(prompt)] == prompt and len(whole) > len(prompt) else None
        if token is None or token in word_by_token:
            reason = (
                "is not a separate token after the prompt"
                if token is None
                else f"begins with the same token as {word_by_token[token]!r}"
            )
            raise InputError(
                f"protocol.readout = 'verbalizer': the label word {word!r} of the task {spec.name!r} {reason} in the"
                " backbone's tokenizer; use other label_words, or 'head'"
            )
        word_by_token[token] = word
    return list(word_by_token)


class _Prompt(NamedTuple):
    """A filled prompt and the characters in it that may be lost: `text[start:end]`."""

    text: str
    start: int
    end: int


def _fill(template: str, columns: tuple[str, ...], texts: tuple[str, ...], shortened: int) -> _Prompt:
    """Fill a prompt's template with the texts of an example. The text with index `shortened` may lose characters."""
    text, start, end = "", 0, 0
    for literal, field, _, _ in string.Formatter().parse(template):
        text += literal
        if field is not None:
            k = columns.index(field)
            if k == shortened:
                start, end = len(text), len(text) + len(texts[k])
            text += texts[k]
    return _Prompt(text, start, end)


def _losable(encoding: Encoding, shortened: int, prompt: _Prompt | None) -> list[int]:
    """The positions of the tokens that an example may lose, in order.

    Args:
        encoding: the tokens of the example.
        shortened: which of the tokenizer's input texts may lose tokens, if there is no prompt.
        prompt: the filled prompt, if there is one.
    """
    if prompt is None:
        return [position for position, text in enumerate(encoding.sequence_ids) if text == shortened]
    inside = []
    for position, (left, right) in enumerate(encoding.offsets):
        # A byte-level token may include the space before its word, and that space belongs to the prompt.
        while left < min(prompt.start, right) and prompt.text[left].isspace():
            left += 1
        # Special tokens have an empty span.
        if prompt.start <= left < right <= prompt.end:
            inside.append(position)
    # Tokens in between count too: a byte-level tokenizer may trim a token of white space to an empty span.
    return list(range(inside[0], inside[-1] + 1)) if inside else []

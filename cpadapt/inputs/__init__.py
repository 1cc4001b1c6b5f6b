"""The inputs of a run: backbones, tasks and generated text."""

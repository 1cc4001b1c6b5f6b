"""What is given: backbones, tasks and generated text."""

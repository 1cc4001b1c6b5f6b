"""cpadapt: finer parameter steps for low-rank PEFT."""

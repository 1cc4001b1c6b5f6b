import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.slow
def test_trainer_learns_and_its_checkpoint_loads(llama, tmp_path):
    """The label is whether the first token is above 25; the base model is random and stays as it is."""
    tokens = torch.randint(1, 50, (64, 6))
    rows = [{"input_ids": row, "labels": int(row[0] > 25)} for row in tokens]
    model = get_peft_model(llama.model(), llama.config(init="zero", modules_to_save=[llama.head]))
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    arguments = TrainingArguments(
        tmp_path,
        max_steps=60,
        per_device_train_batch_size=32,
        learning_rate=2e-2,
        logging_steps=10,
        save_steps=60,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    for name, before in frozen.items():
        assert torch.equal(model.get_parameter(name), before)
    loaded = PeftModel.from_pretrained(llama.model(), tmp_path / "checkpoint-60")
    assert torch.equal(llama.logits(loaded.eval()), llama.logits(model.eval()))

"""Other people's training loops on skipless models of Hugging Face's: Trainer, Fabric, with SOAP."""

import pytest
import torch
from reference.hf_models import FAMILIES

from skipless import SkiplessInit
from skipless.models import block_views, create_hf_model, initialize_, remove_skips_
from skipless.optim import SOAP, param_groups

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def _llama():
    family = FAMILIES["llama"]
    model = remove_skips_(family.build(dtype=torch.float32))
    return initialize_(model, SkiplessInit(0.0, 3.0), generator=torch.Generator().manual_seed(0)).train()


def _loss(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


def test_trainer_trains_with_soap_and_its_checkpoint_is_skipless(tmp_path):
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model, ids = _llama(), FAMILIES["llama"].inputs(count=16)
    before = _loss(model, ids)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=10, per_device_train_batch_size=2, use_cpu=True, report_to=[], save_steps=10,
        disable_tqdm=True, lr_scheduler_type="constant", logging_strategy="no",
    )  # fmt: skip
    optimizer = SOAP(param_groups(model, weight_decay=0.01), lr=3e-3, precondition_frequency=2)
    rows = [{"input_ids": row, "labels": row} for row in ids]
    trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None))
    trainer.train()
    assert _loss(model, ids) < before - 0.1
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-10")
    assert [view.skips for view in block_views(saved)] == [(), ()]
    assert _loss(saved, ids) == pytest.approx(_loss(model, ids), abs=1e-4)


def test_fabric_trains_with_soap():
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    ids = FAMILIES["llama"].inputs(count=16)
    model, optimizer = _llama(), None
    optimizer = SOAP(param_groups(model, weight_decay=0.01), lr=3e-3, precondition_frequency=2)
    before = _loss(model, ids)
    model, optimizer = fabric.setup(model, optimizer)
    for _ in range(10):
        optimizer.zero_grad()
        fabric.backward(model(input_ids=ids, labels=ids).loss)
        optimizer.step()
    assert _loss(model, ids) < before - 0.1


def test_groups_know_blocks_and_leave_gpt2s_columns_whole():
    for name in ("llama", "gpt2", "bert", "vit", "dinov2"):
        model = FAMILIES[name].build()
        groups = param_groups(model, weight_decay=0.1, block_lr=0.5)
        slow = {id(p) for group in groups if group.get("lr_scale") == 0.5 for p in group["params"]}
        assert slow == {id(p) for view in block_views(model) for p in view.block.parameters()}
        assert all(group["split"] == 1 for group in groups)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    embeddings = model.dinov2.embeddings
    assert not {id(embeddings.position_embeddings), id(embeddings.cls_token), id(embeddings.mask_token)} & decayed


def test_models_are_created_by_name_and_seed():
    sizes = {**FAMILIES["llama"].sizes}
    one, other = (create_hf_model("LlamaForCausalLM", init=SkiplessInit(0.0, 3.0), seed=4, **sizes) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert [view.skips for view in block_views(one)] == [(), ()]
    residual = create_hf_model("LlamaForCausalLM", skip=True, seed=4, **sizes)
    assert torch.equal(residual.model.embed_tokens.weight, one.model.embed_tokens.weight)


def test_names_and_fields_that_do_not_exist_are_refused():
    from skipless.errors import InputError

    with pytest.raises(InputError, match="transformers has no class 'Llama' of a model"):
        create_hf_model("Llama")
    with pytest.raises(InputError, match="LlamaConfig has no field 'hiden_size'; did you mean hidden_size"):
        create_hf_model("LlamaForCausalLM", hiden_size=8)


def test_a_recipe_names_an_image_classifier():
    from skipless.models.libraries import model_builder

    build = model_builder("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    options = {"skip": False, "init": SkiplessInit(), "positions": "kept", "seed": 0}
    model = build(
        "ViTForImageClassification", 8, 3, 5, **options, kwargs={**sizes, "patch_size": 4, "hidden_dropout_prob": 0.0}
    )
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert [view.skips for view in block_views(model)] == [(), ()]

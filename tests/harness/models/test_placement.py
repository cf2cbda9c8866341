"""A model whose weights are carried to the device module by module answers as one that lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import family_cases
import pytest
import torch
from attack_cases import lock_like_dlr, lock_like_specdef, random_gpt2, released
from cell_cases import QUICK
from classifier_cases import small_resnet, squares

from harness.cache import Cache
from harness.cell import run_cell
from harness.meters.memory import module_bytes, tensor_bytes
from harness.models.placement import Carrier, carrier_of, fits, on_device, place
from harness.progress import Progress
from harness.records.record import Record
from harness.spec import resolve
from harness.tasks.loglikelihood import continuation_logprobs, greedy_texts
from harness.testing import byte_tokenizer, random_llama
from harness.utility.lm_eval_bridge import run_tasks
from harness.utility.spec import UtilitySpec
from harness.workshop import Workshop

LOCKED = {"dlr": lambda: lock_like_dlr(random_llama()), "dlr_gpt2": lambda: lock_like_dlr(random_gpt2()),
          "specdef_reparam": lambda: lock_like_specdef(random_llama())}  # fmt: skip


def build(name: str) -> Any:
    return LOCKED[name]() if name in LOCKED else family_cases.build(name)


def places(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Which object each tensor is, and where its bytes lie."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors.items()}


def widest(model: torch.nn.Module) -> int:
    """The most bytes that a module has of its own, with those of the modules around it (some keep masks)."""
    own = {name: tensor_bytes([*module.parameters(recurse=False), *module.buffers(recurse=False)])
           for name, module in model.named_modules()}  # fmt: skip
    return max(sum(own[outer] for outer in own if f"{name}.".startswith(f"{outer}." if outer else "")) for name in own)


@pytest.mark.parametrize("name", [*family_cases.SHAPES, *LOCKED])
def test_the_same_logits_with_one_module_on_the_device_at_a_time(name: str) -> None:
    model, ids = build(name), torch.arange(24).reshape(2, 12)
    before, carrier = places(model), Carrier("cpu")
    with torch.inference_mode():
        lying = model(input_ids=ids).logits
        with carrier.carrying(model):
            carried = model(input_ids=ids).logits
        again = model(input_ids=ids).logits
    torch.testing.assert_close(carried, lying, rtol=1e-5, atol=1e-6)
    assert torch.equal(again, lying)
    assert places(model) == before
    assert carrier.most_bytes == widest(model) < module_bytes(model)


@pytest.mark.parametrize("name", ["llama", "dlr"])
def test_every_way_of_scoring_works_on_carried_weights(name: str) -> None:
    target = released(random_llama() if name == "llama" else build(name))
    spec = UtilitySpec(tasks=("minimal_pairs",), limit=4)

    def scored() -> list[Any]:
        pairs = continuation_logprobs(target, [("a b", " c"), ("the", " end of it")])
        items = run_tasks(target, spec, None)["minimal_pairs"].items
        return [*pairs, *(item.score for item in items), *greedy_texts(target, ["a b", "cd"], 4)]

    lying = scored()
    carrier = Carrier("cpu")
    with carrier.carrying(target.model):
        carried = scored()
    assert carrier.most_bytes > 0
    assert carried[2:] == lying[2:]
    assert carried[:2] == pytest.approx(lying[:2], rel=1e-5)


def test_a_head_that_is_lent_for_a_moment_is_carried_too() -> None:
    target, own = small_resnet(), squares(classes=(0, 1))
    examples = own.examples("test")[:6]
    lying, carrier = own.logits(target, examples), Carrier("cpu")
    fetched = []
    carrier._fetch = lambda module, args, fetch=carrier._fetch: (fetched.append(module), fetch(module, args))[1]  # type: ignore[method-assign, func-returns-value]
    with carrier.carrying(target.model):
        carried = own.logits(target, examples)
    assert torch.equal(carried, lying)
    assert any(isinstance(module, torch.nn.Linear) and module.out_features == 2 for module in fetched)


def test_a_forward_pass_that_fails_leaves_the_weights_where_they_were() -> None:
    model = random_llama()
    before, carrier = places(model), Carrier("cpu")
    with pytest.raises(IndexError), carrier.carrying(model):
        model(input_ids=torch.tensor([[10**6]]))
    assert places(model) == before
    assert carrier_of(model) is None
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_what_fits_is_moved_whole_and_host_memory_is_never_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_llama()
    assert fits(model, "cpu")
    assert place(model, "cpu") is model
    with on_device(model, "cpu"):
        assert carrier_of(model) is None
    monkeypatch.setattr("harness.models.placement.free_bytes", lambda device: module_bytes(model))
    assert not fits(model, "cuda")  # a forward pass needs room as well
    assert place(model, "cuda") is model
    monkeypatch.setattr("harness.models.placement.free_bytes", lambda device: 2 * module_bytes(model))
    assert fits(model, "cuda")


def test_a_whole_cell_on_carried_weights_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Utility, fidelity, the attacker's task and the points of the trajectory are all scored by carrying."""
    random_llama().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    spec = resolve({**QUICK, "model": {"name": str(tmp_path / "model")}, "defense": {"name": "specdef_reparam"}})

    def ran(folder: Path) -> Record:
        workshop = Workshop(cache=Cache(folder / "cache"), data_dir=None, progress=Progress(quiet=True))
        record = run_cell(spec, out=folder / "out", workshop=workshop)
        assert record.status == "complete", record.status_reason
        return record

    lying, carriers = ran(tmp_path / "lying"), []

    def carried(model: Any, device: str) -> Any:
        carriers.append(Carrier(device))
        return carriers[-1].carrying(model)

    monkeypatch.setattr("harness.models.placement.on_device", carried)
    other = ran(tmp_path / "carried")
    assert len(carriers) > 10
    assert all(carrier.most_bytes > 0 for carrier in carriers)
    assert other.provenance.weights == lying.provenance.weights
    assert [point.score for point in other.trajectory] == pytest.approx([point.score for point in lying.trajectory])
    assert other.recovery.value == pytest.approx(lying.recovery.value, rel=1e-4)


def test_batches_of_a_carried_model_are_those_of_the_device() -> None:
    """Each pass carries all weights: as many rows as the device takes must share it."""
    from harness.tasks.loglikelihood import LOGIT_ELEMENTS, logit_elements

    model, carrier = random_llama(), Carrier("cpu")
    with carrier.carrying(model):
        carrier.device = torch.device("cuda")
        assert logit_elements(model) == LOGIT_ELEMENTS["cuda"]
    assert logit_elements(model) == LOGIT_ELEMENTS["cpu"]

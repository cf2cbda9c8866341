"""SpecDef's pairs: they are the matrices they replace, at the precision of the release, or the lock refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses.specdef_reparam import SpecDefReparam, SpecDefReparamSettings
from defenses.specdef_reparam.lock import split
from harness.errors import Outcome, UsageError
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.models.families import linear_modules
from harness.models.load import load_model
from harness.models.save import save_released
from harness.plugins import LockContext, Released

IDS = torch.arange(40).view(2, 20)
SMALL: dict[str, Any] = {"k": 8, "count": 3, "heldout_tokens": 512}


def documents(split: str) -> list[str]:
    return ["the door of the old house is shut and the wind is blowing over the hill. " * 4] * 3


@pytest.fixture
def base() -> Released:
    """A random Llama that is sure of its predictions, so that a broken layer shows in them."""
    from harness.testing import byte_tokenizer, random_llama

    model = random_llama()
    model.lm_head.weight.data.mul_(20)
    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name="random_llama")


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., Any]:
    """Locks a base with settings; returns `Locked` and the meter."""

    def run(base: Released, seed: int = 0, **changes: Any) -> Any:
        meter = Meter()
        context = LockContext(seed=seed, device="cpu", folder=tmp_path, meter=meter, corpus=documents)
        with meter.stage("lock"):
            return SpecDefReparam(SpecDefReparamSettings(**(SMALL | changes))).lock(base, context), meter

    return run


@given(st.integers(2, 24), st.integers(2, 24), st.integers(1, 30), st.sampled_from([10.0, 1e4, 1e6]), st.integers(0, 9))
def test_the_product_is_the_matrix_and_only_the_top_is_inflated(
    outputs: int, inputs: int, k: int, alpha: float, seed: int
) -> None:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    inflated, compensation = split(weight, alpha, k)
    assert torch.allclose(compensation @ inflated, weight.double(), atol=1e-12 * alpha)
    before, after = (torch.linalg.svdvals(matrix) for matrix in (weight.double(), inflated))
    expected = torch.cat([before[:k] * alpha, before[k:]])
    assert torch.allclose(after, expected, rtol=1e-6, atol=1e-13 * alpha)
    shrunk = torch.linalg.svdvals(compensation)  # the identity but for k directions, also where out > in
    assert torch.allclose(shrunk[-min(k, outputs, inputs):], shrunk.new_tensor(1 / alpha), rtol=1e-6, atol=1e-14)
    assert torch.allclose(shrunk[: -min(k, outputs, inputs)], shrunk.new_tensor(1.0))


def test_the_function_stays_and_only_the_chosen_layers_change(base: Released, lock: Callable[..., Any]) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    logits = base.model(IDS).logits
    locked, meter = lock(base)
    report = json.loads(json.dumps(locked.report, allow_nan=False))
    assert report["heldout"]["kl"] < 1e-5
    assert report["heldout"]["dtype"] == "float32" == locked.dtype
    assert torch.allclose(locked.model(IDS).logits, logits, atol=0.05)
    assert not torch.equal(locked.model(IDS).logits, logits)
    layers = list(report["layers"])
    assert len(layers) == 3
    after = locked.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.removesuffix(".weight")
               not in layers)  # fmt: skip
    for name in layers:
        pair = [f"{name}.inflated", f"{name}.compensation"]
        assert [found for found in linear_modules(locked.model) if found.startswith(name)] == pair
        assert float(torch.linalg.matrix_norm(after[f"{pair[0]}.weight"], 2)) == pytest.approx(
            1e4 * float(torch.linalg.matrix_norm(before[f"{name}.weight"], 2)), rel=1e-3)  # fmt: skip
    grown = sum(shape[0] ** 2 for shape in (layer["shape"] for layer in report["layers"].values()))
    assert report["parameters"][1] - report["parameters"][0] == grown
    assert type(locked.model).__name__ == "SpecDefLlamaForCausalLM"
    assert meter.bills["lock"].forward_flops > 0
    assert meter.bills["lock"].steps == 0


def test_half_precision_is_refused_with_the_reason(base: Released, lock: Callable[..., Any]) -> None:
    with pytest.raises(Outcome, match=r"alpha=1000 does not keep the function in bfloat16: KL\(base, locked\) is .*"
                                      r"defense.max_kl is 0.01.*defense.dtype=float32"):  # fmt: skip
        lock(base, alpha=1e3, dtype="bfloat16", layers="all")


def test_float32_has_a_limit_too_and_overflow_is_refused(base: Released, lock: Callable[..., Any]) -> None:
    import copy

    for changes in ({"alpha": 1e8}, {"alpha": 1e7, "dtype": "float16"}):
        with pytest.raises(Outcome, match="does not keep the function"):
            lock(Released(model=copy.deepcopy(base.model), tokenizer=base.tokenizer, digest="", name="copy"), **changes)


def test_a_mild_lock_is_released_in_half_precision(base: Released, lock: Callable[..., Any]) -> None:
    locked, _ = lock(base, alpha=2.0, dtype="bfloat16")
    assert {parameter.dtype for parameter in locked.model.parameters()} == {torch.bfloat16}
    assert locked.report["heldout"]["dtype"] == locked.dtype == "bfloat16"


def test_layers_by_chance_by_name_and_all(lock: Callable[..., Any], base: Released) -> None:
    from harness.testing import byte_tokenizer, random_llama

    def chosen(seed: int = 0, **changes: Any) -> list[str]:
        fresh = Released(model=random_llama(), tokenizer=byte_tokenizer(), digest="", name="fresh")
        return list(lock(fresh, seed, **changes)[0].report["layers"])

    assert chosen(3) == chosen(3) != chosen(4)
    assert chosen(layers=("up_proj",)) == [f"model.layers.{index}.mlp.up_proj" for index in (0, 1)]
    assert chosen(layers=r".*layers\.1\..*q_proj") == ["model.layers.1.self_attn.q_proj"]
    assert chosen(layers="all") == list(linear_modules(base.model))
    with pytest.raises(UsageError, match="no linear layer is called 'gate'"):
        chosen(layers=("gate",))
    with pytest.raises(UsageError, match=r"defense.count=99: the model has 14 linear layers"):
        chosen(count=99)


def test_impossible_settings_are_refused() -> None:
    for values in ({"alpha": 1}, {"k": 0}, {"count": 0}, {"dtype": "int8"}, {"max_kl": 0}, {"nonsense": 1}):
        with pytest.raises(UsageError):
            SpecDefReparamSettings.parse(values, "defense")


def test_biases_and_transposed_matrices(lock: Callable[..., Any]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from harness.testing import byte_tokenizer

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0,
                                       eos_token_id=0)).eval()  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    logits = model(IDS).logits
    fresh = Released(model=model, tokenizer=byte_tokenizer(), digest="", name="gpt2")
    locked, _ = lock(fresh, layers="all", k=25)
    assert torch.allclose(locked.model(IDS).logits, logits, atol=0.05)


def exported(base: Released, locked: Any, folder: Path) -> str:
    defense = SpecDefReparam(SpecDefReparamSettings(**SMALL))
    return save_released(locked.model, base.tokenizer, folder, dtype=locked.dtype, base_name=base.name,
                         base_digest=base.digest, defense=defense,
                         lock={"defense": "specdef_reparam", "settings": defense.settings.model_dump(mode="json")},
                         )  # fmt: skip


def test_the_folder_loads_the_same_with_and_without_our_code(
    base: Released, lock: Callable[..., Any], tmp_path: Path, remote_code: None
) -> None:
    from transformers import AutoModelForCausalLM

    locked, _ = lock(base)
    folder = tmp_path / "release"
    digest = exported(base, locked, folder)
    logits = locked.model(IDS).logits
    ours = load_model(str(folder))
    assert ours.digest == digest == weights_digest(locked.model)
    assert torch.equal(ours.model(IDS).logits, logits)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    assert torch.equal(theirs(IDS).logits, logits)
    assert not any("harness" in line for path in folder.glob("*.py") for line in path.read_text().splitlines()
                   if "import " in line)  # fmt: skip
    card = (folder / "README.md").read_text()
    for words in ("random_llama", base.digest, "reconstruction", "2602.18868", '"alpha": 10000.0', "Known breaks"):
        assert words in card


@pytest.mark.parametrize("layers", [None, ["model.layers.7.mlp.up_proj"], ["model.norm"], 3])
def test_a_folder_that_names_other_layers_is_refused(
    base: Released, lock: Callable[..., Any], tmp_path: Path, layers: Any
) -> None:
    locked, _ = lock(base)
    exported(base, locked, tmp_path / "release")
    path = tmp_path / "release" / "config.json"
    config = json.loads(path.read_text())
    config["specdef_reparam"] = None if layers is None else {"layers": layers}
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="specdef_reparam does not name linear layers"):
        load_model(str(tmp_path / "release"))

"""Every precision trains alike; so do compiled layers."""

import shutil

import lightning as L
import pytest
import ranks
import torch
from lightning.pytorch.plugins import MixedPrecision

from miniflamingo.training.sharding import ShardedStrategy


class Seen(L.Callback):
    """Dtypes of what a step reads and gives."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.read = {
            (name, getattr(part, name).dtype)
            for part in batch.values()
            for name in ("input_ids", "position_ids", "labels")
        }

    def on_before_backward(self, trainer, pl_module, loss):
        self.loss = loss.dtype
        self.moments = set()

    def on_train_batch_end(self, trainer, pl_module, *_):
        (optimizer,) = trainer.optimizers
        self.moments = {state["exp_avg"].dtype for state in optimizer.state.values()}


def curve(seen):
    return torch.tensor([step["train/loss/documents"] for step in seen["steps"]])


@pytest.fixture(scope="module")
def models(language_folder, clip_folder):
    return {"language": str(language_folder), "clip": str(clip_folder), "steps": 6}


@pytest.fixture(scope="module")
def expected(models, tmp_path_factory):
    return curve(ranks.run(tmp_path_factory.mktemp("whole"), **models))


def half(scale: float) -> MixedPrecision:
    """16-mixed, which Lightning's trainer itself only lets a GPU have."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize(
    ("settings", "moments", "tolerance"),
    [
        ({"precision": "bf16-mixed"}, torch.float32, 0.03),
        ({"precision": "bf16-true"}, torch.bfloat16, 0.1),
        ({"precision": None, "plugins": [half(2.0**10)]}, torch.float32, 0.03),
        ({"language_dtype": "bfloat16"}, torch.float32, 0.03),
    ],
    ids=["bf16-mixed", "bf16-true", "16-mixed", "frozen-bf16"],
)
def test_lower_precision_trains_alike(models, expected, tmp_path, settings, moments, tolerance):
    seen = Seen()
    losses = curve(ranks.run(tmp_path, **models, **settings, callbacks=[seen]))
    assert {dtype for _, dtype in seen.read} == {torch.int64}
    assert seen.loss == torch.float32
    assert seen.moments == {moments}
    torch.testing.assert_close(losses, expected, rtol=tolerance, atol=0)
    assert not torch.equal(losses, expected)


def test_a_step_whose_scaled_gradients_overflow_changes_nothing(models, tmp_path):
    ranks.run(tmp_path, **models | {"steps": 1}, precision=None, plugins=[half(2.0**120)])
    module = ranks.make_module(models["language"], models["clip"])
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, value in module.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][name], value), name


def test_sharded_gradients_are_not_scaled():
    strategy = ShardedStrategy()
    strategy.precision_plugin = half(1.0)
    with pytest.raises(ValueError, match="does not scale gradients"):
        strategy.setup_environment()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_compiled_layers_have_the_same_losses(models, expected, tmp_path, checkpoint_activations):
    losses = curve(
        ranks.run(
            tmp_path,
            **models,
            compile_layers=True,
            checkpoint_activations=checkpoint_activations,
        )
    )
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)

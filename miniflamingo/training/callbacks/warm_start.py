"""Warm start of the resampler: before the language model is involved, learn to say what is there.

At the very start the learned latents get almost no useful gradient: the gated layers do not look
at them until they say something. So, as an optional stage before training, the resampler alone
learns to name the rarer words of each picture's caption. It trains nothing that Flamingo does not
train, and its head is thrown away.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from miniflamingo.batch import IGNORE
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.errors import UserError
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gather import load_whole_state, whole_state
from miniflamingo.model.resamplers import Resampler, build_resampler

log = logging.getLogger(__name__)


def words_of(caption: str) -> set[str]:
    """The different words of a caption, lower case."""
    return set(re.findall(r"\w+", caption.lower()))


def telling_words(captions: Sequence[str], most: float, least: int) -> list[str]:
    """Words that tell pictures apart: in fewer than a share of captions, but more than a few.

    Args:
        captions: One for each picture.
        most: Largest share of captions with the word.
        least: Fewest captions with it.
    """
    counts = Counter(word for caption in captions for word in words_of(caption))
    return sorted(w for w, n in counts.items() if least <= n < most * len(captions))


def name_targets(captions: Sequence[str], words: Sequence[str]) -> Tensor:
    """(pictures, words), each row a distribution over the words of its caption, or all zero."""
    places = {word: i for i, word in enumerate(words)}
    targets = torch.zeros(len(captions), len(words))
    for row, caption in enumerate(captions):
        for word in words_of(caption) & places.keys():
            targets[row, places[word]] = 1.0
    return targets / targets.sum(-1, keepdim=True).clamp_min(1.0)


def word_logits(resampler: Resampler, head: nn.Linear, patches: Tensor) -> Tensor:
    """(N, F, V, E) patches -> (N, words), each word by the token that says it loudest."""
    return head(resampler(patches)).amax(1)


@torch.no_grad()
def recall_of_words(logits: Tensor, targets: Tensor) -> float:
    """Share of a caption's telling words among as many best guesses, averaged over captions."""
    shares = []
    for row, target in zip(logits, targets, strict=True):
        wanted = target.nonzero().flatten()
        if len(wanted):
            guessed = row.topk(len(wanted)).indices
            shares.append(torch.isin(guessed, wanted).float().mean())
    return float(torch.stack(shares).mean()) if shares else 0.0


def whole_resampler(model: MiniFlamingo) -> Resampler:
    """A copy of the model's resampler, whole where the model is sharded."""
    like = model.resampler
    with torch.random.fork_rng(devices=[]):
        copy = build_resampler(model.config.resampler, like.patch_width)
    copy.load_state_dict(whole_state(like))
    known = next(like.parameters())
    return copy.to(known.device, known.dtype)


class ResamplerWarmStart(L.Callback):
    """Teach the resampler to name what is in a picture, once, before the first training step.

    A run that resumes does not repeat it.
    """

    def __init__(
        self,
        source: str,
        pictures: int = 2500,
        steps: int = 350,
        batch_size: int = 32,
        lr: float = 1e-3,
        most: float = 0.2,
        least: int = 5,
        seed: int = 0,
    ) -> None:
        """Describe the stage.

        Args:
            source: Which training source to take pairs from.
            pictures: How many of its pictures; a tenth of them is held out to measure.
            steps: Optimiser steps.
            batch_size: Pictures a step.
            lr: Peak learning rate, reached after 50 steps and followed by a cosine.
            most: Largest share of captions that a word to be named stands in.
            least: Fewest captions that it stands in.
            seed: Of head and order.
        """
        self.source = source
        self.pictures = pictures
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.most = most
        self.least = least
        self.seed = seed

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Run the stage, unless the run resumes from a checkpoint."""
        if trainer.ckpt_path is not None:
            return
        model, data = pl_module.model, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(model, MiniFlamingo)
        assert isinstance(data, InterleavedData)
        if self.source not in data.sources:
            raise UserError(
                f"the warm start asks for the source {self.source!r} but data.sources has "
                f"{sorted(data.sources)}."
            )
        patches, captions = self.collect(model, data, pl_module.device)
        resampler = whole_resampler(model)
        recall = self.teach(resampler, patches, captions)
        log.info("warm start: the resampler names %.1f%% of held-out telling words", 100 * recall)
        for logger in trainer.loggers:
            logger.log_metrics({"warm_start/recall": recall}, step=0)
        # Every rank did the same; rounding may still differ between devices.
        load_whole_state(model.resampler, trainer.strategy.broadcast(resampler.state_dict()))

    @torch.no_grad()
    def collect(
        self, model: MiniFlamingo, data: InterleavedData, device: torch.device
    ) -> tuple[Tensor, list[str]]:
        """Encode the first pictures of the source once.

        Returns:
            (pictures, F, V, E) patches in half precision, and their captions.
        """
        patches: list[Tensor] = []
        captions: list[str] = []
        title = "warm start: pictures"
        with tqdm(total=self.pictures, desc=title, leave=False, mininterval=1) as bar:
            for batch in data.source_loader(self.source):
                if batch.num_media != len(batch.keys):
                    raise UserError(
                        f"the warm start needs pairs of one picture and its caption, but "
                        f"{len(batch.keys)} samples of the source {self.source!r} hold "
                        f"{batch.num_media} pictures. Name a source of pairs."
                    )
                media = batch.media._replace(values=batch.media.values.to(device))
                features = model.encode(media).values.cpu().to(torch.bfloat16)
                for row, one in zip(batch.labels, features, strict=True):
                    patches.append(one)
                    captions += data.processor.batch_decode(row[row != IGNORE][None])
                bar.update(len(features))
                if len(patches) >= self.pictures:
                    break
        return torch.stack(patches), captions

    def teach(self, resampler: Resampler, patches: Tensor, captions: Sequence[str]) -> float:
        """Standardise the patches, then train resampler and a throw-away head.

        Args:
            resampler: Changed in place.
            patches: (pictures, F, V, E).
            captions: One for each picture.

        Returns:
            Recall of telling words on the held-out tenth.

        Raises:
            UserError: If the captions have no telling words.
        """
        device = resampler.patch_mean.device
        generator = torch.Generator().manual_seed(self.seed)
        resampler.standardise(patches)
        words = telling_words(captions, self.most, self.least)
        if not words:
            raise UserError(
                f"the warm start finds no telling words in {len(captions)} captions: none stands "
                f"in {self.least} of them or more and in less than a share of {self.most}. "
                "Change its `least` and `most`, or leave the stage out."
            )
        targets = name_targets(captions, words)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = nn.Linear(resampler.width, len(words)).to(device)
        optimizer = torch.optim.AdamW(
            [*resampler.parameters(), *head.parameters()], lr=self.lr, weight_decay=0.05
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, self.steps, pct_start=min(0.3, 50 / self.steps)
        )
        num_train = len(patches) - len(patches) // 10
        bar = tqdm(range(self.steps), desc="warm start: naming", leave=False, mininterval=1)
        for _ in bar:
            rows = torch.randint(num_train, (self.batch_size,), generator=generator)
            with torch.autocast(device.type, torch.bfloat16):
                logits = word_logits(resampler, head, patches[rows].to(device))
            loss = F.cross_entropy(logits.float(), targets[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(resampler.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            held_out = patches[num_train:].split(256)
            logits = torch.cat([word_logits(resampler, head, x.to(device)) for x in held_out])
        return recall_of_words(logits.float().cpu(), targets[num_train:])

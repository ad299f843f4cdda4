"""The loss of a batch: likelihood, divergence from the prior, alignment.

What differs from model to model is handed in: the network, its prior and PIA's alignment.
"""

import torch
from torch import Tensor

from coterie.config import TrainingConfig
from coterie.networks.alignment import Alignment
from coterie.networks.autoencoder import (
    Autoencoder,
    SparseLinear,
    VariationalAutoencoder,
    input_scale,
)
from coterie.networks.prior import Prior
from coterie.objectives.likelihood import LogitBuffer, multinomial_nll, sampled_nll
from coterie.objectives.masking import mask_items
from coterie.running.world import World
from coterie.sparse import SparseRows
from coterie.training.proposal import Proposal

# Logits of a batch, 1 GiB in float32, beyond which they are computed in chunks of items unless a
# chunk is asked for.
LOGITS_AT_ONCE = 2**28
CHUNK_ITEMS = 4096


class Likelihood:
    """The multinomial likelihood as a configuration wants it: whole, in chunks or from a sample.

    Args:
        training: Chunks, sample and sparse updates are read.
        proposal: What a sample is drawn from; None computes the soft-max over all items.
    """

    def __init__(self, training: TrainingConfig, proposal: Proposal | None) -> None:
        self._training, self._proposal, self._buffer = training, proposal, LogitBuffer()

    def nll(
        self, hidden: Tensor, layer: SparseLinear, rows: SparseRows, generator: torch.Generator
    ) -> Tensor:
        """``[n_users]``: that of ``rows`` from ``[n_users, dim]`` states before the last layer."""
        weight, bias = layer.weight, layer.bias
        if self._proposal is None:
            chunk_items = self._chunk_items(len(rows), len(weight))
            return multinomial_nll(hidden, weight, bias, rows, self._buffer, chunk_items)
        sample = self._proposal.draw(self._training.sampled_items, generator)
        sparse = self._training.sparse_updates
        return sampled_nll(hidden.float(), weight, bias, rows, *sample, sparse_gradient=sparse)

    def _chunk_items(self, n_users: int, n_items: int) -> int | None:
        too_many = n_users * n_items > LOGITS_AT_ONCE
        return self._training.chunk_items or (CHUNK_ITEMS if too_many else None)


class Objective:
    """The loss that a step goes down.

    Args:
        network: What learns.
        prior: What its posterior is held against; None for a network without a posterior.
        alignment: PIA, if it is on.
        likelihood: Of the histories.
        world: The processes that share a batch.
    """

    def __init__(
        self,
        network: Autoencoder,
        prior: Prior | None,
        alignment: Alignment | None,
        likelihood: Likelihood,
        world: World,
    ) -> None:
        self.network, self.prior, self.alignment = network, prior, alignment
        self.likelihood, self.world = likelihood, world

    def __call__(
        self, batch: SparseRows, keep_prob: float, generator: torch.Generator, n_steps: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's part of the loss and of its terms: sums over its users, over the number of
        users in the batch.

        Masks and noise are drawn for the whole batch by every process, so that they do not depend
        on how many there are.

        Args:
            batch: ``[n_users, n_items]`` clean histories, the whole batch.
            keep_prob: Of the masks.
            generator: Of masks, noise and sampled items.
            n_steps: Steps taken before, for what is scheduled.
        """
        kept = self.world.take(mask_items(batch, keep_prob, generator))
        rows = self.world.take(batch)
        scale = input_scale(rows.counts) / keep_prob
        if self.prior is None:
            nll = self._nll(self.network.point(kept, scale), rows, generator).sum() / len(batch)
            return nll, {"nll": nll.detach()}
        mu, logvar = (part.float() for part in self._variational.posterior(kept, scale))
        noise = torch.randn((len(batch), mu.shape[1]), generator=generator, device=generator.device)
        z = mu + (logvar / 2).exp() * noise[self.world.share(len(batch))]
        nll = self._nll(z, rows, generator).sum() / len(batch)
        kl = self.prior.divergence(self.network, z, mu, logvar, rows)
        loss = nll + (self.prior.weight(n_steps, rows) * kl).sum() / len(batch)
        terms = {"nll": nll.detach(), "kl": kl.detach().sum() / len(batch)}
        if self.alignment is not None:
            pia = self.alignment.loss(mu, logvar, rows).sum() / len(batch)
            loss = loss + self.alignment.weight(n_steps) * pia
            terms["pia"] = pia.detach()
        return loss, terms

    @property
    def _variational(self) -> VariationalAutoencoder:
        assert isinstance(self.network, VariationalAutoencoder), "a prior needs a posterior"
        return self.network

    def _nll(self, z: Tensor, rows: SparseRows, generator: torch.Generator) -> Tensor:
        network = self.network
        return self.likelihood.nll(network.decode_hidden(z), network.output, rows, generator)

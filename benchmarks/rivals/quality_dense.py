"""Mult-VAE as Liang et al. published it, in plain PyTorch: dense batches, nn.Linear, Adam.

Their weights (Glorot's), biases, and β, which rises by 1 / 200,000 a step up to 0.2.
"""

from collections.abc import Iterator

import numpy as np
import torch
from quality import Task, learn, read_task
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional
from worker import BATCH, BETA, DROPOUT, HIDDEN, LATENT, LEARNING_RATE

ANNEAL_STEPS = 200_000


class MultVAE(nn.Module):
    """I-600-200-600-I.

    Args:
        n_items: Size of the catalogue.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        into, out_of = nn.Linear(n_items, HIDDEN), nn.Linear(HIDDEN, 2 * LATENT)
        self.encoder = nn.Sequential(into, nn.Tanh(), out_of)
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, n_items)
        )
        for name, values in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(values)
            else:
                nn.init.trunc_normal_(values, std=1e-3, a=-2e-3, b=2e-3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, n_items]`` logits and ``[n]`` divergences; in training of a masked input and a
        drawn z.
        """
        x = functional.dropout(functional.normalize(x), DROPOUT, self.training)
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu) if self.training else mu
        return self.decoder(z), 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)


class Dense:
    """The learner.

    Args:
        task: What to learn.
    """

    def __init__(self, task: Task) -> None:
        self.histories = task.histories

    def epochs(self) -> Iterator[None]:
        """Trains, all users in each epoch, the last batch maybe smaller."""
        torch.manual_seed(0)
        n_users, n_items = self.histories.shape
        self.model = MultVAE(n_items)
        adam, n_steps = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE), 0
        while True:
            self.model.train()
            for users in torch.split(torch.randperm(n_users), BATCH):
                x = torch.from_numpy(self.histories[users.numpy()].toarray())
                logits, kl = self.model(x)
                nll = -(functional.log_softmax(logits, dim=1) * x).sum(1)
                adam.zero_grad()
                (nll + min(BETA, n_steps / ANNEAL_STEPS) * kl).mean().backward()
                adam.step()
                n_steps += 1
            yield

    def score(self, histories: csr_matrix) -> np.ndarray:
        """The logits."""
        self.model.eval()
        with torch.no_grad():
            logits: Tensor = self.model(torch.from_numpy(histories.toarray()))[0]
        return logits.numpy()


if __name__ == "__main__":
    task = read_task()
    learn(Dense(task), task, ("torch",))

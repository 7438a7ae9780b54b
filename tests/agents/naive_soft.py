"""SAC, DrQ and CURL once more, deliberately naive: weights by name, losses and Adam spelled out, view by view.

It shares no code with the package. Random numbers are arguments, so that a test can hand both the same.
"""

import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

PARTS = ("encoder", "actor", "critic", "temperature", "target_encoder", "target_critic", "similarity")


class NaiveAgent:
    """Starts from an agent's weights; `self.weights` holds what it makes of them."""

    def __init__(self, agent, settings):
        state = agent.state_dict()
        self.weights = {
            f"{part}.{name}": value.clone().requires_grad_()
            for part in PARTS
            if part in state
            for name, value in state[part].items()
        }
        self.settings = settings
        self.action_dim = agent.model.action_dim
        self.moments = {}

    def named(self, *prefixes):
        return [name for name in self.weights if name.startswith(prefixes) and ".norm." not in name]

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def encode(self, encoder, images, proprio=None):
        x = images.float() / 255
        for layer, stride in enumerate(self.settings.conv_strides):
            name = f"{encoder}.convolutions.{2 * layer}"
            x = F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride)
            x = torch.maximum(x, torch.zeros(()))
        x = x.permute(0, 2, 3, 1).reshape(len(images), -1)
        if proprio is None or proprio.shape[1] == 0:
            return x
        # slow or not, an encoder norms alike
        mean, variance = (self.weights[f"encoder.norm.{name}"].detach() for name in ("mean", "variance"))
        normed = (proprio - mean) / (variance + 1e-8).sqrt()
        return torch.cat([x, normed.sign() * (1 + normed.abs()).log()], dim=1)

    def trunk(self, network, features):
        seen = self.weights[f"{network}.trunk.0.weight"].shape[1]
        x = self.linear(f"{network}.trunk.0", features[:, :seen])
        spread = ((x - x.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True)
        x = (x - x.mean(1, keepdim=True)) / (spread + 1e-5).sqrt()
        x = x * self.weights[f"{network}.trunk.1.weight"] + self.weights[f"{network}.trunk.1.bias"]
        x = x.tanh() if self.settings.trunk_tanh else x
        return torch.cat([x, features[:, seen:]], dim=1)

    def mlp(self, name, x):
        for layer in (0, 2):
            x = torch.maximum(self.linear(f"{name}.{layer}", x), torch.zeros(()))
        return self.linear(f"{name}.4", x)

    def value_of(self, twin, critic, x):
        for layer in (0, 2, 4):
            name = f"{critic}.twins.{layer}"
            x = x @ self.weights[f"{name}.weight"][twin] + self.weights[f"{name}.bias"][twin, 0]
            x = x if layer == 4 else torch.maximum(x, torch.zeros(()))
        return x[:, 0]

    def policy(self, features, noise):
        """Return the action that this noise makes, and log π of it by torch's own distributions."""
        mean, raw = self.mlp("actor.policy", self.trunk("actor", features)).split(self.action_dim, dim=1)
        low, high = self.settings.log_std_min, self.settings.log_std_max
        std = torch.exp(low + (high - low) * (torch.tanh(raw) + 1) / 2)
        distribution = TransformedDistribution(Independent(Normal(mean, std), 1), TanhTransform(cache_size=1))
        before_tanh = mean + std * noise
        action = distribution.transforms[0](before_tanh)
        return action, distribution.log_prob(action)

    def min_q(self, critic, features, action):
        x = torch.cat([self.trunk(critic, features), action], dim=1)
        return torch.minimum(self.value_of(0, critic, x), self.value_of(1, critic, x))

    def temperature(self):
        return self.weights["temperature.log_value"].exp()

    def value(self, next_images, proprio, noise):
        action, log_prob = self.policy(self.encode("encoder", next_images, proprio), noise)
        q = self.min_q("target_critic", self.encode("target_encoder", next_images, proprio), action)
        return (q - self.temperature() * log_prob).detach()

    def adam(self, optimiser, names, gradients, learning_rate, beta1=0.9):
        for name, gradient in zip(names, gradients, strict=True):
            count, mean, square = self.moments.get((optimiser, name), (0, 0.0, 0.0))
            count += 1
            mean = beta1 * mean + (1 - beta1) * gradient
            square = 0.999 * square + 0.001 * gradient**2
            self.moments[optimiser, name] = (count, mean, square)
            step = (mean / (1 - beta1**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
            self.weights[name] = (self.weights[name] - learning_rate * step).detach().requires_grad_()

    def descend(self, optimiser, names, loss, learning_rate, beta1=0.9):
        gradients = torch.autograd.grad(loss, [self.weights[name] for name in names])
        self.adam(optimiser, names, gradients, learning_rate, beta1)

    def learn_critic(self, views, proprio, action, target):
        loss = 0.0
        for images in views:
            x = torch.cat([self.trunk("critic", self.encode("encoder", images, proprio)), action], dim=1)
            for twin in (0, 1):
                loss = loss + ((self.value_of(twin, "critic", x) - target) ** 2).mean()
        names = self.named("encoder.", "critic.")
        self.descend("critic", names, loss / len(views), self.settings.learning_rate)
        return loss.item() / len(views)

    def learn_actor(self, images, proprio, noise):
        features = self.encode("encoder", images, proprio).detach()
        action, log_prob = self.policy(features, noise)
        alpha = self.temperature().item()
        loss = (alpha * log_prob - self.min_q("critic", features, action)).mean()
        self.descend("actor", self.named("actor."), loss, self.settings.learning_rate)
        goal = -self.action_dim
        self.descend(
            "temperature",
            ["temperature.log_value"],
            (self.temperature() * (-log_prob.detach() - goal)).mean(),
            self.settings.temperature_learning_rate,
            self.settings.temperature_beta1,
        )
        return loss.item()

    def learn_contrast(self, anchors, positives):
        """Step the encoder by two optimisers, as the official code does."""
        z = self.trunk("critic", self.encode("encoder", anchors))
        keys = self.trunk("target_critic", self.encode("target_encoder", positives)).detach()
        loss = 0.0
        for i in range(len(z)):
            scores = torch.stack([z[i] @ self.weights["similarity.weight"] @ key for key in keys])
            loss = loss - (scores[i] - scores.logsumexp(0)) / len(z)
        encoding = self.named("encoder.", "critic.trunk.")
        names = [*encoding, "similarity.weight"]
        gradients = torch.autograd.grad(loss, [self.weights[name] for name in names])
        self.adam("encoder", encoding, gradients[:-1], self.settings.learning_rate)
        self.adam("contrast", names, gradients, self.settings.learning_rate)
        return loss.item()

    def follow(self):
        for name in self.named("target_"):
            source = self.weights[name.removeprefix("target_")]
            slow = name.startswith("target_critic.twins")
            tau = self.settings.critic_tau if slow else self.settings.encoder_tau
            self.weights[name] = ((1 - tau) * self.weights[name] + tau * source).detach()

    def update(self, views, next_views, batch, noises, actor_noise, *, delayed=True):
        """Learn from lists of views, each a batch of images that is already shifted or cropped."""
        sensed, next_sensed = batch.observation.proprio, batch.next_observation.proprio
        values = [
            self.value(images, next_sensed, noise) for images, noise in zip(next_views, noises, strict=True)
        ]
        target = batch.reward + batch.discount * sum(values) / len(values)
        losses = {"critic_loss": self.learn_critic(views, sensed, batch.action, target)}
        if delayed:
            losses["actor_loss"] = self.learn_actor(views[0], sensed, actor_noise)
            self.follow()
        return losses

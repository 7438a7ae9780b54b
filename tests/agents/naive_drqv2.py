"""DrQ-v2's update once more, as plainly as it can be written: the reference that `DrQV2` is held against.

Everything is float64 and spelled out: crops of edge-padded images, convolutions as loops over pixels, LayerNorm,
losses, Adam and the moving average by their formulas, three optimisers as in the official code. Features are
flattened channel by channel, as the official code does it, so the first layers behind them hold the agent's
weights in another order. Nothing is shared with the package but the weights and the random numbers.
"""

import numpy as np
import torch

STRIDES = (2, 1, 1, 1)


def regrouped(weight, filters, to_channels_first):
    """Reorder a layer's inputs between "pixel by pixel" (the agent's) and "channel by channel" (ours)."""
    outputs, inputs = weight.shape
    if to_channels_first:
        return weight.view(outputs, inputs // filters, filters).transpose(1, 2).reshape(outputs, inputs)
    return weight.view(outputs, filters, inputs // filters).transpose(1, 2).reshape(outputs, inputs)


def read_weights(network, filters):
    """Copy a network's weights as {name: float64 leaf tensor}."""
    weights = {}
    for name, value in network.state_dict().items():
        value = value.double()
        if name == "trunk.0.weight":
            value = regrouped(value, filters, to_channels_first=True)
        weights[name] = value.clone().contiguous().requires_grad_()
    return weights


def crop(images, offsets, pad):
    """Pad each image by repeating its edge, then cut out the window that is moved by (down, right) pixels."""
    _, _, height, width = images.shape
    crops = []
    for image, (down, right) in zip(images.numpy(), offsets.tolist(), strict=True):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        crops.append(padded[:, pad + down : pad + down + height, pad + right : pad + right + width])
    return torch.from_numpy(np.stack(crops)).double()


def encode(w, images, proprio, norm=(0.0, 1.0)):
    """Convolve (batch, channels, height, width) images in 0..255; proprioception, normed, stands behind them."""
    x = images / 255 - 0.5
    for layer, stride in enumerate(STRIDES):
        weight, bias = w[f"convolutions.{2 * layer}.weight"], w[f"convolutions.{2 * layer}.bias"]
        height, width = (x.shape[2] - 3) // stride + 1, (x.shape[3] - 3) // stride + 1
        rows = []
        for i in range(height):
            row = []
            for j in range(width):
                patch = x[:, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
                row.append(patch.flatten(1) @ weight.flatten(1).T + bias)
            rows.append(torch.stack(row, dim=2))
        x = torch.stack(rows, dim=2).relu()
    mean, variance = norm
    normed = (proprio.double() - mean) / (variance + 1e-8) ** 0.5
    return torch.cat([x.flatten(1), normed.sign() * (1 + normed.abs()).log()], dim=1)


def project(w, features):
    """Linear, LayerNorm, tanh of what the images gave; proprioception stays as it is."""
    seen = w["trunk.0.weight"].shape[1]
    x = features[:, :seen] @ w["trunk.0.weight"].T + w["trunk.0.bias"]
    centred = x - x.mean(dim=1, keepdim=True)
    normal = centred / (centred.pow(2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    squashed = (normal * w["trunk.1.weight"] + w["trunk.1.bias"]).tanh()
    return torch.cat([squashed, features[:, seen:]], dim=1)


def mlp(w, name, x):
    """Two hidden ReLU layers and a linear one."""
    x = (x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"]).relu()
    x = (x @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]).relu()
    return x @ w[f"{name}.4.weight"].T + w[f"{name}.4.bias"]


def mean_action(w, features):
    """Return the policy's action without noise."""
    return mlp(w, "policy", project(w, features)).tanh()


def values(w, features, action):
    """Return both Q-values, (batch,) each."""
    x = torch.cat([project(w, features), action], dim=1)
    both = []
    for twin in (0, 1):
        one = {name: value[twin] for name, value in w.items() if name.startswith("twins")}
        # both twins' weights lie the other way round than those of a linear layer
        one = {name: value.T if name.endswith("weight") else value for name, value in one.items()}
        both.append(mlp(one, "twins", x)[:, 0])
    return both


def noisy(mean, noise):
    """Add noise that is already clipped, and clamp without touching the gradient."""
    action = mean + noise
    clamped = action.detach().clone()
    clamped[clamped > 1 - 1e-6] = 1 - 1e-6
    clamped[clamped < -1 + 1e-6] = -1 + 1e-6
    return action - action.detach() + clamped


class Adam:
    """Adam (Kingma & Ba 2015, Algorithm 1) with its default coefficients."""

    def __init__(self, weights, learning_rate):
        self.weights, self.learning_rate, self.steps = weights, learning_rate, 0
        self.first = {name: torch.zeros_like(value) for name, value in weights.items()}
        self.second = {name: torch.zeros_like(value) for name, value in weights.items()}

    def step(self, gradients):
        self.steps += 1
        for name, weight in self.weights.items():
            gradient = gradients[name]
            self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            first = self.first[name] / (1 - 0.9**self.steps)
            second = self.second[name] / (1 - 0.999**self.steps)
            weight.data -= self.learning_rate * first / (second.sqrt() + 1e-8)


def gradients(loss, weights):
    """Differentiate with respect to these weights alone."""
    return dict(
        zip(weights, torch.autograd.grad(loss, list(weights.values()), retain_graph=True), strict=True)
    )


class NaiveDrQV2:
    """A float64 copy of a `DrQV2` agent that learns by itself."""

    def __init__(self, agent):
        self.settings = agent.settings
        filters = self.settings.conv_filters
        self.encoder = read_weights(agent.encoder, filters)
        norm = {name: self.encoder.pop(name) for name in list(self.encoder) if name.startswith("norm.")}
        self.norm = (norm["norm.mean"].detach(), norm["norm.variance"].detach()) if norm else (0.0, 1.0)
        self.actor = read_weights(agent.actor, filters)
        self.critic = read_weights(agent.critic, filters)
        self.target_critic = read_weights(agent.target_critic, filters)
        rate = self.settings.learning_rate
        self.encoder_adam = Adam(self.encoder, rate)
        self.critic_adam = Adam(self.critic, rate)
        self.actor_adam = Adam(self.actor, rate)

    def weights(self):
        """Yield (network, name, weight), with inputs in the agent's order again."""
        for network in ("encoder", "actor", "critic", "target_critic"):
            for name, value in getattr(self, network).items():
                if name == "trunk.0.weight":
                    value = regrouped(value, self.settings.conv_filters, to_channels_first=False)
                yield network, name, value.detach()

    def update(self, batch, agent_step, draws):
        """Learn from one batch.

        Args:
            batch: the `Transitions`.
            agent_step: an int.
            draws: offset and next_offset, whole pixels (batch, 2); target_noise and actor_noise, standard
                normal numbers (batch, action).
        """
        s = self.settings
        std = s.stddev_initial + (s.stddev_final - s.stddev_initial) * min(
            agent_step / s.stddev_duration, 1.0
        )
        target_noise, actor_noise = (
            (std * draws[name].double()).clip(-s.stddev_clip, s.stddev_clip)
            for name in ("target_noise", "actor_noise")
        )

        shown = crop(batch.observation.stack, draws["offset"], s.shift_pad)
        features = encode(self.encoder, shown, batch.observation.proprio, self.norm)
        shown = crop(batch.next_observation.stack, draws["next_offset"], s.shift_pad)
        next_features = encode(self.encoder, shown, batch.next_observation.proprio, self.norm)

        next_action = noisy(mean_action(self.actor, next_features), target_noise)
        next_q1, next_q2 = values(self.target_critic, next_features, next_action)
        target = torch.tensor(
            [
                reward + discount * min(a, b)
                for reward, discount, a, b in zip(
                    batch.reward.tolist(),
                    batch.discount.tolist(),
                    next_q1.tolist(),
                    next_q2.tolist(),
                    strict=True,
                )
            ],
            dtype=torch.float64,
        )
        q1, q2 = values(self.critic, features, batch.action.double())
        critic_loss = ((q1 - target) ** 2).mean() + ((q2 - target) ** 2).mean()
        critic_gradients = gradients(critic_loss, self.critic)
        encoder_gradients = gradients(critic_loss, self.encoder)
        self.critic_adam.step(critic_gradients)
        self.encoder_adam.step(encoder_gradients)

        action = noisy(mean_action(self.actor, features.detach()), actor_noise)
        q1, q2 = values(self.critic, features.detach(), action)
        actor_loss = -sum(min(a, b) for a, b in zip(q1, q2, strict=True)) / len(q1)
        self.actor_adam.step(gradients(actor_loss, self.actor))

        for name, value in self.target_critic.items():
            value.data = (1 - s.critic_tau) * value.data + s.critic_tau * self.critic[name].data

        return {
            "critic_loss": critic_loss.item(),
            "actor_loss": actor_loss.item(),
            "target_mean": target.mean().item(),
            "std": std,
        }

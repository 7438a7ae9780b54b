"""Dreamer-v2's update once more, as plainly as it can be written: the reference that `DreamerV2` is held against.

Everything is float64 and spelled out, sequence by sequence and step by step: convolutions as loops over pixels,
the GRU, LayerNorm, KL, returns from their definition, gradient clipping, weight decay and Adam by their formulas.
Nothing is shared with the package but the weights and the random numbers.
"""

from math import exp, pi, prod, sqrt

import torch


def read_weights(*networks):
    """Copy networks' weights as one {name: float64 leaf tensor} each."""
    return [
        {
            name: value.double().clone().contiguous().requires_grad_()
            for name, value in network.state_dict().items()
        }
        for network in networks
    ]


def elu(x):
    return torch.where(x > 0, x, x.exp() - 1)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def head(w, x, hidden_layers=4, prefix=""):
    for layer in range(hidden_layers):
        x = elu(linear(w, f"{prefix}{2 * layer}", x))
    return linear(w, f"{prefix}{2 * hidden_layers}", x)


def encode(w, image):
    """One image, (channels, 64, 64) in 0..255, to its features."""
    x = image.double() / 255 - 0.5
    for layer in range(4):
        weight, bias = w[f"convolutions.{2 * layer}.weight"], w[f"convolutions.{2 * layer}.bias"]
        size = (x.shape[1] - 4) // 2 + 1
        rows = [
            torch.stack(
                [
                    weight.flatten(1) @ x[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4].flatten() + bias
                    for j in range(size)
                ],
                dim=1,
            )
            for i in range(size)
        ]
        x = elu(torch.stack(rows, dim=1))
    return x.flatten()


def decode(w, features):
    """Features to the expected image: every pixel of a layer paints a square of the next."""
    x = linear(w, "linear", features)[:, None, None]
    for layer in range(4):
        weight, bias = w[f"convolutions.{2 * layer}.weight"], w[f"convolutions.{2 * layer}.bias"]
        kernel, size = weight.shape[2], x.shape[1]
        out = torch.zeros(weight.shape[1], 2 * size - 2 + kernel, 2 * size - 2 + kernel, dtype=torch.float64)
        for i in range(kernel):
            for j in range(kernel):
                painted = torch.einsum("chw,cd->dhw", x, weight[:, :, i, j])
                spread = torch.zeros_like(out)
                spread[:, i : i + 2 * size - 1 : 2, j : j + 2 * size - 1 : 2] = painted
                out = out + spread
        x = out + bias[:, None, None]
        if layer < 3:
            x = elu(x)
    return x


def transition(w, latent, action, deter):
    x = elu(linear(w, "inputs.0", torch.cat([latent, action])))
    gates = linear(w, "gates", torch.cat([x, deter]))
    gates = gates - gates.mean()
    gates = gates / (gates.pow(2).mean() + 1e-3).sqrt() * w["norm.weight"] + w["norm.bias"]
    size = len(deter)
    reset, candidate, update = gates[:size], gates[size : 2 * size], gates[2 * size :]
    candidate = torch.tanh(1 / (1 + (-reset).exp()) * candidate)
    update = 1 / (1 + (1 - update).exp())
    return update * candidate + (1 - update) * deter


def logits(w, known, shape):
    return head(w, known, hidden_layers=1, prefix="layers.").view(shape)


def draw(logit, uniform):
    """Take the class whose logit is the largest under Gumbel noise; the gradient is the probabilities'."""
    noisy = logit - torch.log(-torch.log(uniform.double()))
    probabilities = logit.exp() / logit.exp().sum(dim=1, keepdim=True)
    chosen = torch.zeros_like(logit)
    for group, scores in enumerate(noisy.tolist()):
        chosen[group, scores.index(max(scores))] = 1.0
    return (chosen + probabilities - probabilities.detach()).flatten()


def kl(one, other):
    p, q = one.softmax(dim=1), other.softmax(dim=1)
    return (p * (p.log() - q.log())).sum()


def choose(raw, uniform):
    """Draw an action; return it with the policy's entropy."""
    size = len(raw) // 2
    mean, std = raw[:size].tanh(), 2 / (1 + (-raw[size:] / 2).exp()) + 0.1
    low, high = (-1 - mean) / std, (1 - mean) / std

    def mass(z):
        return (1 + torch.erf(z / sqrt(2))) / 2

    def density(z):
        return (-z * z / 2).exp() / sqrt(2 * pi)

    whole = mass(high) - mass(low)
    share = mass(low) + uniform.double() * whole
    action = mean + std * sqrt(2) * torch.erfinv(2 * share - 1)
    entropy = (sqrt(2 * pi * exp(1)) * std * whole).log() + (low * density(low) - high * density(high)) / (
        2 * whole
    )
    return action, entropy.sum()


class Adam:
    """Adam with decay of the weights, on several {name: weight} together, clipped by their common norm."""

    def __init__(self, groups, learning_rate, settings):
        self.weights = [value for group in groups for value in group.values()]
        self.learning_rate, self.settings, self.steps = learning_rate, settings, 0
        self.first = [torch.zeros_like(value) for value in self.weights]
        self.second = [torch.zeros_like(value) for value in self.weights]

    def minimise(self, loss):
        gradients = torch.autograd.grad(loss, self.weights, retain_graph=True)
        norm = sqrt(sum(float(gradient.pow(2).sum()) for gradient in gradients))
        scale = min(1.0, self.settings.gradient_clip / norm)
        self.steps += 1
        for index, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            gradient = gradient * scale
            weight.data *= 1 - self.settings.weight_decay
            self.first[index] = 0.9 * self.first[index] + 0.1 * gradient
            self.second[index] = 0.999 * self.second[index] + 0.001 * gradient**2
            first = self.first[index] / (1 - 0.9**self.steps)
            second = self.second[index] / (1 - 0.999**self.steps)
            weight.data -= self.learning_rate * first / (second.sqrt() + 1e-5)


class NaiveDreamerV2:
    """A float64 copy of a `DreamerV2` agent that learns by itself."""

    NETWORKS = (
        "encoder",
        "transition",
        "prior",
        "posterior",
        "decoder",
        "reward",
        "actor",
        "critic",
        "slow_critic",
    )

    def __init__(self, agent):
        self.settings = s = agent.settings
        self.shape = agent.latent_shape
        for name, weights in zip(
            self.NETWORKS, read_weights(*(getattr(agent, name) for name in self.NETWORKS)), strict=True
        ):
            setattr(self, name, weights)
        model = [self.encoder, self.transition, self.prior, self.posterior, self.decoder, self.reward]
        self.survival = read_weights(*agent.survival)
        self.model_adam = Adam([*model, *self.survival], s.model_learning_rate, s)
        self.actor_adam = Adam([self.actor], s.actor_learning_rate, s)
        self.critic_adam = Adam([self.critic], s.critic_learning_rate, s)
        self.updates = 0

    def weights(self):
        """Yield (network, name, weight)."""
        for head_number, weights in enumerate(self.survival):
            for name, value in weights.items():
                yield "survival", f"{head_number}.{name}", value.detach()
        for network in self.NETWORKS:
            for name, value in getattr(self, network).items():
                yield network, name, value.detach()

    def update(self, batch, draws):
        """Learn from one batch.

        Args:
            batch: the `Sequences`.
            draws: uniform numbers: seen (length, batch, groups, classes); imagined (steps, length * batch, groups,
                classes); action (steps, length * batch, action).
        """
        s = self.settings
        length, size = batch.reward.shape
        states, image_loss, reward_loss, ending_loss, for_prior, for_posterior = {}, 0.0, 0.0, 0.0, 0.0, 0.0
        for b in range(size):
            latent = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.float64)
            deter = torch.zeros(s.deter_dim, dtype=torch.float64)
            for t in range(length):
                deter = transition(self.transition, latent, batch.action[t, b].double(), deter)
                seen = encode(self.encoder, batch.image[t, b])
                posterior = logits(self.posterior, torch.cat([deter, seen]), self.shape)
                prior = logits(self.prior, deter, self.shape)
                latent = draw(posterior, draws["seen"][t, b])
                features = torch.cat([latent, deter])
                states[t * size + b] = latent.detach(), deter.detach()
                wrong = decode(self.decoder, features) - (batch.image[t, b].double() / 255 - 0.5)
                image_loss += (wrong**2).sum() / 2
                reward_loss += (head(self.reward, features)[0] - batch.reward[t, b].double()) ** 2 / 2
                for w in self.survival:
                    alive = torch.sigmoid(head(w, features)[0])
                    ending_loss -= torch.log(alive if batch.discount[t, b] == 1.0 else 1 - alive)
                for_prior += kl(posterior.detach(), prior)
                for_posterior += kl(posterior, prior.detach())
        rows = length * size
        image_loss, reward_loss, ending_loss = image_loss / rows, reward_loss / rows, ending_loss / rows
        kl_loss = s.kl_balance * max(for_prior / rows, torch.tensor(s.free_nats).double())
        kl_loss += (1 - s.kl_balance) * max(for_posterior / rows, torch.tensor(s.free_nats).double())
        self.model_adam.minimise(image_loss + reward_loss + ending_loss + kl_loss)

        actor_loss, critic_terms, targets, entropies, steps = 0.0, [], [], [], s.imagined_states - 1
        for state in range(rows):
            latent, deter = states[state]
            features, entropy = [torch.cat([latent, deter])], []
            for step in range(steps):
                raw = head(self.actor, features[-1].detach())
                action, spread = choose(raw, draws["action"][step, state])
                entropy.append(spread)
                deter = transition(self.transition, latent, action, deter)
                latent = draw(logits(self.prior, deter, self.shape), draws["imagined"][step, state])
                features.append(torch.cat([latent, deter]))
            reward = [head(self.reward, x)[0] for x in features]
            value = [head(self.slow_critic, x)[0] for x in features]
            lam, gamma = s.return_lambda, []
            for x in features:
                alive = [torch.sigmoid(head(w, x)[0]) for w in self.survival]
                gamma.append(s.imagined_discount * (alive[0] if alive else torch.tensor(1.0).double()))
            for t in range(steps):
                # a mixture of all n-step returns from here: weights (1 - λ) λ^(n - 1), the rest for the longest
                target = 0.0
                for n in range(1, steps - t + 1):
                    sum_n = sum(prod(gamma[t : t + k]) * reward[t + k] for k in range(n))
                    sum_n = sum_n + prod(gamma[t : t + n]) * value[t + n]
                    target += (lam ** (n - 1) if n == steps - t else (1 - lam) * lam ** (n - 1)) * sum_n
                weight = prod(gamma[:t], start=torch.tensor(1.0)).item()
                actor_loss -= weight * (target + s.entropy_weight * entropy[t]) / (steps * rows)
                critic_terms.append((weight, features[t].detach(), target.detach()))
                targets.append(target.item())
                entropies.append(entropy[t].item())
        self.actor_adam.minimise(actor_loss)
        critic_loss = sum(
            weight * (head(self.critic, x)[0] - target) ** 2 / 2 for weight, x, target in critic_terms
        ) / len(critic_terms)
        self.critic_adam.minimise(critic_loss)
        if self.updates % s.target_every_updates == 0:
            for name, value in self.slow_critic.items():
                value.data = self.critic[name].data.clone()
        self.updates += 1
        return {
            "image_loss": image_loss.item(),
            "reward_loss": reward_loss.item(),
            "kl_loss": kl_loss.item(),
            "kl": (for_posterior / rows).item(),
            "actor_loss": actor_loss.item(),
            "critic_loss": critic_loss.item(),
            "target_mean": sum(targets) / len(targets),
            "entropy": sum(entropies) / len(entropies),
        }

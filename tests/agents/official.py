"""The same updates by our agents and by the official codes, from the same weights, images and random draws.

    git clone https://github.com/facebookresearch/drqv2
    python tests/agents/official.py drqv2 drqv2 --updates 100 --batch-size 256

tells how far the two come apart, and `--write` keeps the official losses in the table beside this file, which
`test_official.py` holds our agents against. The others are denisyarats/pytorch_sac_ae (sac), denisyarats/drq (drq)
and MishaLaskin/curl (curl). Of their code only agents and networks are used; what they import beside (gym, hydra,
...) need not be installed.
"""

import argparse
import csv
import importlib
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import torch

from pixelcontrol.agents import curl, drq, drqv2, sac
from pixelcontrol.augment import shift
from pixelcontrol.types import Observation, Transitions

CPU = torch.device("cpu")
TABLE = Path(__file__).with_name("official.csv")
ACTION, GAMMA, STEP = 6, 0.99, 40_000
"""Controls; discount per agent step; the agent step of the first update, at which DrQ-v2's noise is 0.93."""

KINDS = {
    "drqv2": (drqv2.DrQV2, drqv2.DrQV2Settings()),
    "sac": (sac.SAC, sac.SACSettings()),
    "drq": (drq.DrQ, drq.DrQSettings(learning_rate=1e-4, temperature_learning_rate=1e-4)),
    "curl": (curl.CURL, curl.CURLSettings(learning_rate=1e-4)),
}
"""By name: an agent and its settings, at full size.

With the rate of 1e-3 of DrQ and CURL losses leap, and rounding grows to a hundredth within four updates.
"""


def image_size(kind):
    """Return height and width of images before they are shifted or cropped, pixels."""
    return 100 if kind == "curl" else 84


def new_agent(kind):
    """Return one of our agents, with fresh weights."""
    build, settings = KINDS[kind]
    return build((9, image_size(kind), image_size(kind)), ACTION, settings, device=CPU, seed=1)


def new_batch(kind, batch_size, number):
    """Return random transitions; a quarter of them ends for good."""
    g = torch.Generator().manual_seed(number)
    size = image_size(kind)
    blocks = torch.randint(0, 256, (2, batch_size, 9, 13, 13), generator=g, dtype=torch.uint8)
    images = blocks.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)[..., :size, :size]
    nothing = torch.zeros(batch_size, 0)
    discount = GAMMA**3 if kind == "drqv2" else GAMMA
    return Transitions(
        observation=Observation(images[0], nothing, nothing),
        action=2 * torch.rand(batch_size, ACTION, generator=g) - 1,
        reward=torch.rand(batch_size, generator=g),
        discount=torch.where(torch.rand(batch_size, generator=g) < 0.25, 0.0, discount),
        next_observation=Observation(images[1], nothing, nothing),
    )


def learn(kind, agent, number, batch):
    """Make one update; return its losses and the `Draws` that it used."""
    draws = Draws()
    update = agent.update_cycle[number % len(agent.update_cycle)]
    with draws.recorded(sys.modules[KINDS[kind][0].__module__]):
        metrics = update(batch, torch.tensor(STEP + 2 * number))
    losses = {name: metrics[name].item() for name in LOSSES[kind] if name in metrics}
    if kind == "drq":
        losses["critic_loss"] *= agent.settings.views  # the code sums over views, where we average
    return losses, draws


class Draws:
    """All that one of our updates drew at random, so that the official one can draw the same."""

    def __init__(self):
        self.normal = torch.zeros(0, ACTION)
        self.offsets = []
        self.views = []

    @contextmanager
    def recorded(self, module):
        """Remember normal numbers, the offsets of shifts, and shifted or cropped images."""
        randn, randint = torch.randn, torch.randint

        def drawn(*given, **options):
            noise = randn(*given, **options)
            self.normal = torch.cat([self.normal, noise])
            return noise

        def chosen(*given, **options):
            self.offsets.append(randint(*given, **options))
            return self.offsets[-1]

        def viewed(augment):
            def seen(*given, **options):
                self.views.append(augment(*given, **options))
                return self.views[-1]

            return seen

        augments = {
            name: viewed(getattr(module, name))
            for name in ("random_shift", "random_crop")
            if hasattr(module, name)
        }
        with (
            patch.multiple(torch, randn=drawn, randint=chosen),
            patch.multiple(module, **augments) if augments else nullcontext(),
        ):
            yield

    @contextmanager
    def replayed(self):
        """Let the official code draw the same, by whichever function it draws."""

        def next_normal(shape, **options):
            count = shape[0]
            noise, self.normal = self.normal[:count], self.normal[count:]
            return noise.clone()

        def next_shift(low, high, size, device, dtype):
            # right and down, counted from the corner of an image that is padded by 4 pixels
            return (self.offsets.pop(0).flip(1) + 4).view(size).to(dtype)

        def like(tensor):
            return next_normal(tensor.shape)

        with (
            patch.multiple(torch, randn_like=like, randint=next_shift),
            patch("torch.distributions.normal._standard_normal", next_normal),
            patch.object(sys.modules["utils"], "_standard_normal", next_normal, create=True),
        ):
            yield


class Log(dict):
    """Takes what the official codes log, and keeps the numbers."""

    def log(self, name, value, step):
        self[name] = torch.as_tensor(value).item()

    def log_param(self, *given):
        """Forget a layer."""

    log_histogram = log_image = log_param


class _Missing(ModuleType):
    """Stands for a library that is not installed, and is not used either."""

    __path__ = ()

    def __getattr__(self, name):
        return type(name, (), {})


def load(folder, name):
    """Import module `name` of an official code."""
    sys.path.insert(0, str(folder))
    while True:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (folder / f"{error.name}.py").exists() or error.name == name:
                raise
            sys.modules[error.name] = _Missing(error.name)


class OfficialDrQV2:
    """facebookresearch/drqv2, held to the settings of our agent."""

    def __init__(self, folder, ours):
        s = ours.settings
        self.agent = load(folder, "drqv2").DrQV2Agent(
            (9, 84, 84), (ACTION,), "cpu", s.learning_rate, s.feature_dim, s.hidden_dim, s.critic_tau,
            s.exploration_steps, 1, f"linear({s.stddev_initial},{s.stddev_final},{s.stddev_duration})",
            s.stddev_clip, use_tb=True,
        )  # fmt: skip

    def networks(self, ours):
        """Yield (name, an official network, what its weights are to be)."""
        renamed = {f"convnet{k.removeprefix('convolutions')}": v for k, v in state(ours.encoder)}
        yield "encoder", self.agent.encoder, renamed
        yield "actor", self.agent.actor, dict(state(ours.actor))
        for name, critic in (("critic", ours.critic), ("target_critic", ours.target_critic)):
            official = getattr(self.agent, "critic_target" if name == "target_critic" else name)
            trunk = {k: v for k, v in state(critic) if k.startswith("trunk")}
            yield name, official, trunk | twins(critic, "Q{}")

    def learn(self, number, batch, draws):
        """Make the update that ours made with these draws."""
        parts = (batch.action, batch.reward[:, None], batch.discount[:, None])
        replay = iter([(batch.observation.stack, *parts, batch.next_observation.stack)])
        metrics = self.agent.update(replay, STEP + 2 * number)
        return {
            "critic_loss": metrics["critic_loss"],
            "actor_loss": metrics["actor_loss"],
            "target_mean": metrics["critic_target_q"],
        }


class OfficialSAC:
    """denisyarats/pytorch_sac_ae without its decoder, held to the settings of our agent."""

    module, agent_class, extra = "sac_ae", "SacAeAgent", {"decoder_type": "identity"}
    head, twin = ("fc", "ln"), "Q{}.trunk"

    def __init__(self, folder, ours):
        s = ours.model.settings
        self.agent = getattr(load(folder, self.module), self.agent_class)(
            (9, 84, 84), (ACTION,), "cpu", s.hidden_dim, GAMMA,
            init_temperature=s.temperature_initial,
            alpha_lr=s.temperature_learning_rate, alpha_beta=s.temperature_beta1,
            actor_lr=s.learning_rate, critic_lr=s.learning_rate, encoder_lr=s.learning_rate,
            actor_log_std_min=s.log_std_min, actor_log_std_max=s.log_std_max,
            critic_tau=s.critic_tau, encoder_tau=s.encoder_tau, encoder_feature_dim=s.feature_dim,
            **self.extra,
        )  # fmt: skip

    def networks(self, ours):
        """Yield (name, an official network, what its weights are to be)."""
        m = ours.model

        def renamed(network):
            for name, value in state(network):
                part, index, kind = name.split(".")
                if part == "convolutions":
                    yield f"encoder.convs.{int(index) // 2}.{kind}", value
                elif part == "trunk":
                    yield f"encoder.{self.head[int(index)]}.{kind}", value
                elif part == "policy":
                    yield f"trunk.{index}.{kind}", value

        yield "actor", self.agent.actor, dict([*renamed(m.encoder), *renamed(m.actor)])
        for name, encoder, critic in (
            ("critic", m.encoder, m.critic),
            ("target_critic", m.target_encoder, m.target_critic),
        ):
            official = self.agent.critic if name == "critic" else self.agent.critic_target
            yield name, official, dict([*renamed(encoder), *renamed(critic)]) | twins(critic, self.twin)

    def learn(self, number, batch, draws):
        """Make the update that ours made with these draws."""
        log = Log()
        self.agent.update(self.replay(batch, draws), log, number)
        return {
            name: log[official]
            for name, official in (
                ("critic_loss", "train_critic/loss"),
                ("actor_loss", "train_actor/loss"),
                ("temperature", "train_alpha/value"),
                ("contrast_loss", "train/curl_loss"),
            )
            if official in log
        }

    def replay(self, batch, draws):
        """Return what hands out this batch."""
        return SimpleNamespace(
            sample=lambda: self.parts(batch, batch.observation.stack, batch.next_observation.stack)
        )

    def parts(self, batch, image, next_image):
        """Return the official order of a batch."""
        going_on = (batch.discount > 0).float()
        return image.float(), batch.action, batch.reward[:, None], next_image.float(), going_on[:, None]


class OfficialCURL(OfficialSAC):
    """MishaLaskin/curl."""

    module, agent_class, extra = "curl_sac", "CurlSacAgent", {"log_interval": 1}

    def networks(self, ours):
        """Yield (name, an official network, what its weights are to be)."""
        yield from super().networks(ours)
        yield "similarity", self.agent.CURL, {"W": ours.similarity.weight.detach()}

    def replay(self, batch, draws):
        """Return what hands out this batch, cropped as ours was."""
        anchor, positive, following = draws.views
        contrast = {"obs_anchor": anchor.float(), "obs_pos": positive.float()}
        return SimpleNamespace(sample_cpc=lambda: (*self.parts(batch, anchor, following), contrast))


class OfficialDrQ(OfficialSAC):
    """denisyarats/drq."""

    head, twin = ("head.0", "head.1"), "Q{}"

    def __init__(self, folder, ours):
        s = ours.settings
        module = load(folder, "drq")
        sys.modules["hydra"].utils = SimpleNamespace(instantiate=lambda make: make())
        bounds = (s.log_std_min, s.log_std_max)

        def encoder():
            return module.Encoder((9, 84, 84), s.feature_dim)

        self.agent = module.DRQAgent(
            (9, 84, 84), (ACTION,), (-1, 1), "cpu", encoder,
            lambda: module.Critic(encoder, (ACTION,), s.hidden_dim, 2),
            lambda: module.Actor(encoder, (ACTION,), s.hidden_dim, 2, bounds),
            GAMMA, s.temperature_initial, s.learning_rate, 2, s.critic_tau, 2, None,
        )  # fmt: skip

    def replay(self, batch, draws):
        """Return what hands out this batch, shifted as ours was."""
        (image, second), (following, second_following) = (views.float().chunk(2) for views in draws.views)
        parts = self.parts(batch, image, following)
        return SimpleNamespace(sample=lambda size: (*parts, second, second_following))


def state(network):
    """Yield a network's weights, for features that lie channel by channel, as in the official codes."""
    for name, value in network.state_dict().items():
        if name == "trunk.0.weight":
            value = value.view(len(value), -1, 32).transpose(1, 2).flatten(1)
        yield name, value


def twins(critic, name):
    """Return both Q-functions' weights, one by one."""
    return {
        f"{name.format(twin + 1)}.{key.removeprefix('twins.')}": value[twin].T.squeeze(
            -1 if "bias" in key else ()
        )
        for twin in (0, 1)
        for key, value in state(critic)
        if key.startswith("twins")
    }


OFFICIAL = {"drqv2": OfficialDrQV2, "sac": OfficialSAC, "drq": OfficialDrQ, "curl": OfficialCURL}
LOSSES = {
    "drqv2": ("critic_loss", "actor_loss", "target_mean"),
    "sac": ("critic_loss", "actor_loss", "temperature"),
    "drq": ("critic_loss", "actor_loss", "temperature"),
    "curl": ("critic_loss", "actor_loss", "temperature", "contrast_loss"),
}
"""By name: what both tell of an update."""


def distances(official, ours, initial):
    """Yield (network, how far ours and the official one are apart, as a share of what the latter has learned)."""
    for name, network, weights in official.networks(ours):
        theirs = network.state_dict()
        apart = sum((theirs[key] - value).double().square().sum() for key, value in weights.items())
        learned = sum((theirs[key] - initial[name][key]).double().square().sum() for key in weights)
        yield name, (apart / learned).sqrt().item()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agent", choices=OFFICIAL)
    parser.add_argument("folder", type=Path, help="where the official code lies")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--bf16", action="store_true", help="compute ours in bf16, against float32")
    parser.add_argument(
        "--exact-shifts", action="store_true", help="give drqv2's code our shift, without its interpolation"
    )
    parser.add_argument("--write", action="store_true", help=f"keep the official losses in {TABLE.name}")
    given = parser.parse_args()

    ours = new_agent(given.agent)
    official = OFFICIAL[given.agent](given.folder.resolve(), ours)
    for _, network, weights in official.networks(ours):
        network.load_state_dict({key: value.contiguous() for key, value in weights.items()}, strict=False)
    initial = {
        name: {key: value.clone() for key, value in weights.items()}
        for name, _, weights in official.networks(ours)
    }
    rows = []
    for number in range(given.updates):
        batch = new_batch(given.agent, given.batch_size, number)
        with torch.autocast("cpu", torch.bfloat16, enabled=given.bf16, cache_enabled=False):
            losses, draws = learn(given.agent, ours, number, batch)
        if given.exact_shifts:
            official.agent.aug = lambda images, offsets=draws.offsets: shift(
                images.byte(), offsets.pop(0), ours.settings.shift_pad
            ).float()
        with draws.replayed():
            theirs = official.learn(number, batch, draws)
        assert theirs.keys() == losses.keys()
        told = (f"{name} {theirs[name]:.6g} ({losses[name] / theirs[name] - 1:+.1e})" for name in theirs)
        print(f"update {number + 1}:", *told, sep="  ", flush=True)
        rows += [(given.agent, number, name, f"{value:.8g}") for name, value in theirs.items()]
    for name, distance in distances(official, ours, initial):
        print(f"{name}: apart by {distance:.1e} of what the official one has learned")
    if given.write:
        with TABLE.open(newline="") as file:
            kept = [row for row in csv.reader(file) if row[0] not in (given.agent, "agent")]
        with TABLE.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("agent", "update", "loss", "official"))
            writer.writerows(sorted([*kept, *rows], key=lambda row: row[0]))


if __name__ == "__main__":
    main()

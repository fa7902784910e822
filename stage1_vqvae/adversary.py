"""The adversary: a network that tells pictures from reconstructions, patch by patch, and is to be fooled.

PatchGAN: Isola et al. 2017, https://arxiv.org/abs/1611.07004; beside a VQ-VAE: VQGAN, Esser et al. 2021,
https://arxiv.org/abs/2012.09841. LeCam: Tseng et al. 2021, https://arxiv.org/abs/2104.03310. What is done
differently here: groups of channels are normalised and not batches, so that what is said of one picture does
not depend on the others; the weight of the term is fixed; how pictures are moved and mirrored before they are
looked at is a function of their places in the order of the run.

Legend: B images, C channels, H x W their size, h x w patches.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime.data.transform import drawn_windows, gathered
from vqprior.runtime.guard import Guard
from vqprior.runtime.optimizer import adamw, learning_rate, on_device, set_rate, take_step
from vqprior.runtime.processes import share_of_process, sum_tensor
from vqprior.runtime.randomness import Stream, hash64, seed_of
from vqprior.runtime.run_state import Beside
from vqprior.runtime.transfer import onto

from .quantizers.terms import total

GROUP = 16  # channels that are normalised together
LAYERS_FROM = (16, 128)  # pixels of a side from which on there is one strided layer more
BETAS = (0.5, 0.9)  # of its AdamW
DECAY = 0.99  # of LeCam's averages
REACH = 8  # a picture is moved by up to this part of its size
GREY = 0.5  # what comes in from beyond its edges


class Patches(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> logits [B, 1, h, w] of their being pictures and no reconstructions.

    4x4 convolutions, one to three of them of stride two, as the size asks. The buffer `averages` [2] has the
    mean logits of pictures and of reconstructions so far.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int):
        super().__init__()
        halvings = 1 + sum(min(size) >= side for side in LAYERS_FROM)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for stride in (*[2] * (halvings - 1), 1):
            conv = nn.Conv2d(width, 2 * width, 4, stride=stride, padding=1, bias=False)
            width *= 2
            layers += [conv, nn.GroupNorm(width // GROUP, width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        self.register_buffer("averages", torch.zeros(2))

    def undecayed(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, biases aside."""
        return set()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(2 * x - 1)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """What it minimises, [], of the logits of pictures and of reconstructions: that they are beyond 1 and
    -1."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def lecam(real: Tensor, fake: Tensor, averages: Tensor) -> Tensor:
    """What LeCam adds, [], in the form of its authors' code: logits are not to run away from the averages [2]
    of the other side."""
    return F.relu(real - averages[1]).square().mean() + F.relu(averages[0] - fake).square().mean()


def refuse_recorded(config: Config) -> None:
    """Refuse, with a UserError, to record a step with an adversary as a CUDA graph."""
    if config.stage1.adversarial and config.cuda_graph:
        raise UserError(
            "a step with stage1.adversarial cannot be recorded (--cuda_graph): what is computed changes "
            "when the decoder begins to hear the adversary; leave out --cuda_graph"
        )


class Adversary:
    """The network and its optimizer, apart from the model's: neither moves the other's weights.

    In each step the loop calls `begin`, hands `opinion` to the objective where the decoder has `heard` of it,
    has it `learn` from each pass, and if all is sound `move`.

    Attributes:
        heard: whether the decoder hears it in this step.
        norm: of its gradient, [], before it was clipped.
    """

    def __init__(self, config: Config, accelerator: Accelerator):
        self.size, self.seed, self.accelerator = config.data.size, config.seed, accelerator
        self.stage1, self.settings = config.stage1, config.stage1.adversary
        torch.manual_seed(seed_of(config.seed, Stream.ADVERSARY_WEIGHTS))
        self.patches = Patches(config.data.channels, self.size, self.settings.width).to(accelerator.device)
        if config.channels_last:
            self.patches.to(memory_format=torch.channels_last)
        optimizer = adamw(self.patches, weight_decay=0.0, betas=BETAS)
        self.network, self.optimizer = accelerator.prepare(self.patches, optimizer)
        self.reach = min(self.size) // REACH  # pixels that a picture is moved by, at most

    def beside(self) -> dict[str, Beside]:
        """What a checkpoint has of it."""
        return {"adversary": Beside(self.patches, self.optimizer)}

    def begin(self, step: int, positions: Tensor) -> None:
        """Before a step, the first being 1: its rate, and how the pictures at these places [n] of the run's
        order are seen."""
        stage1, peak, device = self.stage1, self.settings.learning_rate, self.accelerator.device
        self.heard = step > self.settings.start * stage1.steps
        rate = learning_rate(step - 1, peak=peak, warmup=stage1.warmup, steps=stage1.steps)
        set_rate(self.optimizer, *on_device(device, rate))
        self.optimizer.zero_grad()
        places = drawn_windows(hash64(self.seed, Stream.ADVERSARY, positions), 2 * self.reach, flip=True)
        self.places = onto(places, device).chunk(stage1.accumulate, dim=1)
        self.logits: list[Tensor] = []  # of each pass [2], the means of pictures and reconstructions

    def seen(self, x: Tensor, index: int) -> Tensor:
        """The pictures [B, C, H, W] of pass `index`, moved and mirrored, their reconstructions likewise."""
        return gathered(F.pad(x, (self.reach,) * 4, value=GREY), self.places[index], self.size)

    def opinion(self, x_hat: Tensor, index: int) -> Tensor:
        """How bad the reconstructions [B, C, H, W] of pass `index` are, [B]: the negative mean logit. Its
        gradient reaches them, and none of the adversary's weights."""
        frozen = {name: weight.detach() for name, weight in self.patches.named_parameters()}
        with self.accelerator.autocast():
            logits = functional_call(self.patches, frozen, (self.seen(x_hat, index),))
        return -logits.to(x_hat.dtype).mean((1, 2, 3))

    def learn(self, x: Tensor, x_hat: Tensor, index: int) -> dict[str, Tensor]:
        """Add the gradient of pass `index`, of pictures and of reconstructions that have none, [B, C, H, W]
        each; what is to be said of it, [] each, by name."""
        passes = self.stage1.accumulate
        with nullcontext() if index == passes - 1 else self.accelerator.no_sync(self.network):
            both = torch.cat([self.seen(x, index), self.seen(x_hat, index)])
            real, fake = self.network(both).to(x.dtype).chunk(2)
            terms = {"loss": hinge(real, fake)}
            if self.settings.lecam:
                terms["lecam"] = self.settings.lecam * lecam(real, fake, self.patches.averages)
            self.accelerator.backward(total(terms.values()) / passes)
        means = {"logits_real": real.detach().mean(), "logits_fake": fake.detach().mean()}
        self.logits.append(torch.stack([*means.values()]))
        return {f"adversary/{name}": value for name, value in (means | terms).items()}

    def clip(self, guard: Guard, reports: Tensor) -> Tensor:
        """Scale the gradient down; the norm [] that it had. Arguments as `Guard.clip`."""
        self.norm = guard.clip(self.patches, reports, self.stage1.clip_norm)
        return self.norm

    @torch.no_grad()
    def move(self, unsound: Tensor | None) -> None:
        """Take the step, and move LeCam's averages; `unsound` as `Guard.decide` gives it."""
        take_step(self.optimizer, unsound)
        share, averages = share_of_process(), self.patches.averages
        logits = sum_tensor(torch.stack(self.logits).mean(0)) / share.processes
        moved = torch.lerp(averages, logits, 1 - DECAY)
        averages.copy_(moved if unsound is None else torch.where(unsound > 0, averages, moved))

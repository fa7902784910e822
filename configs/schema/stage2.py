"""Stage two: the priors over maps of codes."""

from dataclasses import dataclass
from typing import Literal, get_args

from .training import Training

PriorKind = Literal["gated_pixelcnn", "pixelsnail", "transformer"]


@dataclass(frozen=True)
class GatedPixelCNN:
    """The prior gated_pixelcnn (arXiv 1606.05328)."""

    kernel: int = 3
    """Kernel size of every layer, odd; layers * (kernel // 2) should reach across the code map."""
    head: int = 256
    """Channels of the hidden layer before the logits."""

    def __post_init__(self):
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"gated_pixelcnn.kernel is {self.kernel}; it must be odd and at least 3")
        if self.head < 1:
            raise ValueError(f"gated_pixelcnn.head is {self.head}; it must be at least 1")


@dataclass(frozen=True)
class PixelSNAIL:
    """The prior pixelsnail (arXiv 1712.09763)."""

    blocks: int = 3
    """Blocks that the layers are shared out over; each ends with attention to all earlier places."""
    kernel: int = 3
    """Kernel size of every layer, odd."""
    heads: int = 4
    """Heads of attention, 16 channels each."""

    def __post_init__(self):
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"pixelsnail.kernel is {self.kernel}; it must be odd and at least 3")
        for name in ("blocks", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"pixelsnail.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Transformer:
    """The prior transformer (arXiv 1706.03762)."""

    heads: int = 4
    """Heads of attention, which the channels are shared out over, a multiple of 4 each; they share keys and
    values."""

    def __post_init__(self):
        if self.heads < 1:
            raise ValueError(f"transformer.heads is {self.heads}; it must be at least 1")


@dataclass(frozen=True)
class Stage2(Training):
    """The prior and its training; of several levels of codes that of the coarsest."""

    SECTION = "stage2"

    prior: PriorKind = "gated_pixelcnn"
    """What kind of network it is: the Gated PixelCNN (arXiv 1606.05328), PixelSNAIL (arXiv 1712.09763), or a
    decoder-only transformer (arXiv 1706.03762)."""
    average: float = 0.999
    """Decay of the moving average of the weights, which evaluation and sampling then use; 0 for none."""
    channels: int = 128
    """Channels of every layer."""
    layers: int = 12
    """Layers: gated ones, of PixelSNAIL those of all its blocks, or blocks of the transformer."""
    dropout: float = 0.1
    """Share of a layer's channels set to zero in training, in each layer and map anew."""
    label_dropout: float = 0.1
    """Share of the labels hidden in training, so that sampling can be guided; 0 trains no prior without
    labels."""
    gated_pixelcnn: GatedPixelCNN = GatedPixelCNN()
    pixelsnail: PixelSNAIL = PixelSNAIL()
    transformer: Transformer = Transformer()

    def __post_init__(self):
        super().__post_init__()
        stage = self.SECTION
        for name in ("channels", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{stage}.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("dropout", "label_dropout"):
            if not 0 <= (share := getattr(self, name)) < 1:
                raise ValueError(f"{stage}.{name} is {share}; it is a share in [0, 1), for example 0.1")
        if self.prior == "transformer":
            self._refuse_uneven_heads()
        if self.prior == "pixelsnail" and self.layers < self.pixelsnail.blocks:
            raise ValueError(
                f"{stage}.layers is {self.layers}; the {self.pixelsnail.blocks} blocks of PixelSNAIL "
                f"({stage}.pixelsnail.blocks) take at least one each"
            )

    def unused(self) -> list[str]:
        """The sections of other kinds of priors than the chosen one."""
        return [f"{self.SECTION}.{kind}" for kind in get_args(PriorKind) if kind != self.prior]

    def idle(self) -> list[str]:
        """Those of them that say something: it is said, and not refused, so that a preset's prior can be
        exchanged by one flag."""
        others = (kind for kind in get_args(PriorKind) if kind != self.prior)
        differs = lambda kind: getattr(self, kind, None) != getattr(Stage2, kind, None)  # not all have one
        return [f"{self.SECTION}.{kind}" for kind in filter(differs, others)]

    def _refuse_uneven_heads(self) -> None:
        """Refuse channels that the heads cannot share, or that leave a head none for rows and columns."""
        size = 4 * self.transformer.heads
        if self.channels % size:
            raise ValueError(
                f"{self.SECTION}.channels is {self.channels}; with {self.transformer.heads} heads "
                f"({self.SECTION}.transformer.heads) it must be a multiple of {size}: take "
                f"{-(-self.channels // size) * size}"
            )


@dataclass(frozen=True)
class Stage2Fine(Stage2):
    """The priors of all finer levels of codes and their training; nothing is taken over from stage2."""

    SECTION = "stage2_fine"

    above_blocks: int = 2
    """Residual blocks that read the codes of each coarser level."""

    def __post_init__(self):
        super().__post_init__()
        if self.above_blocks < 0:
            raise ValueError(f"stage2_fine.above_blocks is {self.above_blocks}; it must not be negative")

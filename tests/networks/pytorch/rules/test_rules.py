"""Tests each family of rules: every operation answers as PyTorch's."""

import pytest

from tests.networks.pytorch.comparing import check, module_of, numbers

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
nn, F = torch.nn, torch.nn.functional

MAPS = (4, 8, 9, 7)
ROWS = (4, 6, 8)


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(8, 4, 3),
    "padded": lambda: nn.Conv2d(8, 4, 3, padding=1, bias=False),
    "strided": lambda: nn.Conv2d(8, 4, 3, stride=2, padding=1),
    "even kernel": lambda: nn.Conv2d(8, 4, 4, stride=2, padding=1),
    "one side": lambda: nn.Conv2d(8, 4, (3, 1), padding=(1, 0)),
    "dilated": lambda: nn.Conv2d(8, 4, 3, padding=2, dilation=2),
    "grouped": lambda: nn.Conv2d(8, 4, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
    "depthwise, multiplied": lambda: nn.Conv2d(8, 16, 3, groups=8),
    "same": lambda: nn.Conv2d(8, 4, 4, padding="same"),
    "reflected": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(8, 4, 3, stride=2),
    "transposed, cropped": lambda: nn.ConvTranspose2d(
        8, 4, 3, stride=2, padding=1, output_padding=1
    ),
    "transposed, even": lambda: nn.ConvTranspose2d(
        8, 4, 4, stride=2, padding=1
    ),
}


# Of PyTorch itself, where an even kernel needs an odd row.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    check(CONVOLUTIONS[name](), numbers(*MAPS))


@pytest.mark.parametrize(
    "module",
    [
        lambda: nn.Conv1d(6, 4, 3, padding=1),
        lambda: nn.Conv1d(6, 6, 3, groups=6, stride=2),
        lambda: nn.ConvTranspose1d(6, 4, 3, stride=2),
    ],
)
def test_convolutions_of_lines(module):
    check(module(), numbers(*ROWS))


def test_convolutions_of_volumes():
    check(nn.Conv3d(2, 4, 3, padding=1), numbers(4, 2, 5, 6, 7))


def test_a_computed_kernel():
    weights = {"weight": numbers(4, 4, 3, 3)}
    module = module_of(
        lambda x, weight: F.conv2d(x, weight / weight.norm(), groups=2),
        **weights,
    )
    check(module, numbers(*MAPS))


POOLS = {
    "max": lambda: nn.MaxPool2d(2),
    "max, padded": lambda: nn.MaxPool2d(3, 2, padding=1),
    "max, rounded up": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "mean": lambda: nn.AvgPool2d(3, 2),
    "mean, padded": lambda: nn.AvgPool2d(3, 2, padding=1),
    "mean, of what is inside": lambda: nn.AvgPool2d(
        3, 2, padding=1, count_include_pad=False
    ),
    "mean, rounded up": lambda: nn.AvgPool2d(2, ceil_mode=True),
    "mean of all": lambda: nn.AdaptiveAvgPool2d(1),
    "means, uneven": lambda: nn.AdaptiveAvgPool2d((4, 3)),
    "means, even": lambda: nn.AdaptiveAvgPool2d((3, 7)),
    "maxima, uneven": lambda: nn.AdaptiveMaxPool2d((4, 3)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name):
    check(POOLS[name](), numbers(*MAPS))


def _running(module):
    module.running_mean.normal_()
    module.running_var.uniform_(0.5, 2)
    return module


NORMS = {
    "batch": (lambda: _running(nn.BatchNorm2d(8, eps=1e-3)), MAPS),
    "batch, bare": (lambda: _running(nn.BatchNorm2d(8, affine=False)), MAPS),
    "batch, vectors": (lambda: _running(nn.BatchNorm1d(8)), (4, 8)),
    "layer": (lambda: nn.LayerNorm(8, eps=1e-6), ROWS),
    "layer, bare": (lambda: nn.LayerNorm(8, elementwise_affine=False), ROWS),
    "layer, no bias": (lambda: nn.LayerNorm(8, bias=False), ROWS),
    "layer, of two": (lambda: nn.LayerNorm((6, 8)), ROWS),
    "rms": (lambda: nn.RMSNorm(8, eps=1e-6), ROWS),
    "group": (lambda: nn.GroupNorm(2, 8), MAPS),
    "instance": (lambda: nn.InstanceNorm2d(8, affine=True), MAPS),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalizations(name):
    module, shape = NORMS[name]
    check(module(), numbers(*shape))


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.SiLU(),
    nn.SELU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Softsign(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.LeakyReLU(0.2),
    nn.ELU(0.5),
    nn.CELU(0.5),
    nn.Softplus(),
    nn.Softplus(2),
    nn.Hardtanh(-0.5, 0.5),
    nn.PReLU(8),
    nn.Softmax(1),
    nn.LogSoftmax(1),
    nn.GLU(1),
    nn.LogSigmoid(),
]


@pytest.mark.parametrize("module", ACTIVATIONS, ids=str)
def test_activations(module):
    check(module, numbers(*MAPS))


def _written_into(x):
    y = x * 2
    y[:, 1:3].mul_(0.5)
    y[:, -1:].zero_()
    return y


FUNCTIONS = {
    "arithmetic": lambda x: (2 - x) * x / 3 + x**2 - x.abs().sqrt(),
    "scaled": lambda x: torch.add(x, x.exp(), alpha=0.5).sub(x.sin(), alpha=2),
    "rounded": lambda x: torch.div(x, 0.5, rounding_mode="floor"),
    "truncated": lambda x: torch.div(x, 0.5, rounding_mode="trunc"),
    "compared": lambda x: torch.where((x > 0) & ~(x > 1), x, x * 0.5),
    "filled": lambda x: x.masked_fill(x < 0, -2.0),
    "clamped": lambda x: x.clamp(-0.5, 1) + x.clamp(min=0) + x.clamp_max(0.3),
    "cast": lambda x: x.int().float() + (x > 0).to(x.dtype),
    "in place": lambda x: x.mul(2).add_(1).relu_(),
    "written into": lambda x: _written_into(x),
    "blended": lambda x: torch.lerp(x, x.cos(), 0.3).addcmul(x, x, value=0.5),
    "like": lambda x: x + torch.ones_like(x) * 2 + x.new_full((8,), 3.0),
    "sums": lambda x: x.sum(-1) + x.mean(-1) + x.amax(-1) - x.amin(-1),
    "kept": lambda x: x.sum((0 + 1, 2), keepdim=True) + x,
    "spread": lambda x: x.std(-1) + x.var(-1, unbiased=False),
    "length": lambda x: x.norm(dim=-1) + x.norm(p=1, dim=-1),
    "unit": lambda x: F.normalize(x, dim=1),
    "greatest": lambda x: x.max(-1).values + x.min(dim=-1)[0],
    "places": lambda x: x.argmax(-1),
    "so far": lambda x: x.cumsum(1),
    "largest": lambda x: x.topk(3)[0],
    "logsumexp": lambda x: x.logsumexp(-1),
    "view": lambda x: x.view(-1, 12, 4).reshape(x.shape[0], -1),
    "permuted": lambda x: x.permute(0, 2, 1).flatten(1),
    "axes": lambda x: x.unsqueeze(1).squeeze(1).transpose(1, 2).movedim(1, 2),
    "sliced": lambda x: x[:, 1:5:2, -3:] + x[:, :2, 0:1],
    "selected": lambda x: x[:, 0] * x[:, -1],
    "picked": lambda x: x[:, [0, 2, 2]] + x[:, torch.tensor([1, 0, 3])],
    "picked twice": lambda x: x[:, torch.tensor([0, 1]), torch.tensor([2, 3])],
    "gathered": lambda x: (
        x.gather(1, x.argsort(1)[:, :2] * 0 + 1)
        if False
        else x.gather(1, (x[:, :2] > 0).long())
    ),
    "split": lambda x: sum(x.chunk(2, -1)) + sum(x.split([4, 4], dim=2)),
    "unbound": lambda x: x.unbind(1)[2] + x.unbind(1)[0],
    "joined": lambda x: torch.cat([x, x * 2, x[:, :1]], 1),
    "stacked": lambda x: torch.stack([x, x * 2], 2).flatten(2),
    "padded": lambda x: F.pad(x, (1, 2, 0, 1), value=0.5),
    "cropped": lambda x: F.pad(x, (-1, 0)),
    "repeated": lambda x: x.repeat(1, 2, 1) + x.repeat_interleave(2, dim=1),
    "expanded": lambda x: x[:, :1].expand(-1, 6, -1) + x,
    "rolled": lambda x: x.roll(2, 1).flip(2),
    "triangle": lambda x: torch.tril(x) + torch.triu(x, 1) * 2,
    "product": lambda x: x @ x.transpose(1, 2) + torch.bmm(x, x.mT),
    "einsum": lambda x: torch.einsum("B i d, B J d -> B i J", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(
        *[x.view(x.shape[0], 6, 2, 4).transpose(1, 2)] * 3
    ),
    "causal": lambda x: F.scaled_dot_product_attention(
        *[x.unsqueeze(1)] * 3, is_causal=True, scale=0.3
    ).squeeze(1),
    "masked": lambda x: F.scaled_dot_product_attention(
        *[x.unsqueeze(1)] * 3, attn_mask=torch.ones(6, 6).tril().bool()
    ).squeeze(1),
    "biased": lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.eye(6) * 2
    ),
    "one of each": lambda x: x[torch.arange(x.shape[0]), x[:, :, 0].argmax(-1)],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    check(FUNCTIONS[name], numbers(*ROWS), last=False)


ON_MAPS = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest, uneven": lambda x: F.interpolate(x, size=(5, 11)),
    "bilinear": lambda x: F.interpolate(x, size=(5, 11), mode="bilinear"),
    "corners": lambda x: F.interpolate(
        x, size=(5, 11), mode="bilinear", align_corners=True
    ),
    "bicubic": lambda x: F.interpolate(x, size=(5, 11), mode="bicubic"),
    "antialiased": lambda x: F.interpolate(
        x, size=(5, 11), mode="bilinear", antialias=True
    ),
    "antialiased cubic": lambda x: F.interpolate(
        x, size=(4, 3), mode="bicubic", antialias=True
    ),
    "shuffled": lambda x: F.pixel_shuffle(x, 2),
    "unshuffled": lambda x: F.pixel_unshuffle(x[:, :, :8, :6], 2),
    "channels": lambda x: F.channel_shuffle(x, 2),
    "windows": lambda x: F.unfold(x, 3, padding=1),
    "windows put back": lambda x: F.fold(
        F.unfold(x, 3, padding=1, stride=2), (9, 7), 3, padding=1, stride=2
    ),
    "windows over the edge put back": lambda x: F.fold(
        F.unfold(x, 2, padding=1, stride=3), (9, 7), 2, padding=1, stride=3
    ),
    "windows apart put back": lambda x: F.fold(
        F.unfold(x, 2, dilation=3, stride=(2, 4)),
        (9, 7),
        2,
        dilation=3,
        stride=(2, 4),
    ),
    "flattened": lambda x: x.flatten(1),
    "as a sequence": lambda x: x.flatten(2).transpose(1, 2),
    "spatial mean": lambda x: x.mean((2, 3)),
    "gated": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "by channel": lambda x: x * torch.arange(8.0).view(8, 1, 1),
    "by column": lambda x: x + torch.arange(7.0),
    "halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
}


@pytest.mark.parametrize("name", ON_MAPS)
def test_functions_of_maps(name):
    check(ON_MAPS[name], numbers(*MAPS))


RECURRENT = {
    "lstm": lambda: nn.LSTM(8, 5, batch_first=True),
    "gru": lambda: nn.GRU(8, 5, batch_first=True),
    "two, both ways": lambda: nn.LSTM(
        8, 5, num_layers=2, bidirectional=True, batch_first=True
    ),
    "gru, both ways": lambda: nn.GRU(
        8, 5, bidirectional=True, batch_first=True, bias=False
    ),
    "plain": lambda: nn.RNN(8, 5, batch_first=True),
    "plain, relu": lambda: nn.RNN(8, 5, batch_first=True, nonlinearity="relu"),
    "plain, two, both ways": lambda: nn.RNN(
        8, 5, num_layers=2, bidirectional=True, batch_first=True
    ),
}


class _Sequence(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name):
    check(_Sequence(RECURRENT[name]()), numbers(*ROWS), last=False)


@pytest.mark.parametrize(
    "module",
    [
        lambda: nn.Linear(8, 3),
        lambda: nn.Linear(8, 3, bias=False),
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)),
    ],
)
def test_dense_layers(module):
    made = module()
    if isinstance(made, nn.MultiheadAttention):
        made = module_with_attention(made)
    check(made, numbers(*ROWS), last=False)


def module_with_attention(attention):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    return Module()


def test_embeddings():
    ids = torch.randint(
        0, 9, (4, 6), generator=torch.Generator().manual_seed(0)
    )
    check(nn.Embedding(9, 8), ids, last=False)

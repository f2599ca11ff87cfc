"""How many parameters, counted by hand for the tiny model."""

from rich.console import Console

from miniflamingo.model.parameters import count_parameters, parameter_table

# Language: 32 wide, 3 layers, 4 heads and 2 key heads of 8, 64 in the feed-forward, tied head.
LAYER = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32
# Vision: 24 wide, 2 layers, patches of 8 x 8, 4 places and the class token; projection to 16.
VIT_LAYER = (3 * 24 * 24 + 3 * 24) + (24 * 24 + 24) + (24 * 96 + 96) + (96 * 24 + 24) + 4 * 24
VIT = 3 * 8 * 8 * 24 + 24 + 5 * 24 + 2 * 24 + 2 * VIT_LAYER + 2 * 24 + 24 * 16
# Resampler: 24 to 16, one frame position, 2 layers (2 heads of 8), final norm.
ATTENTION = 4 * 16 + 16 * 16 + 16 * 32 + 16 * 16
FEED_FORWARD = 2 * 16 + 2 * 16 * 64
RESAMPLER = 24 * 16 + 16 + 2 * (ATTENTION + FEED_FORWARD) + 2 * 16
# Two gated blocks (2 heads of 8, feed-forward of 64), each with its keys and values.
BLOCK = 2 * 32 + 32 * 16 + 16 * 32 + (2 * 32 + 2 * 32 * 64) + 2
KEYS_VALUES = 16 * 32


def test_parameters_by_part(build, processor):
    vocabulary = len(processor.tokenizer) - 2
    model = build(train_input_rows=False)
    language = vocabulary * 32 + 3 * LAYER + 32
    assert count_parameters(model) == {
        "frozen image encoder": (VIT, 0),
        "learned latents": (3 * 16, 3 * 16),
        "resampler": (RESAMPLER, RESAMPLER),
        "frozen language model": (language, 0),
        "gated cross-attention": (2 * (BLOCK + KEYS_VALUES), 2 * (BLOCK + KEYS_VALUES)),
        "rows of <image> and <|endofchunk|>": (4 * 32, 2 * 32),
    }


def test_the_table_shows_them(build):
    model = build()
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(parameter_table(model))
    shown = console.export_text()
    assert f"{RESAMPLER:,}" in shown
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{total:,}" in shown
    assert f"{trained:,}" in shown

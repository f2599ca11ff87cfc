"""Pictures of every kind, and damaged ones."""

import io
import zlib

import numpy as np
import pytest
import tiny
from PIL import Image, PngImagePlugin

from miniflamingo.data.images import UnreadableImage, load_image

RED_BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


def encoded(image, ending="PNG", **settings):
    file = io.BytesIO()
    image.save(file, ending, **settings)
    return file.getvalue()


def claiming(width, height):
    """A PNG of a few bytes whose header claims a size."""
    file = bytearray(encoded(Image.new("L", (1, 1))))
    file[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    return bytes(file)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16"],
)
def test_every_mode_becomes_rgb(mode):
    image = load_image(Image.new(mode, (3, 2)))
    assert (image.mode, image.size) == ("RGB", (3, 2))


@pytest.mark.parametrize("ending", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"])
def test_every_format_of_the_web_is_read(ending):
    image = load_image(encoded(RED_BLUE[0], ending))
    assert np.abs(np.array(image).astype(int) - [255, 0, 0]).max() <= 2


def test_formats_that_start_other_programs_are_not_opened():
    with pytest.raises(UnreadableImage, match="cannot identify"):
        load_image(encoded(RED_BLUE[0], "EPS"))


@pytest.mark.parametrize("ending", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(ending):
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = load_image(encoded(Image.fromarray(levels), ending))
    assert (np.array(image)[..., 1] == levels // 256).all()
    with_transparency = encoded(Image.fromarray(levels), "PNG", transparency=40000)
    assert (np.array(load_image(with_transparency)) == np.array(image)).all()


def test_cmyk_has_its_colours():
    cyan_off = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixel = np.array(load_image(encoded(cyan_off, "JPEG", quality=100)))[4, 4]
    assert np.abs(pixel.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize(
    ("image", "transparency", "expected"),
    [
        (Image.new("RGBA", (1, 1), (0, 0, 0, 0)), None, (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (0, 0, 255, 51)), None, (204, 204, 255)),  # a fifth
        (Image.new("LA", (1, 1), (0, 0)), None, (255, 255, 255)),
        (Image.new("L", (1, 1), 7), 7, (255, 255, 255)),
        (Image.new("L", (1, 1), 7), 8, (7, 7, 7)),
        (Image.new("RGB", (1, 1), (1, 2, 3)), (1, 2, 3), (255, 255, 255)),
        (Image.new("P", (1, 1), 0), 0, (255, 255, 255)),
        (Image.new("1", (1, 1), 0), 0, (255, 255, 255)),
    ],
)
def test_transparency_is_laid_on_white(image, transparency, expected):
    settings = {} if transparency is None else {"transparency": transparency}
    assert load_image(encoded(image, **settings)).getpixel((0, 0)) == expected


@pytest.mark.parametrize("ending", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(ending):
    settings = {"lossless": True} if ending == "WEBP" else {}
    content = encoded(RED_BLUE[0], ending, save_all=True, append_images=[RED_BLUE[1]], **settings)
    assert load_image(content).getpixel((3, 3)) == (255, 0, 0)


CORNER = {  # where EXIF says that the first pixel of the file belongs, of a picture 4 x 2
    1: (0, 0), 2: (3, 0), 3: (3, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 3), 8: (0, 3),
}  # fmt: skip


@pytest.mark.parametrize("orientation", CORNER)
def test_exif_turns_a_picture_upright_once(orientation):
    picture = Image.new("RGB", (4, 2))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encoded(picture, exif=exif))
    assert image.size == ((4, 2) if orientation < 5 else (2, 4))
    assert image.getpixel(CORNER[orientation]) == (255, 0, 0)
    assert load_image(image).tobytes() == image.tobytes()  # decoded twice, turned once


def test_damaged_exif_costs_nothing():
    content = encoded(RED_BLUE[0], "JPEG", exif=b"Exif\0\0no exif at all")
    assert load_image(content).size == (8, 8)


def test_one_pixel_is_a_picture():
    assert load_image(encoded(Image.new("L", (1, 1)))).size == (1, 1)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((20_000, 4_000), "image_broken"),  # so large a picture is decoded, and this one is empty
        ((20_000, 5_000), "image_too_large"),
        ((20_000, 20_000), "image_too_large"),
        ((2**31 - 1, 2**31 - 1), "image_too_large"),
        ((20_000, 100), "image_too_narrow"),
        ((1, 101), "image_too_narrow"),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_bombs_are_refused_by_their_header(size, reason):
    with pytest.raises(UnreadableImage) as error:
        load_image(claiming(*size))
    assert error.value.reason == reason


def test_a_text_that_unpacks_without_end_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "a" * 2_000_000, zip=True)
    content = encoded(RED_BLUE[0], pnginfo=info)
    assert len(content) < 100_000
    with pytest.raises(UnreadableImage, match="too large") as error:
        load_image(content)
    assert error.value.reason == "image_broken"


def test_numbers_that_are_no_colours():
    with pytest.raises(UnreadableImage, match="floating-point numbers"):
        load_image(encoded(Image.new("F", (2, 2)), "TIFF"))


@pytest.mark.parametrize("ending", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_picture_is_found(ending):
    content = encoded(tiny.picture(0, 64), ending)
    with pytest.raises(UnreadableImage, match="cannot read the picture <bytes>") as error:
        load_image(content[: len(content) // 2])
    assert error.value.reason == "image_broken"


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((63, 40), 16, (63, 40)),  # not twice as large as twice the side: untouched
        ((128, 64), 16, (64, 32)),
        ((1000, 700), 16, (48, 34)),
        ((1000, 700), 224, (1000, 700)),
    ],
)
def test_large_pictures_are_shrunk_to_no_less_than_twice_the_side(size, least_side, expected):
    smooth = Image.linear_gradient("L").resize(size).convert("RGB")
    image = load_image(encoded(smooth), least_side)
    assert abs(image.width - expected[0]) <= 1
    assert abs(image.height - expected[1]) <= 1
    difference = np.array(image.resize((16, 16))).astype(int) - np.array(smooth.resize((16, 16)))
    assert np.abs(difference).max() <= 5


def test_large_jpegs_are_shrunk_while_they_are_decoded():
    smooth = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    content = encoded(smooth, "JPEG", quality=95)
    image = load_image(content, 64)
    assert image.size == (200, 150)  # an eighth, still more than 128
    whole = load_image(content)
    assert whole.size == (1600, 1200)
    difference = np.array(image.resize((16, 16))).astype(int) - np.array(whole.resize((16, 16)))
    assert np.abs(difference).max() <= 5


def test_a_picture_that_is_given_open_is_left_as_it_is():
    opened = Image.open(io.BytesIO(encoded(Image.new("RGB", (512, 512)), "JPEG")))
    assert load_image(opened, 16).size == (32, 32)
    assert opened.size == (512, 512)

"""Pictures of every depth become the right 8 bits, and whatever is damaged is refused in words."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.conftest import colour
from vqprior.configs import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data import decode as decoding
from vqprior.runtime.data import load, value_range
from vqprior.runtime.data.decode import UPPER, Unreadable, decode, facts
from vqprior.runtime.data.transform import prepare

DATA = Data(size=(4, 4), channels=1)


def encoded(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, image) if format == "NPY" else image.save(file, format=format, **options)
    return file.getvalue()


def ramp(high: float, dtype: type) -> np.ndarray:
    """4 x 4 values from 0 to `high`."""
    return np.linspace(0, high, 16).astype(dtype).reshape(4, 4)


def upside_down(array: np.ndarray, format: str) -> bytes:
    """Stored turned by a half, with the EXIF orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(Image.fromarray(np.ascontiguousarray(array[::-1, ::-1])), format, exif=exif)


@pytest.mark.parametrize(
    ("found", "whole", "expected"),
    [
        ((0, 200), True, (0, 255)),
        ((3, 1000), True, (0, 1023)),
        ((3, 4095), True, (0, 4095)),
        ((0, 4096), True, (0, 16383)),
        ((0, 60000), True, (0, 65535)),
        ((-5, 60000), True, (-5, 60000)),
        ((0, 70000), True, (0, 70000)),
        ((0.1, 0.9), False, (0, 1)),
        ((-0.9, 0.9), False, (-1, 1)),
        ((0.0, 254.5), False, (0, 255)),
        ((-3.5, 700.0), False, (-3.5, 700.0)),
    ],
)
def test_the_rule_for_what_is_black_and_what_is_white(found, whole, expected):
    assert value_range.guess(found, whole) == expected


WIDE = {
    "float TIFF in [0, 1]": (lambda: encoded(Image.fromarray(ramp(1, np.float32)), "TIFF"), (0, 1)),
    "12 bits in a 16-bit TIFF": (lambda: encoded(Image.fromarray(ramp(4095, np.uint16)), "TIFF"), (0, 4095)),
    "16-bit PNG": (lambda: encoded(Image.fromarray(ramp(65535, np.uint16)), "PNG"), (0, 65535)),
    "16-bit PNG, upside down": (lambda: upside_down(ramp(65535, np.uint16), "PNG"), (0, 65535)),
    "float TIFF, upside down": (lambda: upside_down(ramp(1, np.float32), "TIFF"), (0, 1)),
    "npy int16, negatives": (lambda: encoded(ramp(300, np.int16) - np.int16(150), "NPY"), (-150, 150)),
    "npy float in [-1, 1]": (lambda: encoded(ramp(2, np.float32) - 1, "NPY"), (-1, 1)),
    "npy float in [0, 255]": (lambda: encoded(ramp(255, np.float64), "NPY"), (0, 255)),
    "npy float16": (lambda: encoded(ramp(1, np.float16), "NPY"), (0, 1)),
    "npy uint16, big-endian": (lambda: encoded(ramp(4095, np.uint16).astype(">u2"), "NPY"), (0, 4095)),
    "npy int64, by columns": (lambda: encoded(np.asfortranarray(ramp(255, np.int64)), "NPY"), (0, 255)),
    "int32 TIFF": (lambda: encoded(Image.fromarray(ramp(4095, np.int32)), "TIFF"), (0, 4095)),
    "npy uint16": (lambda: encoded(ramp(1023, np.uint16), "NPY"), (0, 1023)),
    "npy float [H, W, 3]": (lambda: encoded(np.repeat(ramp(1, np.float64)[..., None], 3, 2), "NPY"), (0, 1)),
}


@pytest.mark.parametrize("kind", WIDE)
def test_more_than_8_bits_become_the_right_8(kind):
    content, low_high = WIDE[kind][0](), WIDE[kind][1]
    assert facts(content, "it").kind != "8 bits" and facts(content, "it").width == 4
    expected = np.linspace(0, 255, 16).reshape(4, 4)
    for data in (DATA, replace(DATA, range=low_high)):
        assert abs(prepare(decode(content, "it"), data)[0] - expected).max() <= 1


def png_of_16_bits(values: np.ndarray, *more: tuple[bytes, bytes]) -> bytes:
    """Colours [H, W, 3] as a PNG, which Pillow does not write, and `more` chunks."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def changed(content: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert content.count(old) == 1
        content = content.replace(old, new)
    return content


def test_colours_of_16_bits_are_said_to_be_read_by_their_upper_8():
    values = np.arange(48, dtype=np.uint16).reshape(4, 4, 3) * 257
    of_8_bits = encoded(Image.fromarray(values.astype("<u2").view(np.uint8).reshape(4, 8, 3)), "TIFF")
    width = [struct.pack("<HHII", 256, 4, 1, pixels) for pixels in (8, 4)]
    bits = [struct.pack("<3H", *[bits] * 3) for bits in (8, 16)]
    for content in (png_of_16_bits(values), changed(of_8_bits, (*width,), (*bits,))):
        assert facts(content, "it").kind == UPPER
        assert np.array_equal(decode(content, "it"), values >> 8)
    assert facts(of_8_bits, "it").kind == facts(encoded(colour(0), "PNG"), "it").kind == "8 bits"


def test_colours_of_16_bits_for_all_three_are_read_as_they_are():
    """A BMP of 5, 6 and 5 bits a colour."""
    head = struct.pack("<IiiHHIIiiII3I", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)
    content = b"BM" + struct.pack("<IHHI", 98, 0, 0, 66) + head + struct.pack("<16H", *[0xF800] * 16)
    assert facts(content, "it").kind == "8 bits"
    assert decode(content, "it").getpixel((0, 0)) == (255, 0, 0)


def test_a_tiff_that_pillow_cannot_open_is_said_to_be_one():
    bits = [struct.pack("<HHII", 258, 3, 1, bits) for bits in (32, 64)]
    content = changed(encoded(Image.fromarray(ramp(1, np.float32)), "TIFF"), (*bits,))
    compressed = encoded(colour(0), "TIFF", compression="tiff_lzw")
    for unread in (content, compressed[: len(compressed) // 2]):  # where its directory is at its end
        with pytest.raises(Unreadable, match="damaged, or of a kind that Pillow does not read; save it in"):
            facts(unread, "it")


def test_npy_of_8_bits_is_taken_as_it_is():
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pixels = prepare(decode(encoded(array, "NPY"), "it"), replace(DATA, channels=3))
    assert np.array_equal(pixels, array.transpose(2, 0, 1))
    assert np.array_equal(prepare(decode(encoded(array[..., :1], "NPY"), "it"), DATA)[0], array[..., 0])


def test_the_range_is_that_of_the_whole_set_and_is_kept(tmp_path):
    """A dark picture stays darker than a bright one, although each alone would fill the range."""
    root, run = tmp_path / "pictures", tmp_path / "run"
    root.mkdir(), run.mkdir()
    for index in range(24):
        high = 4000 if index % 2 else 400
        Image.fromarray(ramp(high, np.uint16)).save(root / f"{index:02d}.png")
    data = replace(DATA, root=str(root), validation=0.2, test=0.2)
    begun = load(data, run=run)
    assert begun.data.range == (0, 4095) and "4095 white" in begun.summary()
    tops = sorted({int(begun.train.held[i].max()) for i in range(len(begun.train))})
    assert tops == [25, 249]
    assert load(data, run=run).data.range == (0, 4095)


def test_a_transparent_value_of_a_16_bit_picture_becomes_white_and_no_other_does():
    array = ramp(65535, np.uint16)
    content = encoded(Image.fromarray(array), "PNG", transparency=int(array[0, 1]))
    pixels = prepare(decode(content, "it"), replace(DATA, range=(0, 65535)))[0]
    assert pixels[0, 1] == 255 and pixels[0, 0] == 0 and abs(int(pixels[1, 0]) - 68) <= 1


def test_a_transparent_colour_of_16_bits_becomes_white_and_no_other_does():
    """Pillow keeps the upper byte of each value; the colour is not one whose lower bytes are the same."""
    values = np.array([[(0x1234, 0x5678, 0x9ABC), (0x3400, 0x7800, 0xBC00)]], dtype=np.uint16)
    content = png_of_16_bits(values, (b"tRNS", values[0, 0].astype(">u2").tobytes()))
    made = prepare(decode(content, "it"), Data(size=(1, 2)))
    assert made[:, 0, 0].tolist() == [255, 255, 255] and made[:, 0, 1].tolist() == [0x34, 0x78, 0xBC]


def test_a_transparent_value_does_not_count_where_the_range_is_measured():
    """12 bits in 16, and 65535 marks what is transparent: the range is still that of 12 bits."""
    array = ramp(4095, np.uint16)
    array[0, 1] = 65535
    pixels = prepare(decode(encoded(Image.fromarray(array), "PNG", transparency=65535), "it"), DATA)[0]
    expected = np.linspace(0, 255, 16).reshape(4, 4)
    expected[0, 1] = 255
    assert abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("array", [np.full((4, 4), 5, np.uint16), np.array([[-1e308, 1e308]])])
def test_a_picture_without_a_range_of_its_own_is_refused(array):
    with pytest.raises(UserError, match=r"--data\.range LOW HIGH"):
        prepare(decode(encoded(array, "NPY"), "it"), DATA)
    assert prepare(decode(encoded(array, "NPY"), "it"), replace(DATA, range=(0, 10))).dtype == np.uint8


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(UserError, match=r"10x12, smaller than data\.crop \(11\)"):
        prepare(colour(0), Data(size=(4, 4), crop=11))


def test_a_drafted_photograph_is_nearly_the_whole_one_and_upright():
    photo = colour(1, 600, 900).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    content = encoded(photo, "JPEG", quality=95, exif=exif)
    drafted, whole = decode(content, "it", least=(64, 40)), decode(content, "it")
    assert drafted.size == (150, 225) and whole.size == (600, 900)
    small, large = (prepare(image, Data(size=(64, 40))).astype(float) for image in (drafted, whole))
    assert abs(small - large).mean() < 1
    assert decode(content, "it", least=(400, 300)).size == (600, 900)  # too few pixels to spare
    two = encoded(photo, "MPO", quality=95, save_all=True, append_images=[photo])  # as telephones store them
    assert decode(two, "it", least=(40, 64)).size == (225, 150)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_picture(format, orientation):
    """Of which data.size is suggested, for the photographs of telephones too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(colour(1, 30, 20), format, exif=exif)
    found, upright = facts(content, "it"), decode(content, "it")
    assert (found.width, found.height) == upright.size
    assert upright.size == ((30, 20) if orientation in (6, 8) else (20, 30))


def test_a_png_may_be_turned_by_metadata_of_another_kind():
    note = PngImagePlugin.PngInfo()
    note.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>')
    content = encoded(colour(1, 30, 20), "PNG", pnginfo=note)
    found = facts(content, "it")
    assert (found.width, found.height) == decode(content, "it").size == (30, 20)


def test_what_is_no_picture_is_refused_in_words(monkeypatch):
    png = encoded(colour(0), "PNG")
    for content, words in (
        (None, "a null"),
        (b"", "the file is empty"),
        (b"text", "not a picture of a known format"),
        (png[: len(png) // 2], "it cannot be read|truncated|cannot be read"),
        (encoded(np.full((4, 4), np.nan), "NPY"), "not finite"),
        (encoded(np.zeros((4, 4, 2), np.uint8), "NPY"), "expected"),
        (encoded(np.zeros((4, 4), np.complex64), "NPY"), "complex64"),
        (encoded(np.zeros((4, 4), np.uint16), "NPY")[:-3], "29 bytes of pixels, and its header says 32"),
    ):
        with pytest.raises(Unreadable, match=words):
            decode(content, "row 3 of a file")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(Unreadable, match=r"has 120 pixels, and 100 are the most"):
        decode(png, "it")


def test_the_frames_of_a_picture_are_not_counted(monkeypatch):
    """Counting those of a TIFF takes time with the square of their number."""

    def count(_image):
        raise AssertionError("counted")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(count))
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 100, 200)]
    for kind in ("TIFF", "GIF"):
        for more in ([], frames[1:]):
            content = encoded(frames[0], kind, save_all=True, append_images=more)
            assert facts(content, "it").several == bool(more)


def test_heif_is_read_by_what_it_holds(monkeypatch):
    """Telephones and their clouds call some of it IMG_0001.JPG."""
    pillow_heif, file = pytest.importorskip("pillow_heif"), io.BytesIO()
    pillow_heif.from_pillow(colour(0, 40, 30)).save(file)
    assert facts(file.getvalue(), "it")[:3] == ("HEIF", 30, 40)
    assert decode(file.getvalue(), "it").size == (30, 40)
    monkeypatch.setattr(decoding, "heif_is_there", lambda: False)
    with pytest.raises(Unreadable, match="it is HEIF, whatever its name: pip install pillow-heif"):
        facts(b"\0\0\0\x18ftypheim" + bytes(100), "it")

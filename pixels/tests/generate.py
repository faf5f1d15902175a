"""Writes small image files, and what transformers' image processors make of them.

    python3 generate.py          (with pillow, numpy and transformers installed; made with Pillow 13.0 and transformers 5.24)

For each file in data/ there are, for each rule of RULES, the bytes of the processor's pixels before they are rescaled: rows from the top, red,
green and blue. pixels/tests/processors.rs compares them.
"""

import io
import pathlib

import numpy
from PIL import Image, ImageOps
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

RULES = {
    "vit": ViTImageProcessorPil(size=dict(height=32, width=24), resample=2, do_rescale=False, do_normalize=False),
    "deit": DeiTImageProcessorPil(size=dict(height=40, width=41), crop_size=dict(height=32, width=32), resample=3, do_rescale=False,
                                  do_normalize=False),
}


def picture(seed, height, width, channels):
    """Smooth colours with an edge and some noise."""
    random = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    waves = [127 + 100 * numpy.sin(x / (5 + c) + y / (9 - c) + c) for c in range(channels)]
    image = numpy.stack(waves, -1) + random.normal(0, 12, (height, width, channels))
    image[: height // 3, width // 2:] = 255 - image[: height // 3, width // 2:]
    return image.clip(0, 255).astype(numpy.uint8)


def main():
    data = pathlib.Path(__file__).parent / "data"
    data.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # Held on its side.
    images = {
        "wide.png": Image.fromarray(picture(1, 45, 70, 3)),
        "small.png": Image.fromarray(picture(2, 11, 9, 3)),
        "gray.png": Image.fromarray(picture(3, 50, 40, 1)[..., 0]),
        "alpha.png": Image.fromarray(picture(4, 40, 41, 4)),
        "turned.jpg": Image.fromarray(picture(5, 48, 64, 3)),
        "gray.jpg": Image.fromarray(picture(6, 37, 53, 1)[..., 0]),
    }
    for name, image in images.items():
        path = data / name
        # Without subsampled colours: decoders differ in how they fill them in, which is no matter of resizing.
        options = dict(quality=90, subsampling=0, exif=exif if name == "turned.jpg" else b"") if name.endswith("jpg") else {}
        image.save(path, **options)
        # As transformers loads images.
        loaded = ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes()))).convert("RGB")
        for rule, processor in RULES.items():
            pixels = processor(loaded, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
            (data / f"{name}.{rule}.rgb").write_bytes(pixels.astype(numpy.uint8).tobytes())


main()

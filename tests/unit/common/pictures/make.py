#!/usr/bin/env python3
"""Makes the pictures beside it: one of each kind that people send, all of the same 16 x 12 pixels.

Upper left red, upper right green, lower left blue, lower right white. Needs Pillow and, for what
that cannot write, libvips's command `vips` (Debian: libvips-tools). The tests read the files; run
this again only to add one.
"""

import subprocess
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 16, 12
COLOURS = ((220, 30, 30), (30, 160, 60), (30, 60, 200), (255, 255, 255))


def picture() -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for i, colour in enumerate(COLOURS):
        image.paste(colour, (i % 2 * WIDTH // 2, i // 2 * HEIGHT // 2, WIDTH // 2 * (i % 2 + 1), HEIGHT // 2 * (i // 2 + 1)))
    return image


def vips(*words: str) -> None:
    subprocess.run(["vips", *words], check=True)


def main() -> None:
    image = picture()
    source = HERE / "source.png"
    image.save(source)
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    transparent.save(HERE / "alpha.png")
    transparent.save(HERE / "alpha.webp", lossless=True)
    image.save(HERE / "lossy.webp", quality=95)
    image.convert("CMYK").save(HERE / "cmyk.jpeg", quality=95)
    image.convert("L").save(HERE / "grey.jpeg", quality=95)
    image.save(HERE / "progressive.jpeg", quality=95, progressive=True, subsampling=0)
    other = Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 0))
    image.save(HERE / "animated.gif", save_all=True, append_images=[other, other], duration=100)
    image.save(HERE / "animated.webp", save_all=True, append_images=[other, other], lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise by a quarter
    image.rotate(90, expand=True).save(HERE / "turned.webp", lossless=True, exif=exif)
    image.rotate(90, expand=True).save(HERE / "turned.png", exif=exif)
    vips("heifsave", str(source), str(HERE / "still.avif"), "--compression", "av1", "--Q", "95")
    vips("cast", str(source), str(HERE / "wide.v"), "ushort")
    vips("linear", str(HERE / "wide.v"), str(HERE / "wider.v"), "257", "0")
    vips("cast", str(HERE / "wider.v"), str(HERE / "wide.v"), "ushort")
    vips("copy", str(HERE / "wide.v"), str(HERE / "deep.png"), "--interpretation", "rgb16")
    vips("cast", str(HERE / "alpha.png"), str(HERE / "wide.v"), "ushort")
    vips("linear", str(HERE / "wide.v"), str(HERE / "wider.v"), "257", "0")
    vips("cast", str(HERE / "wider.v"), str(HERE / "wide.v"), "ushort")
    vips("copy", str(HERE / "wide.v"), str(HERE / "deep-alpha.png"), "--interpretation", "rgb16")
    vips("icc_transform", str(source), str(HERE / "p3.png"), "p3", "--input-profile", "srgb")
    for name in ("wide.v", "wider.v"):
        (HERE / name).unlink()


if __name__ == "__main__":
    main()

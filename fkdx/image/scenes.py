"""Draw a data set of JPEG scenes in which a crop often shows another class than its image's.

A scene is a textured background with one large object, whose class is the image's class, and several small
objects of other classes. A random crop may show only one of those; then the image's class is a wrong label
and a teacher's soft label is not. Stored crops with soft labels were made for that situation.
"""

from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

CLASSES = ("arrow", "circle", "cross", "moon", "ring", "square", "star", "triangle")
HEIGHT, WIDTH = 112, 144


def draw_folder(folder: Path, images: int, seed: int) -> None:
    """Write `images` scenes as `folder/<class>/<number>.jpg`, classes in turn, the same for the same seed."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(images), desc=f"draw {folder.name}", unit="image", disable=None):
        rng = np.random.default_rng([seed, number])
        main = number % len(CLASSES)
        path = folder / CLASSES[main] / f"{number:05d}.jpg"
        if not cv2.imwrite(str(path), draw_scene(main, rng), [cv2.IMWRITE_JPEG_QUALITY, 90]):
            raise OSError(f"draw_folder: cannot write, {path}")


def draw_scene(main: int, rng: np.random.Generator) -> np.ndarray:
    """One scene, (HEIGHT, WIDTH, 3) uint8: a large object of class `main` among small ones of others."""
    scene = _background(rng)
    others = [name for name in range(len(CLASSES)) if name != main]
    for cls in rng.choice(others, size=rng.integers(3, 6)):
        _draw_object(scene, cls, radius=rng.uniform(11, 17), rng=rng)
    _draw_object(scene, main, radius=rng.uniform(24, 34), rng=rng)
    return scene


def _background(rng: np.random.Generator) -> np.ndarray:
    """Smooth colour noise with a few stripes."""
    coarse = rng.uniform(75, 180, (4, 5, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / rng.uniform(2, 7))
    scene += rng.uniform(3, 15) * wave[..., None] + rng.normal(0, 5, scene.shape)
    return np.clip(scene, 0, 255).astype(np.uint8)


def _draw_object(scene: np.ndarray, cls: int, radius: float, rng: np.random.Generator) -> None:
    """Stamp one object at a random place and angle, in a colour that stands out from what is under it."""
    margin = radius * 0.8
    centre = rng.uniform((margin, margin), (WIDTH - margin, HEIGHT - margin))
    mask = np.zeros(scene.shape[:2], np.uint8)
    _fill_shape(mask, CLASSES[cls], centre, radius, rng.uniform(0, 2 * np.pi))
    under = scene[mask > 0].mean(axis=0) if mask.any() else np.zeros(3)
    colour = np.where(under > 127, under - rng.uniform(60, 120, 3), under + rng.uniform(60, 120, 3))
    shade = rng.normal(0, 10, scene.shape[:2])[..., None]
    scene[mask > 0] = np.clip(colour + shade, 0, 255)[mask > 0].astype(np.uint8)


def _fill_shape(mask: np.ndarray, name: str, centre: np.ndarray, radius: float, angle: float) -> None:
    """Fill `mask` with 255 where the shape is."""

    def at(distance: float, turn: float) -> np.ndarray:
        return centre + radius * distance * np.array([np.cos(angle + turn), np.sin(angle + turn)])

    def polygon(points: list[np.ndarray]) -> None:
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 255)

    def disc(at_point: np.ndarray, size: float, value: int = 255) -> None:
        cv2.circle(mask, tuple(int(v) for v in np.round(at_point)), round(float(size)), value, -1)

    if name == "circle":
        disc(centre, radius * 0.9)
    elif name == "ring":
        disc(centre, radius)
        disc(centre, radius * 0.55, 0)
    elif name == "moon":
        disc(centre, radius)
        disc(at(0.55, 0), radius * 0.8, 0)
    elif name in ("triangle", "square"):
        corners = {"triangle": 3, "square": 4}[name]
        polygon([at(1, 2 * np.pi * k / corners) for k in range(corners)])
    elif name == "star":
        polygon([at(1 if k % 2 == 0 else 0.42, np.pi * k / 5) for k in range(10)])
    elif name == "cross":
        for turn in (0, np.pi / 2):
            polygon(
                [at(1, turn - 0.3), at(1, turn + 0.3), at(1, turn + np.pi - 0.3), at(1, turn + np.pi + 0.3)]
            )
    elif name == "arrow":
        polygon([at(1, 0), at(0.9, 2.2), at(0.25, np.pi), at(0.9, -2.2)])

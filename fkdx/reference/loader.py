"""Which image and which of its crops come at which step."""

from fkdx.reference.image import mix_words, random_word


def permutation(stream: int, count: int) -> list[int]:
    """0 ... count - 1 in random order: sorted by 32 random bits, equal ones by number."""
    return sorted(range(count), key=lambda i: (random_word(stream, i)[0], i))


def planned_batch(
    stored: list[int],
    batch_images: int,
    crops_per_image: int,
    seed: int,
    epoch: int,
    step: int,
    choice: str,
    window: tuple[float, float] = (0, 1),
    epochs: int = 1,
) -> list[tuple[int, list[int]]]:
    """The global batch of a step: (image, its crops) in order. `stored[i]` is how many crops image i has.

    Choices with a window number crops from the easiest to the hardest.
    """
    order = permutation(mix_words([seed, 0, epoch]), len(stored))
    batch = []
    for position in range(step * batch_images, (step + 1) * batch_images):
        lap, place = divmod(position, len(order))
        image = order[place]
        if choice == "independent":
            fresh = permutation(mix_words([seed, 1, image, epoch, lap]), stored[image])
            crops = fresh[:crops_per_image]
        elif choice != "cycle":
            done = 0.0 if choice == "range" else min(epoch / max(epochs - 1, 1), 1.0)
            moved = 1 - done if choice == "hard_to_easy" else done
            low, high = (edge + (1 - window[0] - window[1]) * moved for edge in window)
            first, last = round(low * stored[image]), round(high * stored[image])
            last = min(max(last, first + crops_per_image), stored[image])
            first = min(first, last - crops_per_image)
            fresh = permutation(mix_words([seed, 1, image, epoch, lap]), last - first)
            crops = [first + place for place in fresh[:crops_per_image]]
        else:
            crops = []
            for shown in range(epoch, epoch + crops_per_image):
                number, place = divmod(shown, stored[image])
                crops.append(permutation(mix_words([seed, 2, image, number]), stored[image])[place])
        batch.append((image, crops))
    return batch

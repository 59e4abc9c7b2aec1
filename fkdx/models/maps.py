"""ReLabel's shortcut (Yun et al., CVPR 2021): one forward an image gives a map of logits, out of which the
logits of all crops are pooled.

An approximation: a crop is seen at the scale and in the surroundings of the whole image, never enlarged to
the teacher's input, and mirrored crops get the labels of plain ones. docs/log.md says how far it is off.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from fkdx.models.teacher import Teacher


class MapTeacher(Teacher):
    """A fully convolutional teacher that sees whole images, squeezed to `size` x `size` pixels.

    Calling it with images (n, size, size, 3) and places (n, M, 4), boxes as parts of the image (top, left,
    height, width), gives the mean logits inside the boxes, (n * M, C).
    """

    answers = "(images, classes, rows, columns)"

    def __call__(self, images: Tensor, places: Tensor) -> Tensor:
        maps = self.run(images)
        rows, columns = maps.shape[2:]
        top, left, height, width = places.to(maps).unbind(dim=2)
        boxes = torch.stack(
            [left * columns, top * rows, (left + width) * columns, (top + height) * rows], dim=2
        )
        return roi_align(maps, list(boxes), output_size=1, aligned=True).flatten(1)

    def _forward(self, images: Tensor) -> Tensor:
        features = self._encode(images)
        if features.ndim != 4:
            raise ValueError("it is not fully convolutional")
        cells = features.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]
        logits = self._classify(cells)
        return logits.unflatten(0, (len(features), *features.shape[2:])).permute(0, 3, 1, 2).contiguous()

    def _halves(self, model: nn.Module) -> tuple:
        if not hasattr(model, "forward_head"):
            raise ValueError(f"teacher: {self.name} is not one of timm's, whose features and classifier part")
        return model.forward_features, model.forward_head

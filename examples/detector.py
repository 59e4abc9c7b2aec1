"""torchvision's Faster R-CNN on a ResNet-50 that fkdx trained: python examples/detector.py last.safetensors

timm and torchvision use the same names for a ResNet's weights; a detector only leaves out the classifier.
"""

import sys

import torch
from safetensors.torch import load_file
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def detector(weights: str, classes: int) -> FasterRCNN:
    """Batch norms and the first two stages stay as they are, as is usual for detectors."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    learned = {name: value for name, value in load_file(weights).items() if not name.startswith("fc.")}
    backbone.body.load_state_dict(learned)
    return FasterRCNN(backbone, num_classes=classes)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    model = detector(sys.argv[1], classes=91).eval()  # COCO's classes
    found = model([torch.rand(3, 480, 640)])[0]
    print(*found)

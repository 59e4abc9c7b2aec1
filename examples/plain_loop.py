"""fkdx in your own training loop: python examples/plain_loop.py IMAGES LABELS BATCH_SIZE EPOCHS"""

import sys

import timm
import torch

import fkdx

if len(sys.argv) != 5:
    sys.exit(__doc__)
images, path, batch_size, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
labels = fkdx.LabelFile(path)
loader = fkdx.CropLoader(images, labels, batch_size, crops_per_image=4, size=224)
student = timm.create_model("resnet18", num_classes=labels.num_classes)
optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
for epoch in range(0, epochs, loader.crops_per_image):
    loader.set_epoch(epoch)
    for batch in loader:
        crops, target = batch.prepared()
        loss = fkdx.soft_cross_entropy(student(crops), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + loader.crops_per_image}: loss {loss.item():.3f}")

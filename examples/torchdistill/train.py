"""Run a torchdistill configuration: python examples/torchdistill/train.py CONFIG [DEVICE]

The YAML files in this folder name the images, labels and weights. They have the format of torchdistill's own
examples/torchvision/image_classification.py; use that for several GPUs, checkpoints and logs.
"""

import sys
from pathlib import Path

import torch
import torchvision  # noqa: F401 (torchdistill looks for it among the modules that are loaded)
from torchdistill.common.main_util import import_dependencies
from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.training import get_training_box
from torchdistill.models.official import get_image_classification_model

if len(sys.argv) < 2:
    sys.exit(__doc__)
config = load_yaml_file(sys.argv[1])
device = torch.device(sys.argv[2] if len(sys.argv) > 2 else "cuda")
import_dependencies(config.get("dependencies"))

models = {}
for name, wanted in config["models"].items():
    models[name] = get_image_classification_model(wanted).to(device)
    if weights := wanted.get("src_ckpt"):
        models[name].load_state_dict(torch.load(weights, map_location=device))
student, teacher = models["student_model"], models.get("teacher_model")
rest = (config["datasets"], config["train"], device, None, False, 1)
box = get_distillation_box(teacher, student, *rest) if teacher else get_training_box(student, *rest)

for epoch in range(box.num_epochs):
    box.pre_epoch_process(epoch=epoch)
    for images, targets, supplement in box.train_data_loader:
        loss = box.forward_process(images.to(device), targets.to(device), supplement)
        box.post_forward_process(loss=loss)
    box.post_epoch_process()

    student.eval()
    right = 0
    with torch.inference_mode():
        for images, classes in box.val_data_loader:
            right += (student(images.to(device)).argmax(1).cpu() == classes).sum().item()
    top1 = 100 * right / len(box.val_data_loader.dataset)
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, top-1 {top1:.2f}%", flush=True)

path = Path(config["models"]["student_model"]["dst_ckpt"])
path.parent.mkdir(parents=True, exist_ok=True)
torch.save(student.state_dict(), path)

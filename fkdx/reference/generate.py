"""What a teacher says of crops."""


def teacher_probabilities(model, path, boxes, flips, preprocess, temperature):
    """(M, C) float32: softmax(model / temperature) of every crop, one at a time, by Pillow and torchvision.

    `preprocess` has size, interpolation ("bilinear" or "bicubic"), mean and std.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import functional as transforms

    image = Image.open(path).convert("RGB")
    rows = []
    for (top, left, height, width), flip in zip(boxes.tolist(), flips):
        crop = image.crop((left, top, left + width, top + height))
        resample = Image.Resampling[preprocess.interpolation.upper()]
        crop = crop.resize((preprocess.size, preprocess.size), resample)
        crop = transforms.hflip(crop) if flip else crop
        pixels = transforms.normalize(transforms.to_tensor(crop), preprocess.mean, preprocess.std)
        with torch.no_grad():
            rows.append(torch.softmax(model(pixels[None])[0] / temperature, dim=0))
    return torch.stack(rows)

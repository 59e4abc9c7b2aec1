from fkdx._C import FormatError as FormatError
from fkdx._C import ImageError as ImageError
from fkdx._version import __version__ as __version__
from fkdx.batch import Mixer as Mixer
from fkdx.batch import prepare as prepare
from fkdx.batch import topk_probabilities as topk_probabilities
from fkdx.calibration import Calibration as Calibration
from fkdx.image import decode_crops as decode_crops
from fkdx.image import image_size as image_size
from fkdx.image import resize_crops as resize_crops
from fkdx.image import validation_crop as validation_crop
from fkdx.labels import LabelFile as LabelFile
from fkdx.labels import LabelWriter as LabelWriter
from fkdx.loader import CropLoader as CropLoader
from fkdx.loader import ValidationLoader as ValidationLoader
from fkdx.loss import SparseTarget as SparseTarget
from fkdx.loss import binary_cross_entropy as binary_cross_entropy
from fkdx.loss import loss_and_grad as loss_and_grad
from fkdx.loss import soft_cross_entropy as soft_cross_entropy

__all__: list[str]

"""Types of the extension; written by tools/stub.py."""

import collections.abc
import numpy
import numpy.typing
import typing
import typing_extensions

class ImageError(ValueError):
    pass

class FormatError(ValueError):
    pass

class CropDecoder:
    """
    One a thread: decodes an image once for all its crops.
    """
    def __init__(self) -> None: ...
    def decode_box(
        self,
        data: bytes,
        top: int,
        left: int,
        height: int,
        width: int,
        allow_warnings: bool,
        plain: bool,
        whole_file: bool = False,
        entries: bytes = b"",
    ) -> numpy.typing.NDArray[numpy.uint8]:
        """
        Pixels of a box as they are: (height, width, 3). plain: by libjpeg-turbo alone, the judge.
        """
    def decode_coefficients_only(self, arg0: bytes) -> None:
        """
        Entropy decoding alone, for benchmarks.
        """
    def decode_crops(
        self,
        data: bytes,
        boxes: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        flips: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
        size: int,
        bicubic: bool,
        pillow13: bool,
        allow_warnings: bool,
        whole_file: bool,
        out: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
        entries: bytes = b"",
    ) -> None: ...
    def decode_region_only(
        self, arg0: bytes, arg1: typing.Annotated[numpy.typing.ArrayLike, numpy.int32]
    ) -> None:
        """
        What libjpeg-turbo alone needs, for benchmarks.
        """
    def decode_validation(
        self,
        arg0: bytes,
        arg1: int,
        arg2: int,
        arg3: bool,
        arg4: bool,
        arg5: bool,
        arg6: bool,
        arg7: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
    ) -> None: ...
    def make_entry_points(self, data: str, share: float = 0.015, least_step: int = 1) -> bytes:
        """
        Coded entry points of a sound baseline JPEG; of others, no bytes.
        """
    def read_size(self, arg0: bytes) -> tuple: ...
    def read_units_only(
        self, arg0: str, arg1: typing.Annotated[numpy.typing.ArrayLike, numpy.int32], arg2: str
    ) -> None:
        """
        Entropy decoding of the boxes' units alone, for benchmarks.
        """
    def resize_crops(
        self,
        arg0: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
        arg1: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        arg2: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
        arg3: int,
        arg4: bool,
        arg5: bool,
        arg6: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
    ) -> None: ...
    def resize_validation(
        self,
        arg0: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
        arg1: int,
        arg2: int,
        arg3: bool,
        arg4: bool,
        arg5: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
    ) -> None: ...
    @property
    def entry_use(self) -> str:
        """
        Of the last image: 'none', 'used' or 'misfit'.
        """
    @property
    def harmless_warnings(self) -> int:
        """
        libjpeg's warnings about the last JPEG that can change no pixel.
        """
    @property
    def times(self) -> dict:
        """
        Seconds by stage since the decoder was made.
        """

class LabelSet:
    def __init__(self, paths: collections.abc.Sequence[str], io: str) -> None: ...
    def block(self, image: int) -> tuple: ...
    def check_images(self) -> None: ...
    def facts(self) -> dict: ...
    def files(self) -> list: ...
    def find(self, key: str) -> int: ...
    def forget(self) -> None: ...
    def gather(
        self,
        images: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
        crops: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    ) -> tuple: ...
    def gather_mixes(
        self,
        images: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
        crops: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    ) -> tuple: ...
    def gather_tails(
        self,
        images: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
        crops: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    ) -> numpy.typing.NDArray[numpy.float32]: ...
    def index_bytes(self, file: int) -> numpy.ndarray: ...
    def key(self, image: int) -> str: ...
    def key_arrays(self, file: int) -> tuple: ...
    def verify(self, file: int) -> None: ...
    @property
    def images(self) -> int: ...

class LabelCodec:
    def __init__(
        self,
        kind: int,
        encoding: int,
        value_type: int,
        num_classes: int,
        k: int,
        required: int,
        mix_size: int,
        images: int,
    ) -> None: ...
    def decode_values(self, height: int, width: int, block: bytes, crops: int) -> tuple: ...
    def encode(self, height: int, width: int, arrays: dict, extra: bytes, repair: bool) -> tuple: ...
    def encode_many(
        self,
        keys: collections.abc.Sequence[str],
        sizes: typing.Annotated[numpy.typing.ArrayLike, numpy.uint16],
        arrays: dict,
        repair: bool,
        id: bytes,
        start: int,
    ) -> tuple: ...
    def stride(self, height: int, width: int) -> int:
        """
        Bits of a record.
        """

class RandomCrops:
    def __init__(self, scale: tuple[float, float], ratio: tuple[float, float], flip: float) -> None: ...
    def draw(self, stream: int, height: int, width: int, first: int, count: int) -> tuple: ...

class View:
    def __init__(
        self,
        size: int,
        interpolation: str = "bilinear",
        resample: str = "pillow12",
        allow_warnings: bool = False,
        boxes: str = "pixels",
        resize: int = 256,
        random: RandomCrops | None = None,
        whole_file: bool = False,
    ) -> None: ...

class EntryTable:
    def __init__(
        self,
        starts: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        coded: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
        numbers: typing.Annotated[numpy.typing.ArrayLike, numpy.int32] | None = None,
    ) -> None: ...
    def of(self, image: int) -> bytes:
        """
        The coded entry points of an image of the store; empty where it has none.
        """

class Pending:
    def cancel(self) -> None: ...
    def cancelled(self) -> list[int]: ...
    def encoded(self, image: int) -> bytes: ...
    def failed(self) -> list[int]: ...
    def foreign(self) -> list[int]: ...
    def raise_error(self, image: int) -> None: ...
    def sizes(self) -> numpy.typing.NDArray[numpy.int32]: ...
    def wait(self, seconds: float) -> bool: ...
    def waiting(self) -> list[int]: ...
    def warned(self) -> list[int]:
        """
        After `wait`: images with warnings that change no pixel.
        """

class Pool:
    def __init__(self, threads: int, cache_bytes: int = 0) -> None: ...
    def check_process(self) -> None: ...
    def close(self) -> None: ...
    def stages(self) -> dict: ...
    def submit(
        self,
        view: View,
        places: collections.abc.Sequence[tuple[str, int, int]],
        indices: collections.abc.Sequence[int],
        counts: collections.abc.Sequence[int],
        images: numpy.typing.NDArray[numpy.uint8],
        boxes: numpy.typing.NDArray[numpy.int32],
        flips: numpy.typing.NDArray[numpy.uint8],
        ratios: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None = None,
        sizes: collections.abc.Sequence[tuple[int, int]] = [],
        streams: collections.abc.Sequence[int] = [],
        first_crops: collections.abc.Sequence[int] = [],
        urgent: bool = False,
        entries: typing.Any = None,
        held: collections.abc.Sequence[str] = [],
    ) -> Pending: ...
    @property
    def threads(self) -> int: ...

class KeyTable:
    @staticmethod
    def decode(
        coded: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8], size: int, path: str
    ) -> KeyTable: ...
    @staticmethod
    def sort(keys: collections.abc.Sequence[str], where: str) -> tuple: ...
    def __init__(
        self,
        starts: typing.Annotated[numpy.typing.ArrayLike, numpy.uint32],
        text: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
    ) -> None: ...
    def __len__(self) -> int: ...
    def check(self, where: str) -> None: ...
    def classes_of(self, names: collections.abc.Sequence[str]) -> numpy.typing.NDArray[numpy.int32]: ...
    def code(self) -> tuple: ...
    def find(self, key: str) -> int: ...
    def first_folders(self) -> list[str]: ...
    def join(self, there: KeyTable) -> numpy.typing.NDArray[numpy.int32]: ...
    def join_canonical(
        self,
        there: KeyTable,
        names: collections.abc.Sequence[str],
        numbers: typing.Annotated[numpy.typing.ArrayLike, numpy.int32],
        found: numpy.typing.NDArray[numpy.int32],
    ) -> list[typing.Annotated[list[int], "FixedSize(4)"]]: ...
    def key(self, image: int) -> str: ...
    @property
    def starts(self) -> numpy.typing.NDArray[numpy.uint32]: ...
    @property
    def text(self) -> numpy.typing.NDArray[numpy.uint8]: ...

class FolderWalk:
    def __init__(self, root: str, threads: int) -> None: ...
    def found(self) -> int: ...
    def keys(self) -> KeyTable: ...
    def wait(self, seconds: float) -> bool: ...

class LossSource:
    """
    A table of labels in memory; see Source in csrc/loss/target.h.
    """
    def __init__(
        self,
        ids: int,
        ids_type: int,
        ids_stride: int,
        values: int,
        values_type: int,
        values_stride: int,
        num_rows: int,
        k: int,
        rows: int,
        weights: int,
        weight: float,
        tail: bool,
    ) -> None: ...

class LossDense:
    """
    A dense target in memory; see DenseTarget in csrc/loss/loss.h.
    """
    def __init__(self, values: int, type: int, stride: int, inv_temperature: float) -> None: ...

def build_info() -> dict:
    """
    Facts of this build: version, compiler, libjpeg-turbo, CUDA targets.
    """

def canonical_key(key: str, class_name: str = "") -> str: ...
def crc32c(data: typing_extensions.Buffer, crc: int = 0) -> int:
    """
    CRC-32C of a buffer, continuing `crc`.
    """

def cuda_check(error: int, what: str) -> None:
    """
    RuntimeError with what an error code of CUDA's runtime means and what to do; nothing for 0.
    """

def cuda_device_count() -> int:
    """
    GPUs that this build's CUDA can use, or an error with the reason.
    """

def file_sizes(
    root: str, keys: KeyTable, begin: int, end: int, threads: int
) -> numpy.typing.NDArray[numpy.int64]: ...
def force_cpu(name: str) -> None: ...
def is_jpeg(arg0: bytes) -> bool: ...
def loss_cpu(
    logits: int,
    type: int,
    rows: int,
    classes: int,
    logits_stride: int,
    sources: collections.abc.Sequence[LossSource],
    dense: LossDense,
    link: int,
    inv_temperature: float,
    scale: float,
    scales: int,
    scale_stride: int,
    loss: int,
    grad: int,
    grad_stride: int,
    threads: int,
) -> None:
    """
    Soft or binary cross-entropy of every row; see LossCall in csrc/loss/loss.h.
    """

def loss_cuda(
    logits: int,
    type: int,
    rows: int,
    classes: int,
    logits_stride: int,
    sources: collections.abc.Sequence[LossSource],
    dense: LossDense,
    link: int,
    inv_temperature: float,
    scale: float,
    scales: int,
    scale_stride: int,
    loss: int,
    grad: int,
    grad_stride: int,
    device: int,
    stream: int,
    kernel: int,
) -> None:
    """
    The same on a GPU; see csrc/loss/loss_cuda.h.
    """

def mix_words(arg0: collections.abc.Sequence[int]) -> int: ...
def prepare_cpu(
    images: int,
    out: int,
    mix: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    shape: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    scale: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
    bias: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
    type: int,
    threads: int,
    others: tuple[int, int] | None = None,
) -> None:
    """
    Normalise and mix uint8 images; see csrc/batch/prepare.h.
    """

def prepare_cuda(
    images: int,
    out: int,
    mix: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    shape: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    scale: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
    bias: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
    type: int,
    device: int,
    stream: int,
    others: tuple[int, int] | None = None,
) -> None:
    """
    The same on a GPU.
    """

def selected_cpu() -> str: ...
def supported_cpus() -> list[str]: ...
def topk_cuda(
    arg0: int,
    arg1: int,
    arg2: int,
    arg3: int,
    arg4: int,
    arg5: int,
    arg6: float,
    arg7: int,
    arg8: int,
    arg9: bool,
    arg10: int,
    arg11: int,
) -> None:
    """
    Softmax and top-k of every row on a GPU; see csrc/batch/topk.h.
    """

def vector_exp2(arg0: float) -> float:
    """
    2^x, x <= 0, as the loss computes it.
    """

max_topk: int = 16
max_topk_classes: int = 22528

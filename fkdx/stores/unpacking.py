"""Compressed data, unpacked to the size that it is said to have and never to more."""

import bz2
import gzip
import io
import zlib

from fkdx.errors import refuse

LARGEST_IMAGE = 256 << 20  # bytes, as for the loaders, which read no larger file
_ARROW_NAMES = {"zstd": "zstd", "br": "brotli", "snappy": "snappy"}


def unpack(data: bytes, method: str, size: int | None, where: str) -> bytes:
    """What `data` holds, compressed by `method`: deflate, gz, bz2, zstd, br or snappy.

    Args:
        size: bytes that it has to have; None: any number that an image may have.
        where: what this is, and its path, for messages.

    Raises ValueError where it has another size or is damaged, or pyarrow, which reads the last three, is
    missing.
    """
    most = LARGEST_IMAGE if size is None else size
    try:
        found = _first_bytes(data, method, most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"unpack: damaged {method} data ({error}); copy the file again, {where}") from None
    except ModuleNotFoundError:
        raise ValueError(
            f"unpack: reading {method} needs pyarrow; run: pip install 'fkdx[parquet]', {where}"
        ) from None
    if len(found) > most:
        refuse("unpack", "size", "more", f"at most {most} bytes" if size is None else f"{most} bytes", where)
    if size is not None and len(found) < size:
        refuse("unpack", "size", len(found), f"{size} bytes", where)
    return found


def _first_bytes(data: bytes, method: str, count: int) -> bytes:
    """At most `count` bytes; no more are unpacked."""
    if method == "deflate":
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        found = inflater.decompress(data, count)
        if len(found) < count and not inflater.eof:
            raise EOFError("it ends early")
        return found
    if method == "gz":
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(count)
    if method == "bz2":
        return bz2.BZ2File(io.BytesIO(data)).read(count)
    import pyarrow

    if method == "snappy":  # a block that begins with its size
        size = _size_of_snappy(data)
        return pyarrow.decompress(data, size, "snappy", asbytes=True) if size < count else bytes(count)
    return pyarrow.CompressedInputStream(pyarrow.BufferReader(data), _ARROW_NAMES[method]).read(count)


def _size_of_snappy(data: bytes) -> int:
    """What a snappy block says first: seven bits a byte, the lowest first. OSError where it does not."""
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 127) << 7 * place
        if byte < 128:
            return size
    raise OSError("no size")

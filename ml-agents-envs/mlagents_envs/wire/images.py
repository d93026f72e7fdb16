"""Images as they stand on the wire: one or more PNG files back to back, of three channels each."""

from __future__ import annotations

import io
import math
import struct
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.exception import UnityObservationException

PNG_HEADER = b"\x89PNG\r\n\x1a\n"

_CHUNK = struct.Struct(">I4s")
"""Before each chunk of a PNG file: the length of its content, and its kind; four bytes of checksum follow it."""
_SIZE = struct.Struct(">II")
"""What the content of the first chunk begins with: width and height."""
_CHANNELS_PER_FILE = 3


def decode_image(
    data: bytes, n_channels: int, mapping: Sequence[int] = (), size: Optional[Tuple[int, int]] = None
) -> NDArray[np.float32]:
    """Return an image (`n_channels`, H, W), its pixels from 0 to 1.

    Without `mapping` the image has the first channels of all files, one after the other; an image of one channel has
    the mean of them.

    :param mapping: for each channel of the files the channel of the image that it belongs to, -1 for none; channels
        that belong to the same one are averaged.
    :param size: height and width that the image must have; it is checked before anything is decompressed.
    :raises UnityObservationException: the data are not such an image.
    """
    if mapping:
        return _mapped(data, n_channels, np.asarray(mapping), size)
    files = _decode_files(data, size, None if n_channels == 1 else math.ceil(n_channels / _CHANNELS_PER_FILE))
    if n_channels == 1:
        gray: NDArray[np.float32] = _joined(list(files)).mean(axis=0, keepdims=True, dtype=np.float32)
        gray /= 255
        return gray
    channels = _joined(list(files))[:n_channels]
    if len(channels) < n_channels:
        raise UnityObservationException(f"it has {len(channels)} channels, and {n_channels} were announced")
    image: NDArray[np.float32] = channels / np.float32(255)
    return image


def _mapped(
    data: bytes, n_channels: int, mapping: NDArray[np.int_], size: Optional[Tuple[int, int]]
) -> NDArray[np.float32]:
    channels = _joined(list(_decode_files(data, size, math.ceil(len(mapping) / _CHANNELS_PER_FILE))))
    if len(channels) != len(mapping):
        raise UnityObservationException(f"it has {len(channels)} channels, and its mapping is of {len(mapping)}")
    kept = mapping >= 0
    if set(mapping[kept].tolist()) != set(range(n_channels)):
        raise UnityObservationException(
            f"its mapping {mapping.tolist()} does not fill the {n_channels} channels that were announced"
        )
    sources = np.zeros((n_channels, len(mapping)), dtype=np.float32)
    sources[mapping[kept], np.flatnonzero(kept)] = 1.0
    image: NDArray[np.float32] = np.tensordot(sources, channels.astype(np.float32), axes=1)
    image /= sources.sum(axis=1)[:, None, None]
    image /= 255
    return image


def _joined(files: List[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if len({file.shape for file in files}) > 1:
        raise UnityObservationException("its PNG files differ in size")
    return files[0] if len(files) == 1 else np.concatenate(files)


def _decode_files(data: bytes, size: Optional[Tuple[int, int]], at_most: Optional[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the files' pixels (3, H, W); no more than are asked for are looked at."""
    start = 0
    n_files = 0
    while start < len(data) and (at_most is None or n_files < at_most):
        end = _end_of_file(data, start)
        width, height = _SIZE.unpack_from(data, start + len(PNG_HEADER) + _CHUNK.size)
        if size is not None and (height, width) != size:
            raise UnityObservationException(
                f"a PNG file in it is {height} pixels high and {width} wide, and {size[0]} and {size[1]} were announced"
            )
        yield _decode_file(data[start:end])
        n_files += 1
        start = end
    if n_files == 0:
        raise UnityObservationException("it holds no PNG file")


def _end_of_file(data: bytes, start: int) -> int:
    """Return where the PNG file that begins at `start` ends."""
    at = start + len(PNG_HEADER)
    if data[start:at] != PNG_HEADER:
        raise UnityObservationException(f"its data are no PNG file from byte {start} on")
    kind = None
    while kind != b"IEND":
        if at + _CHUNK.size > len(data):
            raise UnityObservationException(f"a PNG file in it breaks off at byte {len(data)}")
        length, chunk = _CHUNK.unpack_from(data, at)
        if (kind is None) != (chunk == b"IHDR") or (kind is None and length < _SIZE.size):
            raise UnityObservationException(f"a PNG file in it has no header, or a second one, at byte {at}")
        kind = chunk
        at += _CHUNK.size + length + 4
        if at > len(data):
            raise UnityObservationException(f"a PNG file in it breaks off at byte {len(data)}")
    return at


def _decode_file(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image  # slow to import, and most environments send no images

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels: NDArray[np.uint8] = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # Pillow lets many kinds through
        raise UnityObservationException(f"a PNG file in it cannot be read: {error}") from None
    channel_first: NDArray[np.uint8] = pixels.transpose(2, 0, 1)
    return channel_first

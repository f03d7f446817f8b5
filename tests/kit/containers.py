"""Parts of image files, to build files whose pixels are good and whose metadata is damaged."""

import struct
import zlib

from tests.kit.pixels import encoded


def png_chunk(name, content, crc=None):
    crc = zlib.crc32(name + content) if crc is None else crc
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png_with(image, before=b"", after=b"", **options):
    """A PNG with more chunks before and after its pixels."""
    data = encoded(image, "PNG", **options)
    pixels, end = data.index(b"IDAT") - 4, data.rindex(b"IEND") - 4
    return data[:pixels] + before + data[pixels:end] + after + data[end:]


def jpeg_segment(marker, content, length=None):
    length = len(content) + 2 if length is None else length
    return bytes([0xFF, marker]) + struct.pack(">H", length) + content


def jpeg_with(image, *segments, **options):
    """A JPEG that begins with more segments."""
    data = encoded(image, "JPEG", **options)
    return data[:2] + b"".join(segments) + data[2:]


def webp_chunks(data):
    """Name and content of a WebP's chunks."""
    found, position = [], 12
    while position < len(data):
        length = struct.unpack_from("<I", data, position + 4)[0]
        found.append((data[position : position + 4], data[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    return found


def webp_of(chunks):
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff_with(image, tag, kind, count, value, **options):
    """A TIFF with one more tag in its directory, or another value for one that it has. The value has four bytes."""
    data = encoded(image, "TIFF", **options)
    at = struct.unpack_from("<I", data, 4)[0]
    num = struct.unpack_from("<H", data, at)[0]
    entries = {data[begin : begin + 2]: data[begin : begin + 12] for begin in range(at + 2, at + 2 + 12 * num, 12)}
    entries[struct.pack("<H", tag)] = struct.pack("<HHI", tag, kind, count) + value
    table = b"".join(sorted(entries.values(), key=lambda entry: struct.unpack("<H", entry[:2])))
    data += bytes(len(data) % 2)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + struct.pack("<H", len(entries)) + table + bytes(4)


def jp2_with(image, boxes):
    """A JPEG 2000 with more boxes before its pixels."""
    data = encoded(image, "JPEG2000")
    pixels = data.index(b"jp2c") - 4
    return data[:pixels] + boxes + data[pixels:]


def mutated(random, data, begin, end, moves=True):
    """Flip, overwrite, cut or insert some bytes within a part of a file."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(begin, end)
        kind = random.choice(("flip", "overwrite", "cut", "insert") if moves else ("flip", "overwrite"))
        if kind == "flip":
            data[at] ^= 1 << random.randrange(8)
        elif kind == "overwrite":
            num = min(random.randrange(1, 9), end - at)
            data[at : at + num] = random.randbytes(num)
        elif kind == "cut":
            num = min(random.randrange(1, 12), end - at)
            del data[at : at + num]
            end -= num
        else:
            more = random.randbytes(random.randrange(1, 12))
            data[at:at] = more
            end += len(more)
        if end <= begin:
            break
    return bytes(data)

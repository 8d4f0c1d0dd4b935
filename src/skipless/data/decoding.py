"""Decoding text files that people and other programs have written: lists, classes, labels."""

import codecs

_MARKS = (  # UTF-32 first: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(content: bytes, errors: str = "strict") -> str:
    r"""Decode a file: UTF-8, or what its byte order mark says. The mark is dropped, and every line ends in `\n`.

    Raises:
        UnicodeDecodeError: if the content is no text in this encoding.

    Example:
        >>> decode_text(b"\xef\xbb\xbfcat\r\ndog")
        'cat\ndog'
    """
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")

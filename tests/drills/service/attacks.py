"""Hostile requests from a seed: each is bytes for a socket, and says what kind it is."""

import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

ROUTES = ("/", "/search", "/compare", "/info", "/livez", "/readyz", "/metrics", "/login", "/images/1", "/thumbs/1")
BODIES = ("/search", "/knn-service", "/", "/login")
NASTY_TEXTS = (
    "", " ", "\0", "a\0b", "\r\n", "%s%n%d", "{}", "{0.__class__}", "${7*7}", "{{7*7}}", "<script>alert(1)</script>",
    "\u202ecod\u202c", "\u200f\u05d0\u0627", "e\u0301" * 500, "\u200d" * 900, "\ufeff", "\ufffe\uffff",
    "\U0001f600" * 400, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U00020000\U0010ffff", "\ue000\U000f0000",
    "A" * 1999, "A" * 2001, "A" * 30_000, "'", '"', '"" + ""', '"a" - "a"', '1e308*"a" + 1e308*"a"', '0*"a"', '-"a"',
    'nan*"a"', 'inf*"a"', '1e-400*"a"', '"a" + ' * 300 + '"a"', '"' * 999, "(" * 1500, "+ + +", '2*"', "\x7f\x80\x9f",
    "../../etc/passwd", "file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", "[[1,2],[3]]", "null",
)  # fmt: skip
NASTY_NUMBERS = (
    "-1", "0", "-0", "1e9", "1.5", "1e400", "nan", "inf", "-inf", "NaN", "0x10", "1_000", "\u0661", "\uff12", "true",
    "", " ", "+1", " 1", "1 ", "1\0", "2147483648", "9223372036854775807", "9223372036854775808", "9" * 400, "1;2",
    "[]",
    "1/2", "1e-320", "--1", "999999", "2000", "1999", "1000",
)  # fmt: skip
NASTY_WHERES = (
    "id = 1; DROP TABLE images", "id = 1 OR 1=1", "1=1", "' OR '1'='1", "id IN (" + "1," * 900 + "1)",
    "(" * 990 + "id = 1" + ")" * 990, "NOT " * 450 + "id = 1", "id = " + "-" * 1500 + "1",
    "id = 1 AND " * 150 + "id = 2",
    "caption LIKE '" + "%a" * 900 + "'", "caption LIKE '" + "%_" * 500 + "b'", "caption LIKE '[' ", "key LIKE '\\'",
    "caption = '" + "x" * 1900 + "'", "__class__ = 1", "id.__class__ = 1", "id = 1 -- x", "id /* */ = 1", "id = 0x10",
    "id / 0 = 1", "id = 9223372036854775808", "id = -9223372036854775809", "id = 1e400", "id = nan", "width > '1'",
    "width > 512", "caption IS NULL", "none = 1", "caption = 1", "id = NULL", "id BETWEEN 5 AND 1", "id IN ()", "=",
    "\0",
    "caption = '\u202e'", '"id" = 1', "`id` = 1", "id = (SELECT 1)", "pg_sleep(10) = 1", "caption REGEXP '(a+)+$'",
    "date > '99999-01-01'", "key = '\U0001f600'", "id = 1\nOR id = 2", "id <> id", "'a' = 'a'", "id = true",
    "uri != ''",
)  # fmt: skip
DOTS = (
    "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "..\\", "%2e%2e%5c", "....//", "..;/",
    ".%00./",
    "%c0%ae%c0%ae/", "%c0%ae%c0%ae%c0%af", "%e0%80%ae%e0%80%ae%e0%80%af", "%f0%80%80%ae%f0%80%80%ae/",
    "%uff0e%uff0e/",
    "%ef%bc%8e%ef%bc%8e%ef%bc%8f", "..%c1%9c", "..%255c", "%2e%2e%00/", "./", "//", "%2f", "..%u2215",
)  # fmt: skip
HEADERS = (
    "Authorization: Bearer \xff", "Authorization: " + "B" * 9000, "Cookie: clipsieve_session=1.2",
    "Cookie: =;;=; $Path",
    "Range: bytes=0-1," + "1-2," * 2000, "Range: bytes=-99999999999999999999", "If-None-Match: " + '"a",' * 2000,
    "If-Modified-Since: Mon, 99 Foo 99999", "Accept: text/html;q=nan", "Accept-Encoding: gzip;q=-1", "Expect: 999-x",
    "Expect: 100-continue", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: gopher", "X-Forwarded-Proto: https",
    "X-Forwarded-For: ::1, '\"", "X-Original-URL: /etc/passwd", "X-HTTP-Method-Override: DELETE", "Forwarded: for=\"",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
    "Transfer-Encoding: chunked\r\nContent-Length: 5", "Transfer-Encoding: chunked, gzip", "Content-Length: -1",
    "Content-Length: 1\r\nContent-Length: 2", "Content-Length: 99999999999999999999999", "Content-Length: 0x5",
    "X : y",
    " X: y", "X: a\r\n folded", "X: a\rSet-Cookie: b", "X: a\nY: b", "X\0: y", "X: \0", ": empty", "Origin: null",
    "Origin: https://evil.example", "Origin: \xff", "Host: evil.example", "Host: localhost@evil",
    "Sec-Fetch-Site: cross-site",
    "Content-Type: application/json; charset=utf-7", "Referer: " + "r" * 5000, "User-Agent: " + "\xe4" * 3000,
)  # fmt: skip
METHODS = (
    "DELETE",
    "PUT",
    "PATCH",
    "TRACE",
    "OPTIONS",
    "HEAD",
    "PROPFIND",
    "CONNECT",
    "get",
    "G" * 3000,
    "QUERY",
    "\xff",
)


@dataclass(frozen=True)
class Attack:
    """A hostile request."""

    kind: str
    parts: tuple[bytes, ...]
    method: str = "GET"
    target: str | None = None
    """Path and query, if it is one request of well-formed HTTP, which must be answered with a declared status."""
    pause_s: float = 0.0
    """Between the parts."""
    ends_early: bool = False
    """The client closes its half of the connection, and may get no answer."""


class Attacks:
    """Draws hostile requests."""

    def __init__(self, seed: int, canary: Path, is_slow: bool) -> None:
        """Draw from a seed.

        Args:
            seed: Of the draws.
            canary: A file outside the stores, which the requests ask for.
            is_slow: Whether some may take seconds.
        """
        self._random, self._canary = random.Random(seed), canary
        self._kinds: list[Callable[[], Attack]] = [
            self._traversal, self._id, self._text, self._number, self._where, self._mixed, self._json, self._form,
            self._image, self._type, self._method, self._header, self._large, self._garbage, self._half,
        ]  # fmt: skip
        self._is_slow = is_slow

    def draw(self) -> Attack:
        """The next one. Slow ones are rare."""
        if self._is_slow and self._random.random() < 0.004:
            return self._slow()
        return self._one_of(self._kinds)()

    def _one_of(self, values):
        return self._random.choice(values)

    def _traversal(self) -> Attack:
        name = self._one_of([str(self._canary), str(self._canary).lstrip("/"), "etc/passwd", "C:\\windows\\win.ini"])
        dots = "".join(self._one_of(DOTS) if self._random.random() < 0.2 else part for part in [self._one_of(DOTS)] * 9)
        climb = dots[: len(dots) if self._random.random() < 0.8 else 0] + name
        climb += self._one_of(["", "", "%00", "%00.jpg", "?", "/", "/.", "::$DATA"])
        climb = climb.replace(" ", "%20")
        prefix = self._one_of(["/", "/static/", "/images/", "/thumbs/", "/images/1/", "//", "/file://", "/\\\\?\\"])
        in_query = self._one_of(
            ["/search?k=1&store=", "/images/1?store=", "/search?like_key=", "/thumbs/1?v=", "/?store="]
        )
        return self._get("traversal", (prefix if self._random.random() < 0.6 else in_query) + climb)

    def _id(self) -> Attack:
        value = quote(self._one_of(NASTY_NUMBERS + NASTY_TEXTS[:20]), safe="")
        return self._get(
            "id", self._one_of(["/images/", "/thumbs/", "/search?like=", "/compare?like=", "/?like="]) + value
        )

    def _text(self) -> Attack:
        field = self._one_of(["text", "template", "like_key", "store", "v", "text\0", "text[]"])
        if self._random.random() < 0.3:
            raw = bytes(self._random.randrange(256) for _ in range(self._random.randrange(1, 40)))
            raw = self._one_of([raw, b"\xed\xa0\x80", b"\xc0\x80", b"\xf8\x88\x80\x80\x80", b"\xff\xfe"])
            return self._get("text", f"/search?k=3&{quote(field)}={quote_from_bytes(raw)}")
        text = self._one_of(NASTY_TEXTS) if self._random.random() < 0.5 else self._unicode()
        return self._get("text", f"{self._one_of(['/search', '/compare', '/'])}?k=3&{quote(field)}={quote(text)}")

    def _unicode(self) -> str:
        plane = self._random.randrange(17) << 16
        points = [plane + self._random.randrange(65536) for _ in range(self._random.randrange(1, 300))]
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)

    def _number(self) -> Attack:
        field = self._one_of(["k", "offset", "unique_cosine", "min_relevance", "unique", "like"])
        value = quote(self._one_of(NASTY_NUMBERS))
        return self._get("number", f"{self._one_of(['/search', '/compare', '/'])}?text=dog&{field}={value}")

    def _where(self) -> Attack:
        conditions = "&".join(
            f"where={quote(self._one_of(NASTY_WHERES))}" for _ in range(self._one_of([1, 1, 1, 2, 9]))
        )
        return self._get("where", f"{self._one_of(['/search', '/compare', '/'])}?text=dog&k=3&{conditions}")

    def _mixed(self) -> Attack:
        fields = [
            "text",
            "like",
            "like_key",
            "where",
            "template",
            "k",
            "unique",
            "offset",
            "store",
            "x",
            "compare",
            "fragment",
        ]
        values = NASTY_TEXTS + NASTY_NUMBERS + NASTY_WHERES
        chosen = [f"{self._one_of(fields)}={quote(self._one_of(values))}" for _ in range(self._random.randrange(1, 8))]
        return self._get("mixed", f"{self._one_of(ROUTES)}?{'&'.join(chosen)}")

    def _json(self) -> Attack:
        text = json.dumps(self._one_of(NASTY_TEXTS))
        vector = self._one_of(
            ["[]", "[NaN]", "[1e400]", "[0,0]", "[" + "0," * 70_000 + "0]", "[1]", '["a"]', "[[1]]", "null"]
        )
        body = self._one_of(
            [
                "", "{", "null", "[]", "1", '"a"', "[" * 10_000, '{"a":' * 10_000, '{"text":"\\ud800"}',
                '{"text":"\\udc00a"}',
                '{"where":["\\ud800 = 1"]}', '{"like_key":["\\ud83d"]}', '{"text":"a","text":"b"}',
                '{"k":1e400,"text":"a"}',
                '{"text":"a","k":' + "9" * 5000 + "}", '{"text":' + text + "}", '{"vector":' + vector + "}",
                "{'text': 'a'}",
                '{"where":[' + text + '],"text":"a"}', '{"template":[' + text + '],"text":"a"}', '{"__proto__":{}}',
                "\ufeff{}",
                '{"like":[' + self._one_of(["-1", "1.5", "1e3", "9" * 30, '"1"', "true"]) + "]}",
                '{"text":"a"}garbage',
                '{"num_images":1e9,"text":"a"}', '{"image":"!!!"}', '{"image":"aGFsbG8="}',
                '{"image_url":"file:///etc/passwd"}',
                '{"embedding_input":' + vector + "}", '{"indice_name":' + text + ',"text":"a"}',
                '{"text":"a","modality":"x"}',
            ]
        )  # fmt: skip
        data = body.encode("utf-8", "surrogatepass")
        return self._post(
            "json", self._one_of(BODIES), self._one_of(["application/json"] * 9 + ["Application/JSON;x"]), data
        )

    def _form(self) -> Attack:
        part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        body = self._one_of(
            [
                b"", b"--x--", b"--x\r\n", part % (b"text", b"", b"\xff\xfe\0"), part % (b"text", b"",
                b"a" * 300_000) + b"--x--",
                part % (b"image", b'; filename="../../x"', b"") + b"--x--", (part % (b"f", b"",
                b"")) * 2000 + b"--x--",
                (part % (b"image", b'; filename="a"', b"a")) * 50 + b"--x--",
                b"--x\r\nContent-Disposition: " + b"a" * 50_000,
                b"--x\r\n" + b"X: y\r\n" * 3000 + b"\r\n--x--", part % (b"a" * 9000, b"", b"") + b"--x--",
                b"\r\n" * 5000,
                part % (b"image", b"", b"no file") + b"--x--", part % (b"text", b"; filename*=utf-8''%ff",
                b"a") + b"--x--",
                part % (b"image", b'; filename="a"\r\nContent-Transfer-Encoding: base64', b"=") + b"--x--",
            ]
        )  # fmt: skip
        kind = self._one_of(["; boundary=x"] * 7 + ["", "; boundary=", "; boundary=" + "b" * 5000, "; boundary=\xff"])
        return self._post("form", self._one_of(BODIES), f"multipart/form-data{kind}", body)

    def _image(self) -> Attack:
        image = self._one_of(IMAGES)
        if self._random.random() < 0.5:
            cut = self._random.randrange(1, len(image) + 1)
            image = image[:cut] + self._random.randbytes(self._random.randrange(200))
        name = self._one_of([b"a.png", b"../../../tmp/x", b"a\\b", b"\xff.jpg", b"CON", b"a" * 3000])
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\nContent-Type: image/png\r\n\r\n'
        body = head % name + image + b"\r\n--x--\r\n"
        return self._post("image", self._one_of(["/search", "/search", "/"]), "multipart/form-data; boundary=x", body)

    def _type(self) -> Attack:
        types = ["text/plain", "application/xml", "application/x-www-form-urlencoded", "", "a", "\xff",
        "multipart/mixed",
                 "application/x-python-pickle", "application/octet-stream", "*/*", "x" * 4000]  # fmt: skip
        bodies = [
            b"",
            b"text=dog&" * 3000,
            b"\x80\x04\x95",
            b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
        ]
        bodies += [b"token=" + b"%ff" * 900, b"&" * 20_000, b"token" + b"[]" * 3000 + b"=1"]
        return self._post("type", self._one_of(BODIES), self._one_of(types), self._one_of(bodies))

    def _method(self) -> Attack:
        method = self._one_of(METHODS)
        is_known = method in METHODS[:7]
        path = self._one_of(ROUTES)
        parts = (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"),)
        return Attack("method", parts, method, path if is_known else None)

    def _header(self) -> Attack:
        lines = "\r\n".join(self._one_of(HEADERS) for _ in range(self._one_of([1, 1, 2, 4])))
        line = (
            self._one_of(["GET", "GET", "POST"]) + " " + self._one_of(ROUTES) + self._one_of(["", "?text=%0d%0aX:%20y"])
        )
        head = f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n\r\n"
        return Attack("header", (head.encode("latin-1"), b"0\r\n\r\n"))

    def _large(self) -> Attack:
        size = self._one_of([9_000, 70_000, 300_000])
        parts = self._one_of(
            [
                b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                b"GET /search?text=" + b"a" * size + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                b"GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"a" * size + b"\r\n\r\n",
                b"GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + b"X: y\r\n" * (size // 6) + b"\r\n",
                b"GET /info HTTP/1.1\r\nHost: " + b"a" * size + b"\r\n\r\n",
            ]
        )
        return Attack("large", (parts,), ends_early=True)

    def _garbage(self) -> Attack:
        good = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        bad = self._one_of(
            [
                self._random.randbytes(self._random.randrange(1, 3000)), b"\x16\x03\x01\x02\x00\x01\x00",
                b"GET\r\n\r\n", b"\0" * 999,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  /  HTTP/1.1\r\n\r\n",
                b"GET /\xff HTTP/1.1\r\n\r\n",
                b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                b"GET http:// HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n",
                b"GET http://evil.example/etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                b"SSH-2.0-x\r\n",
                b"POST /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                b"POST /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
                good * 40 + b"\xff" * 9,
            ]
        )  # fmt: skip
        return Attack("garbage", (good * self._one_of([0, 0, 1, 3]) + bad,), ends_early=True)

    def _half(self) -> Attack:
        attack = self._one_of([self._json, self._image, self._text, self._where])()
        whole = attack.parts[0]
        cut = self._random.randrange(1, len(whole) + 1)
        return Attack("half-closed", (whole[:cut],), ends_early=True)

    def _slow(self) -> Attack:
        head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        parts = self._one_of(
            [
                (head + b"Content-Length: 900\r\n\r\n", *[b" "] * 40),
                (head + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 40),
                (b"GET /search?text=a HTTP/1.1\r\n", *[b"X: y\r\n"] * 40),
                (b"\r\n",) * 40,
            ]
        )
        return Attack("slow", parts, pause_s=0.1, ends_early=True)

    def _get(self, kind: str, target: str) -> Attack:
        raw = target.encode("utf-8", "surrogatepass").replace(b" ", b"%20").replace(b"\0", b"%00")
        is_ascii = raw.isascii() and len(raw) < 60_000
        head = b"GET " + raw + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return Attack(kind, (head,), "GET", target if is_ascii else None)

    def _post(self, kind: str, path: str, media_type: str, body: bytes) -> Attack:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media_type}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        return Attack(kind, (head.encode("latin-1") + body,), "POST", path)


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


IMAGES = (
    _png(2, 2, b"\0" * 14), _png(60_000, 60_000, b"\0" * 5_000_000), _png(2**31 - 1, 2**31 - 1, b""), _png(0, 0, b""),
    _png(6_000, 6_000, b"\0" * 100), b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0", b"II*\0\xff\xff\xff\xff",
    b"BM" + b"\xff" * 60,
    b"RIFF\xff\xff\xff\xffWEBPVP8L",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", b"%PDF-1.7",
    b"PK\x03\x04", b"%!PS\n(/etc/passwd) (r) file", b"\0\0\0\x20ftypheic" + b"\xff" * 90, b"P6 99999 99999 255 ",
    b"\x80\x04\x95cos\nsystem",
    b"8BPS\0\x01" + b"\xff" * 40, b"\x89PNG\r\n\x1a\n" + b"\xff" * 500, b"\0" * 100_000, b"\x1f\x8b\x08" + b"\0" * 50,
)  # fmt: skip

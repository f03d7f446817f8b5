"""Sources on web servers and behind schemes other than S3's."""

from typing import ClassVar

import fsspec
import pytest

from pipeline.errors import InputError
from pipeline.source.access import failures, location
from pipeline.source.reading import read_file, read_image
from tests.kit.sources import listed, record_of, tar_of
from tests.kit.web_server import Handler, serving


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No waiting, and no state of servers from earlier tests."""
    monkeypatch.setattr(location, "RETRY_WAITS_S", (0.01, 0.01, 0.01, 0.01))
    location._filesystem.cache_clear()
    location._silent_sites.clear()
    yield
    location._filesystem.cache_clear()


class Site(Handler):
    counts: ClassVar = {}

    def look(self, path):
        count = Site.counts[path] = Site.counts.get(path, 0) + 1
        if path == "/twice.jpg" and count <= 2:
            return 503, b"later"
        if path.startswith("/always"):
            return int(path[8:11]), b"no"
        if path == "/half.jpg" and count == 1:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            raise ConnectionAbortedError
        if path == "/ftp.jpg":
            return 302, b"", ("Location", "ftp://host/a.jpg?token=abc")
        if path == "/loop.jpg":
            return 302, b"", ("Location", "/loop.jpg")
        if path == "/moved.jpg":
            return 302, b"", ("Location", "/a%20b.jpg")
        if path == "/agent.jpg":
            return 200, (self.headers["User-Agent"] or "").encode()
        if path == "/0.tar":
            return self._part(tar_of({f"{number}.jpg": b"%d" % number * 4000 for number in range(9)}))
        return (
            (200, f"this is {path}".encode()) if path in ("/a%20b.jpg", "/twice.jpg", "/half.jpg") else (404, b"none")
        )

    def _part(self, data):
        if not self.headers["Range"]:
            return 200, data, ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        return 206, part, ("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")


@pytest.fixture
def site():
    Site.counts.clear()
    with serving(Site) as url:
        yield url


def test_a_list_of_urls(site, tmp_path):
    (tmp_path / "list.csv").write_text(
        f"url,caption\n{site}/a b.jpg,spaces\n{site}/a%20b.jpg,quoted\n{site}/none.jpg,\n"
    )
    entries = list(listed(str(tmp_path / "list.csv")))
    assert Site.counts == {}  # listing requests none of them
    assert [entry.key for entry in entries] == [f"{site}/a b.jpg", f"{site}/a%20b.jpg", f"{site}/none.jpg"]
    assert [read_image(entry.uri) for entry in entries[:2]] == [b"this is /a%20b.jpg"] * 2
    record = record_of(entries[2].uri)
    assert (record.status, record.sha256) == ("unreadable", None)
    assert Site.counts == {"/a%20b.jpg": 2, "/none.jpg": 1}  # one request per image


def test_a_site_that_fails_for_a_while(site):
    assert read_image(f"{site}/twice.jpg") == b"this is /twice.jpg"
    assert read_image(f"{site}/half.jpg") == b"this is /half.jpg"
    assert Site.counts == {"/twice.jpg": 3, "/half.jpg": 2}
    assert read_image(f"{site}/moved.jpg") == b"this is /a%20b.jpg"
    assert read_image(f"{site}/agent.jpg").startswith(b"clipsieve/")


@pytest.mark.parametrize(
    ("status", "num_requests"), [(403, 1), (401, 1), (410, 1), (400, 1), (503, 5), (500, 5), (429, 5)]
)
def test_a_failing_site_fails_only_its_own_images(site, status, num_requests):
    record = record_of(f"{site}/always-{status}.jpg")
    assert (record.status, str(status) in record.error) == ("unreadable", True)
    assert Site.counts == {f"/always-{status}.jpg": num_requests}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none.jpg", "404 Not Found"),
        ("/always-410.jpg", "410 Gone"),
        ("/always-403.jpg", "403 Forbidden"),
        ("/always-599.jpg", "599"),
        ("/loop.jpg", "too many redirects: the server sends every request on to another address"),
        ("/ftp.jpg", "its server redirects to an address that is not on the web"),
    ],
)
def test_reasons_say_what_the_server_answered(site, path, reason):
    assert record_of(f"{site}{path}").error == reason
    with pytest.raises(OSError, match=r"404|410|403|599|redirect") as caught:
        location.open_stream(f"{site}{path}?token=abc")
    assert "abc" not in failures.reason_of(caught.value)


def test_an_address_without_a_host():
    assert record_of("http:///a.jpg").error == "it is not a complete web address"


def test_a_redirect_loop_is_not_tried_again(site):
    record_of(f"{site}/loop.jpg")
    assert Site.counts["/loop.jpg"] <= 11


def test_reasons_of_errors_without_a_text():
    assert failures.reason_of(TimeoutError()) == "no answer in time"
    assert failures.reason_of(OSError("no https://h/a.jpg?sig=abc now")) == "no https://h/a.jpg now"
    error = OSError("403")
    error.status, error.message = 403, "Forbidden"
    assert failures.reason_to_read_later(error, "https://h/a") == (
        "403 Forbidden (if its link was signed, it needs a fresh one)"
    )
    assert failures.reason_to_read_later(FileNotFoundError(2, "No such file"), "/a") == "No such file"


def test_a_silent_site_gets_one_request_per_image(site):
    assert [record_of(f"{site}/always-503-{number}.jpg").status for number in range(3)] == ["unreadable"] * 3
    assert list(Site.counts.values()) == [5, 1, 1]
    assert read_image(f"{site}/a b.jpg") == b"this is /a%20b.jpg"


def test_a_site_that_is_gone():
    with serving(Site) as url:
        pass
    record = record_of(f"{url}/a.jpg")
    assert record.status == "unreadable"
    assert "onnect" in record.error


def test_images_beyond_the_limit_are_not_read_to_the_end(site):
    assert len(location.read_bytes(f"{site}/a b.jpg", 18)) == 18
    with pytest.raises(location.TooLarge, match="more than 17 bytes"):
        location.read_bytes(f"{site}/a b.jpg", 17)


def test_tars_on_the_web(site, monkeypatch):
    monkeypatch.setattr(location, "BUFFER_BYTES", 4096)
    listing = listed(f"{site}/0.tar")
    [file] = listing.files
    assert (file.key, file.mtime_ns) == ("0.tar", 1_445_412_480 * 10**9)
    found = list(read_file(file, listing.source, 0, 0))
    assert [entry.data for entry in found] == [b"%d" % number * 4000 for number in range(9)]
    assert read_image(found[4].uri) == found[4].data


def test_a_failing_server_is_not_reported_as_a_missing_file(site):
    with pytest.raises(OSError, match="503"):
        location.open_stream(f"{site}/always-503.tar")
    assert Site.counts["/always-503.tar"] >= 5
    with pytest.raises(FileNotFoundError):
        location.open_stream(f"{site}/none.tar")


def test_web_servers_are_not_folders(site):
    with pytest.raises(
        InputError, match=rf"cannot list {site}/photos: web servers do not list folders; name the images"
    ):
        listed(f"{site}/photos/")
    with pytest.raises(InputError, match=r"source .*/none.tar does not exist"):
        listed(f"{site}/none.tar")
    with pytest.raises(InputError, match=r"cannot read .*always-503.tar: 503"):
        listed(f"{site}/always-503.tar")


# --- other schemes


def test_other_schemes_use_fsspec():
    memory = fsspec.filesystem("memory")
    memory.pipe({"/photos/a b.jpg": b"A", "/photos/d/c.jpg": b"CC", "/photos/0.tar": tar_of({"x.jpg": b"X"})})
    try:
        found = list(listed("memory://photos"))
        assert [(entry.key, entry.uri, entry.num_bytes) for entry in found] == [
            ("a b.jpg", "memory://photos/a b.jpg", 1), ("d/c.jpg", "memory://photos/d/c.jpg", 2),
        ]  # fmt: skip
        assert [read_image(entry.uri) for entry in found] == [b"A", b"CC"]
        listing = listed("memory://photos", "webdataset")
        assert [entry.data for entry in read_file(listing.files[0], listing.source, 0, 0)] == [b"X"]
        assert record_of("memory://photos/none.jpg").status == "unreadable"
    finally:
        memory.rm("/photos", recursive=True)


@pytest.mark.parametrize("url", ["hdfs://nowhere:8020/photos", "foo://host/photos", "foo://host/a.tar"])
def test_unsupported_urls(url, monkeypatch):
    monkeypatch.setattr(location, "RETRY_WAITS_S", ("never",))
    for _ in range(2):
        with pytest.raises(InputError, match=url.partition("://")[0]) as caught:
            listed(url)
        assert "\n" not in str(caught.value)


def test_google_without_credentials(monkeypatch, site):
    # a real answer from a server that refuses everyone
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", site)
    monkeypatch.setattr(location, "RETRY_WAITS_S", ())
    with pytest.raises(InputError, match=r"gs://bucket/photos") as caught:
        listed("gs://bucket/photos")
    assert "\n" not in str(caught.value)


def test_a_site_that_responds_again_gets_retries_again(site):
    assert record_of(f"{site}/always-503.jpg").status == "unreadable"
    assert read_image(f"{site}/a b.jpg") == b"this is /a%20b.jpg"
    assert read_image(f"{site}/twice.jpg") == b"this is /twice.jpg"  # at the third request

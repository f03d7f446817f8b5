"""Sources on a real S3 server, and what happens when it fails."""

import http.client
import http.server
import os
from pathlib import Path
from typing import ClassVar

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from pipeline.errors import InputError, SourceUnavailable
from pipeline.source.access import location
from pipeline.source.reading import read_file, read_image
from tests.kit.sources import listed, record_of, tar_of
from tests.kit.web_server import Handler, serving

NAMES = ["a b.jpg", "c#1.jpg", "d%20e.jpg", "f+g.jpg", "q?x=1.jpg", "amp&.jpg", "snö/ü é.jpg"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No waiting, and no state of servers from earlier tests."""
    monkeypatch.setattr(location, "RETRY_WAITS_S", (0.01, 0.01, 0.01, 0.01))
    location._filesystem.cache_clear()
    location._silent_sites.clear()
    yield
    location._filesystem.cache_clear()


@pytest.fixture(scope="module")
def server():
    """The URL of an S3 server, and a client for it."""
    names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        url = "http://{}:{}".format(*moto.get_host_and_port())
        yield url, boto3.client("s3", endpoint_url=url)
        moto.stop()
        moto._server.server_close()


@pytest.fixture
def s3(server, monkeypatch):
    """A client for the server behind `s3://` URLs."""
    url, client = server
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    return client


@pytest.fixture
def bucket(s3, request):
    """Makes a bucket with the given objects and returns its URL."""

    def make(objects):
        name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
        s3.create_bucket(Bucket=name)
        for key, data in objects.items():
            s3.put_object(Bucket=name, Key=key, Body=data)
        return f"s3://{name}"

    return make


@pytest.fixture
def front(server, monkeypatch):
    """A proxy for the S3 server that first gives its own answers, if it has any."""
    address = server[0].removeprefix("http://")

    class Front(Handler):
        answers: ClassVar = []

        def look(self, path):
            if Front.answers:
                return Front.answers.pop(0)
            connection = http.client.HTTPConnection(address)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request(self.command, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            passed_on = [
                (name, answer.headers[name]) for name in ("Last-Modified", "Content-Range") if answer.headers[name]
            ]
            if self.command == "HEAD":
                body = bytes(int(answer.headers["Content-Length"] or 0))  # for its length
            return answer.status, body, *passed_on

    with serving(Front) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        yield Front


def refusal(status, code):
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


# --- S3


def test_a_bucket_is_a_folder(bucket, s3):
    objects = {name: name.encode() for name in NAMES}
    others = {"notes.txt": b"", ".hidden.jpg": b"", ".cache/x.jpg": b"", "folder.jpg/": b"", "folder.jpg/in.jpg": b"in"}
    url = bucket(objects | others)
    for place in (url, f"{url}/"):
        listing = listed(place)
        assert listing.source.location == url
        found = {entry.key: entry for entry in listing}
        assert sorted(found) == list(found) == sorted([*NAMES, "folder.jpg/in.jpg"])
        assert listing.left_out.counts == {"other_suffix": 1, "hidden": 2}
    for name, data in objects.items():
        head = s3.head_object(Bucket=url[5:], Key=name)
        assert found[name].uri == f"{url}/{name}"
        assert found[name].num_bytes == len(data)
        assert found[name].mtime_ns == int(head["LastModified"].timestamp()) * 10**9
        assert read_image(found[name].uri) == data
    assert [entry.key for entry in listed(f"{url}/snö")] == ["ü é.jpg"]


def test_keys_that_look_like_members(bucket):
    names = ["a.tar#member=b.jpg", "a.parquet#column=image&row=0", "x#member=y.jpg"]
    inside = tar_of({"b.jpg": b"in the tar", "c.jpg": b"C"})
    url = bucket({"a.tar": inside, **{name: name.encode() for name in names}, "p.jpg": b"P"})
    found = {entry.key: entry for entry in listed(url)}
    assert sorted(found) == ["a.tar#member=b.jpg", "p.jpg", "x#member=y.jpg"]
    assert [read_image(found[name].uri) for name in sorted(found)] == [b"a.tar#member=b.jpg", b"P", b"x#member=y.jpg"]
    assert read_image(f"{url}/a.tar#member=c.jpg") == b"C"
    record = record_of(f"{url}/x#member=none.jpg")
    assert (record.status, "does not exist" in record.error) == ("unreadable", True)


@pytest.mark.parametrize("key", ["d//e.jpg", "/e.jpg"])
def test_unreadable_keys_are_an_error(bucket, key):
    url = bucket({"a.jpg": b"A", key: b"E"})
    with pytest.raises(InputError, match=r"cannot list s3://.*: .*keys with an empty part \(//\).*rename them"):
        listed(url)


def test_more_than_a_page_of_objects(bucket):
    url = bucket({})
    names = [f"{number:04d}.jpg" for number in range(2300)]
    for name in names:  # directly into the server's memory, because 2,300 requests take half a minute
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(url[5:], name, b"x")
    assert [entry.key for entry in listed(url)] == names


def test_tars_in_a_bucket(bucket):
    url = bucket(
        {
            "sets/000.tar": tar_of({"a #1.jpg": b"A", "a #1.txt": b"caption", "b.jpg": b"B"}),
            "sets/more/001.tar": tar_of({"c.jpg": b"C" * 10_000}),
            "sets/.tmp.tar": b"half",
            "sets/notes.txt": b"",
        }
    )
    for place, keys in (
        (f"{url}/sets/000.tar", ["000.tar"]),
        (f"{url}/sets/{{000..000}}.tar", ["000.tar"]),
        (f"{url}/sets/*.tar", ["000.tar"]),
        (f"{url}/sets/{{000,more/001}}.tar", ["000.tar", "more/001.tar"]),
        (f"{url}/sets", ["000.tar", "more/001.tar"]),
        (f"{url}/sets/", ["000.tar", "more/001.tar"]),
    ):
        listing = listed(place, "webdataset")
        assert [file.key for file in listing.files] == keys
        found = [entry for file in listing.files for entry in read_file(file, listing.source, 0, 0)]
        assert [entry.data for entry in found] == [b"A", b"B", b"C" * 10_000][: len(keys) + 1]
        assert [entry.caption for entry in found][:2] == ["caption", None]
        assert [read_image(entry.uri) for entry in found] == [entry.data for entry in found]


def test_parquet_in_a_bucket(bucket):
    sink = pa.BufferOutputStream()
    columns = {"image": [b"%d" % n * 100 for n in range(40)], "caption": [f"c{n}" for n in range(40)]}
    pq.write_table(pa.table(columns), sink, row_group_size=15)
    url = bucket({"d/a b.parquet": sink.getvalue().to_pybytes()})
    listing = listed(f"{url}/d", "parquet")
    assert (listing.num_images, [file.key for file in listing.files]) == (40, ["a b.parquet"])
    found = list(read_file(listing.files[0], listing.source, 10, 33))
    assert [entry.data for entry in found] == columns["image"][10:33]
    assert [entry.caption for entry in found] == columns["caption"][10:33]
    assert read_image(found[7].uri) == columns["image"][17]


def test_lists_in_a_bucket(bucket):
    url = bucket({"sets/list.csv": "path,caption\nphotos/a b.jpg,å\n../c.jpg,\n/mnt/d.jpg,\n".encode(), "c.jpg": b"C"})
    found = {entry.key: entry for entry in listed(f"{url}/sets/list.csv")}
    assert [found[key].uri for key in ("photos/a b.jpg", "../c.jpg", "/mnt/d.jpg")] == [
        f"{url}/sets/photos/a b.jpg", f"{url}/c.jpg", "file:///mnt/d.jpg",
    ]  # fmt: skip
    assert found["photos/a b.jpg"].caption == "å"
    assert read_image(found["../c.jpg"].uri) == b"C"


def test_missing_objects(bucket):
    url = bucket({"a.jpg": b"A"})
    with pytest.raises(OSError, match="does not exist"):
        read_image(f"{url}/none.jpg")
    record = record_of(f"{url}/none.jpg")
    assert (record.status, record.sha256) == ("unreadable", None)
    assert "does not exist" in record.error
    for place, source_format, message in (
        ("s3://bucket-of-nobody", "auto", r"cannot list s3://bucket-of-nobody: .*NO_SUCH_BUCKET.*; check the name"),
        (f"{url}/none", "auto", rf"cannot list {url}/none: "),
        (f"{url}/none.tar", "auto", rf"source {url}/none.tar does not exist"),
        (f"{url}/none-*.tar", "auto", r"matches no files"),
        (f"{url}/none.csv", "auto", r"cannot read list .*none.csv: "),
        (f"{url}", "webdataset", r"contains no .tar files"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            listed(place, source_format)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, SourceUnavailable)


def test_a_file_replaced_in_the_bucket_is_refused(bucket, s3):
    url = bucket({"0.tar": tar_of({"a.jpg": b"A"})})
    listing = listed(f"{url}/0.tar")
    s3.put_object(Bucket=url[5:], Key="0.tar", Body=tar_of({"a.jpg": b"A" * 20_000}))
    with pytest.raises(InputError, match=r"0.tar changed since the run was planned"):
        list(read_file(listing.files[0], listing.source, 0, 0))


# --- an S3 server that fails


def test_reading_a_large_file_survives_an_unreliable_server(bucket, front, monkeypatch):
    members = {f"{number:03d}.jpg": bytes([number]) * 20_000 for number in range(200)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": list(members.values())}), sink, row_group_size=50, compression="none")
    url = bucket({"0.tar": tar_of(members), "0.parquet": sink.getvalue().to_pybytes()})
    monkeypatch.setattr(location, "BUFFER_BYTES", 8192)
    for name in ("0.tar", "0.parquet"):
        listing = listed(f"{url}/{name}")
        entries = read_file(listing.files[0], listing.source, 0, 200)
        found = [next(entries)]
        front.answers += [refusal(503, "SlowDown")] * 3  # as many as pyarrow retries by itself
        found += entries
        assert [entry.data for entry in found] == list(members.values())
        assert front.answers == []


def test_a_server_that_keeps_failing_is_to_blame(bucket, front, monkeypatch):
    monkeypatch.setattr(location, "RETRY_WAITS_S", ())  # pyarrow's own three attempts take seconds
    url = bucket({"a.jpg": b"A", "0.tar": tar_of({"a.jpg": b"A"})})
    listing = listed(f"{url}/0.tar")
    front.answers += [refusal(503, "SlowDown")] * 100
    for call in (
        lambda: list(read_file(listing.files[0], listing.source, 0, 0)),
        lambda: listed(url),
    ):
        with pytest.raises(
            SourceUnavailable, match=r"cannot read .* at the moment: .*; once its server .* to resume"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
    front.answers.clear()
    assert read_image(f"{url}/a.jpg") == b"A"


def test_a_server_that_is_stopped(server, s3, monkeypatch):
    monkeypatch.setattr(location, "RETRY_WAITS_S", (0.01,))
    other = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    other.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*other.get_host_and_port()))
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket="photos-here")
    client.put_object(Bucket="photos-here", Key="a.jpg", Body=b"A")
    assert read_image("s3://photos-here/a.jpg") == b"A"
    other.stop()
    other._server.server_close()
    with pytest.raises(SourceUnavailable, match=r"cannot read s3://photos-here/a.jpg .*NETWORK_CONNECTION"):
        record_of("s3://photos-here/a.jpg")


def test_refusals_are_not_retried(bucket, front, monkeypatch):
    monkeypatch.setattr(location, "RETRY_WAITS_S", ("never",))
    url = bucket({"a.jpg": b"A"})
    for status, code in ((403, "AccessDenied"), (404, "NoSuchBucket"), (301, "PermanentRedirect")):
        front.answers[:] = [refusal(status, code)] * 10
        with pytest.raises(InputError, match=rf"cannot list {url}: .*; check the name and its permissions") as caught:
            listed(url)
        assert "\n" not in str(caught.value)
    # a refused image becomes a row, because others may be readable
    front.answers[:] = [refusal(403, "AccessDenied")] * 10
    assert record_of(f"{url}/a.jpg").status == "unreadable"


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ExpiredToken"), (401, "Unauthorized"), (403, "InvalidAccessKeyId")]
)
def test_bad_credentials_fail_no_image(bucket, front, status, code, monkeypatch):
    monkeypatch.setattr(location, "RETRY_WAITS_S", ("never",))
    url = bucket({"a.jpg": b"A"})
    front.answers[:] = [refusal(status, code)] * 10
    with pytest.raises(SourceUnavailable, match=rf"cannot read {url}: .*renew the credentials"):
        listed(url)
    if status != 400:  # for one image, the answer does not tell bad credentials from a forbidden image
        return
    front.answers[:] = [refusal(status, code)] * 10
    with pytest.raises(SourceUnavailable, match=r"cannot read .*a.jpg: .*renew the credentials"):
        record_of(f"{url}/a.jpg")


def test_the_name_of_an_image_says_nothing_about_its_server(bucket, front):
    url = bucket({"INVALID/NOT_FOUND.jpg": b"A", "HTTP status 404.jpg": b"A"})
    front.answers += [refusal(503, "SlowDown")] * 3
    assert read_image(f"{url}/INVALID/NOT_FOUND.jpg") == b"A"
    assert front.answers == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reads fail")
def test_a_failing_disk_is_to_blame():
    with pytest.raises(
        SourceUnavailable, match=r"cannot read file:///proc/self/mem at the moment: Input/output error; .* disk"
    ):
        record_of("file:///proc/self/mem")
